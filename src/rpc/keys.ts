/** Concurrency and unique keys, as a producer names them. */
import {
  type Concurrency as ConcurrencyMessage,
  type Unique as UniqueMessage,
  UniqueUntil as UniqueUntilMessage,
} from "../../gen/baton/v1/job_pb.js";
import type { Concurrency, Unique, UniqueUntil } from "../model/job.ts";
import { type Checks, YEAR_MS } from "./checks.ts";

const MAX_LIMIT = 1_000_000;

const UNTIL: ReadonlyMap<number, UniqueUntil> = new Map([
  [UniqueUntilMessage.UNSPECIFIED, "success"],
  [UniqueUntilMessage.START, "start"],
  [UniqueUntilMessage.SUCCESS, "success"],
  [UniqueUntilMessage.EXPIRY, "expiry"],
]);

export function checkConcurrency(checks: Checks, path: string, message: ConcurrencyMessage): Concurrency {
  const key = checks.id(`${path}key`, message.key);
  return { key, limit: checks.integer(`${path}limit`, message.limit, 1, MAX_LIMIT) };
}

export function checkUnique(checks: Checks, path: string, message: UniqueMessage): Unique {
  const key = checks.id(`${path}key`, message.key);
  const until = checks.choice(`${path}until`, message.until, UNTIL, "START, SUCCESS, EXPIRY");
  const expiresInMs = checks.duration(`${path}expires_in`, message.expiresIn, 1, YEAR_MS);
  if (until === "expiry" && !message.expiresIn) checks.refuse(`${path}expires_in`, "must be set for EXPIRY");
  return { key, until, expiresInMs };
}
