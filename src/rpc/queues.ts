/** The queues that a worker names in Reserve, Subscribe and Work, and how it takes jobs from them. */
import {
  DeliveryMode as DeliveryModeMessage,
  QueuePolicy as QueuePolicyMessage,
  type QueueSelector,
} from "../../gen/baton/v1/job_service_pb.js";
import type { DeliveryMode, QueuePolicy, QueueShare } from "../broker/consumer.ts";
import type { Checks } from "./checks.ts";

const MAX_WEIGHT = 1_000;

const POLICIES: ReadonlyMap<number, QueuePolicy> = new Map([
  [QueuePolicyMessage.UNSPECIFIED, "strict"],
  [QueuePolicyMessage.STRICT, "strict"],
  [QueuePolicyMessage.WEIGHTED, "weighted"],
]);

const MODES: ReadonlyMap<number, DeliveryMode> = new Map([
  [DeliveryModeMessage.UNSPECIFIED, "lease"],
  [DeliveryModeMessage.LEASE, "lease"],
  [DeliveryModeMessage.PULL, "pull"],
]);

type Selection = { readonly queues: readonly QueueSelector[]; readonly policy: number };

/** `path`: where they stand in the request. */
export function checkQueues(checks: Checks, { queues, policy }: Selection, maxQueues: number, path = ""): QueueShare[] {
  // Where it counts, it has to be said: an unset weight cannot be told from a zero.
  const leastWeight = policy === QueuePolicyMessage.WEIGHTED ? 1 : 0;
  checks.count(`${path}queues`, queues.length, maxQueues);
  const seen = new Set<string>();
  return queues.slice(0, maxQueues).map(({ name, weight }, i) => {
    checks.queue(`${path}queues[${i}].name`, name);
    if (seen.has(name))
      checks.refuse(`${path}queues[${i}].name`, `must be named once, and ${name} stands above already`);
    seen.add(name);
    return { name, weight: checks.integer(`${path}queues[${i}].weight`, weight, leastWeight, MAX_WEIGHT) || 1 };
  });
}

export function checkPolicy(checks: Checks, policy: number, path = ""): QueuePolicy {
  return checks.choice(`${path}policy`, policy, POLICIES, "STRICT, WEIGHTED");
}

export function checkMode(checks: Checks, mode: number, path = ""): DeliveryMode {
  return checks.choice(`${path}mode`, mode, MODES, "LEASE, PULL");
}
