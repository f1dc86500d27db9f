import type { Lease } from "../model/job.ts";
import { decodeLeaseToken } from "../model/lease-token.ts";
import { type Checks, isQueueName } from "./checks.ts";

/** The lease that the token stands for. What it looks like is checked here, whether it still holds by the store. */
export function checkLeaseToken(checks: Checks, field: string, namespace: string, token: string): Lease {
  const lease = readLeaseToken(namespace, token);
  if (lease) return lease;
  checks.refuse(field, token === "" ? "is required" : "is no lease token of this broker's namespace");
  return { queue: "", id: "", fence: 0 };
}

/** Undefined: it is none. */
export function readLeaseToken(namespace: string, token: string): Lease | undefined {
  const lease = decodeLeaseToken(namespace, token);
  return lease && isQueueName(lease.queue) ? lease : undefined;
}
