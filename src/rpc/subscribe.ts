import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  JobBatchSchema,
  RevokedReason,
  type SubscribeRequest,
  type SubscribeResponse,
  SubscribeResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { SubscriptionEvent } from "../broker/subscription.ts";
import { DEFAULT_LEASE_MS, type Lease, NO_LEASE } from "../model/job.ts";
import { encodeLeaseToken } from "../model/lease-token.ts";
import { hostOf, languageOf } from "../model/worker-origin.ts";
import { Checks, LONGEST_LEASE_MS } from "./checks.ts";
import type { CallContext } from "./handler.ts";
import { checkLeaseToken } from "./lease-token.ts";
import type { Limits } from "./limits.ts";
import { checkMode, checkPolicy, checkQueues } from "./queues.ts";
import { reservedJobs } from "./reserved-job.ts";

/** Renewals need time to arrive. */
const SHORTEST_HELD_LEASE_MS = 1_000;
const DEFAULT_GRACE_MS = 2_000;
const LONGEST_GRACE_MS = 3_600_000;

const REASONS = {
  DELETED: RevokedReason.DELETED,
  CANCELLED: RevokedReason.CANCELLED,
  EXPIRED: RevokedReason.EXPIRED,
  RUN_TIMEOUT: RevokedReason.RUN_TIMEOUT,
} as const;

export async function* subscribe(
  broker: Broker,
  namespace: string,
  limits: Limits,
  request: SubscribeRequest,
  context: CallContext,
): AsyncGenerator<SubscribeResponse> {
  const checks = new Checks();
  const { leaseDuration, disconnectGrace } = request;
  const maxOutstanding = checks.integer("max_outstanding", request.maxOutstanding, 0, limits.maxOutstanding) || 1;
  const options = {
    queues: checkQueues(checks, request, limits.maxQueues),
    policy: checkPolicy(checks, request.policy),
    maxOutstanding,
    leaseMs:
      checks.duration("lease_duration", leaseDuration, SHORTEST_HELD_LEASE_MS, LONGEST_LEASE_MS) ?? DEFAULT_LEASE_MS,
    workerId: checks.name("worker_id", request.workerId) || context.peer,
    graceMs: checks.duration("disconnect_grace", disconnectGrace, 0, LONGEST_GRACE_MS) ?? DEFAULT_GRACE_MS,
    mode: checkMode(checks, request.mode),
    host: checks.name("host", request.host) || hostOf(context.peer),
    language: checks.name("language", request.language) || languageOf(context.userAgent),
  };
  const leases = checkResumed(checks, namespace, request.resumeLeaseTokens, maxOutstanding);
  checks.done();
  const resumed = leases.length > 0 ? await broker.resume(leases, options.leaseMs) : undefined;
  const subscription = broker.subscribe({ ...options, resumed });
  // A reader that waits for the next event does not see its caller go; the subscription must not outlive it.
  const onAbort = () => subscription.close();
  context.signal.addEventListener("abort", onAbort, { once: true });
  if (context.signal.aborted) onAbort();
  try {
    for await (const event of subscription) {
      yield create(SubscribeResponseSchema, { event: eventMessage(namespace, event) });
    }
  } finally {
    context.signal.removeEventListener("abort", onAbort);
  }
}

/** Each lease once; without jobs that were pulled, which have none that could be kept or lost. */
function checkResumed(checks: Checks, namespace: string, tokens: readonly string[], most: number): Lease[] {
  const places = new Map<string, number>();
  for (const [i, token] of tokens.entries()) if (!places.has(token)) places.set(token, i);
  if (places.size > Math.max(1, most)) {
    checks.refuse("resume_lease_tokens", `must be at most max_outstanding, which is ${most}, and are ${places.size}`);
    return [];
  }
  const leases: Lease[] = [];
  for (const [token, i] of places) {
    const lease = checkLeaseToken(checks, `resume_lease_tokens[${i}]`, namespace, token);
    // One that is bad is enough to say: there may be thousands.
    if (lease.queue === "") return [];
    if (lease.fence !== NO_LEASE) leases.push(lease);
  }
  return leases;
}

type EventInit = NonNullable<MessageInitShape<typeof SubscribeResponseSchema>["event"]>;

function eventMessage(namespace: string, event: SubscriptionEvent): EventInit {
  switch (event.kind) {
    case "started": {
      const { workerId, leaseMs, graceMs } = event;
      const value = { workerId, leaseDuration: durationFromMs(leaseMs), disconnectGrace: durationFromMs(graceMs) };
      return { case: "started", value };
    }
    case "jobs": {
      const value = create(JobBatchSchema);
      value.$unknown = reservedJobs(namespace, event.jobs);
      return { case: "jobs", value };
    }
    case "revoked": {
      const value = { leaseTokens: [encodeLeaseToken(namespace, event.lease)], reason: REASONS[event.reason] };
      return { case: "revoked", value };
    }
    case "keepalive":
      return { case: "keepalive", value: {} };
    case "draining":
      return { case: "draining", value: { grace: durationFromMs(event.graceMs) } };
  }
}
