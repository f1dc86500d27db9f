/** What Subscribe and Work have in common: how a stream begins, and what it tells. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  type DrainingSchema,
  RevokedReason,
  type SubscribeRequest,
  type SubscriptionStartedSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { SubscribeOptions, SubscriptionEvent } from "../broker/subscription.ts";
import { DEFAULT_LEASE_MS, type Lease, NO_LEASE } from "../model/job.ts";
import { hostOf, languageOf } from "../model/worker-origin.ts";
import { type Checks, LONGEST_LEASE_MS } from "./checks.ts";
import { checkCredit } from "./credit.ts";
import type { CallContext } from "./handler.ts";
import { checkLeaseToken } from "./lease-token.ts";
import type { Limits } from "./limits.ts";
import { checkMode, checkPolicy, checkQueues } from "./queues.ts";

/** Renewals need time to arrive. */
const SHORTEST_HELD_LEASE_MS = 1_000;
const DEFAULT_GRACE_MS = 2_000;
const LONGEST_GRACE_MS = 3_600_000;

export const REVOKED_REASONS = {
  DELETED: RevokedReason.DELETED,
  CANCELLED: RevokedReason.CANCELLED,
  EXPIRED: RevokedReason.EXPIRED,
  RUN_TIMEOUT: RevokedReason.RUN_TIMEOUT,
} as const;

type Started = Extract<SubscriptionEvent, { kind: "started" }>;

/** What a worker asks for, and the leases that it brings along; `path`: where the request stands, "" or "start.". */
export function checkSubscription(
  checks: Checks,
  path: string,
  request: SubscribeRequest,
  namespace: string,
  limits: Limits,
  context: CallContext,
): { readonly options: Omit<SubscribeOptions, "resumed">; readonly leases: readonly Lease[] } {
  const { leaseDuration, disconnectGrace } = request;
  const { maxOutstanding, maxBytes } = checkCredit(checks, path, request, limits);
  const credit = { maxOutstanding: maxOutstanding || 1, maxBytes };
  const options = {
    queues: checkQueues(checks, request, limits.maxQueues, path),
    policy: checkPolicy(checks, request.policy, path),
    credit,
    leaseMs:
      checks.duration(`${path}lease_duration`, leaseDuration, SHORTEST_HELD_LEASE_MS, LONGEST_LEASE_MS) ??
      DEFAULT_LEASE_MS,
    workerId: checks.name(`${path}worker_id`, request.workerId) || context.peer,
    graceMs: checks.duration(`${path}disconnect_grace`, disconnectGrace, 0, LONGEST_GRACE_MS) ?? DEFAULT_GRACE_MS,
    mode: checkMode(checks, request.mode, path),
    host: checks.name(`${path}host`, request.host) || hostOf(context.peer),
    language: checks.name(`${path}language`, request.language) || languageOf(context.userAgent),
  };
  return { options, leases: checkResumed(checks, path, namespace, request.resumeLeaseTokens, credit.maxOutstanding) };
}

/** Each lease once; without jobs that were pulled, which have none that could be kept or lost. */
function checkResumed(
  checks: Checks,
  path: string,
  namespace: string,
  tokens: readonly string[],
  most: number,
): Lease[] {
  const field = `${path}resume_lease_tokens`;
  const places = new Map<string, number>();
  for (const [i, token] of tokens.entries()) if (!places.has(token)) places.set(token, i);
  if (places.size > Math.max(1, most)) {
    checks.refuse(field, `must be at most max_outstanding, which is ${most}, and are ${places.size}`);
    return [];
  }
  const leases: Lease[] = [];
  for (const [token, i] of places) {
    const lease = checkLeaseToken(checks, `${field}[${i}]`, namespace, token);
    // One that is bad is enough to say: there may be thousands.
    if (lease.queue === "") return [];
    if (lease.fence !== NO_LEASE) leases.push(lease);
  }
  return leases;
}

export function startedMessage({ workerId, leaseMs, graceMs }: Started) {
  return {
    workerId,
    leaseDuration: durationFromMs(leaseMs),
    disconnectGrace: durationFromMs(graceMs),
  } satisfies MessageInitShape<typeof SubscriptionStartedSchema>;
}

export function drainingMessage(graceMs: number | undefined): MessageInitShape<typeof DrainingSchema> {
  return graceMs === undefined ? {} : { grace: durationFromMs(graceMs) };
}
