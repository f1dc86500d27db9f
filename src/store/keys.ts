/**
 * The Redis keys of a queue. All carry the queue's name as their hash tag, so that a queue lives on one slot of a
 * Redis Cluster, and every script gets all of them, always in this order (lua/lib/queue.lua names them likewise).
 */
export const QUEUE_PARTS = [
  "spec",
  "state",
  "result",
  "ready",
  "scheduled",
  "retrying",
  "reserved",
  "completed",
  "failed",
  "wake",
  "meta",
] as const;

export type QueuePart = (typeof QUEUE_PARTS)[number];

export function queuePrefix(namespace: string, queue: string): string {
  return `${namespace}:{${queue}}:`;
}

export function queueKey(namespace: string, queue: string, part: QueuePart): string {
  return queuePrefix(namespace, queue) + part;
}

/** The set of all queues that ever had a job; only listing and sweeping depend on it. */
export function queuesKey(namespace: string): string {
  return `${namespace}:queues`;
}

/** A broker's own list, beside the doorbells that it waits for: a push interrupts its wait. */
export function interruptKey(namespace: string, brokerId: string): string {
  return `${namespace}:broker:${brokerId}:interrupt`;
}
