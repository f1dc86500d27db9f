/** A retry policy, in Put, UpdateQueue and schedules: what it does not say stays unsaid, for its queue or the broker to say. */
import {
  BackoffCurve as BackoffCurveMessage,
  type RetryPolicy as RetryPolicyMessage,
} from "../../gen/baton/v1/job_pb.js";
import type { BackoffCurve, OwnRetryPolicy } from "../model/job.ts";
import { type Checks, YEAR_MS } from "./checks.ts";

const MAX_ATTEMPTS = 1_000;
const MAX_MULTIPLIER = 100;

const CURVES: ReadonlyMap<number, BackoffCurve> = new Map([
  [BackoffCurveMessage.EXPONENTIAL, "exponential"],
  [BackoffCurveMessage.EXQ, "exq"],
]);

export function checkRetry(checks: Checks, path: string, message: RetryPolicyMessage): OwnRetryPolicy {
  const maxAttempts = checks.integer(`${path}max_attempts`, message.maxAttempts, 0, MAX_ATTEMPTS) || undefined;
  const initialBackoffMs = checks.duration(`${path}initial_backoff`, message.initialBackoff, 0, YEAR_MS);
  const maxBackoffMs = checks.duration(`${path}max_backoff`, message.maxBackoff, 0, YEAR_MS);
  if (maxBackoffMs !== undefined && maxBackoffMs < (initialBackoffMs ?? 0)) {
    const least = `initial_backoff (${initialBackoffMs} ms)`;
    checks.refuse(`${path}max_backoff`, `must be at least ${least}, and is ${maxBackoffMs} ms`);
  }
  const { multiplier, jitter } = message;
  if (multiplier !== undefined) checks.number(`${path}multiplier`, multiplier, 1, MAX_MULTIPLIER);
  if (jitter !== undefined) checks.number(`${path}jitter`, jitter, 0, 1);
  const isCurveSaid = message.curve !== BackoffCurveMessage.UNSPECIFIED;
  const curve = isCurveSaid ? checks.choice(`${path}curve`, message.curve, CURVES, "EXPONENTIAL, EXQ") : undefined;
  return { maxAttempts, initialBackoffMs, maxBackoffMs, multiplier, jitter, curve };
}
