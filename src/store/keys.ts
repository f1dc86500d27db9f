/**
 * The Redis keys of a queue. All carry the queue's name as their hash tag, so that a queue lives on one slot of a
 * Redis Cluster, and every script gets all of them, always in this order (lua/lib/queue.lua names them likewise).
 */
export const QUEUE_PARTS = [
  "spec",
  "state",
  "result",
  "ready",
  "held",
  "scheduled",
  "retrying",
  "reserved",
  "completed",
  "failed",
  "slots",
  "unique",
  "unique_expiry",
  "schedules",
  "ticks",
  "wake",
  "meta",
  "stats",
  "history",
  "aside",
] as const;

export type QueuePart = (typeof QUEUE_PARTS)[number];

export function queuePrefix(namespace: string, queue: string): string {
  return `${namespace}:{${queue}}:`;
}

export function queueKey(namespace: string, queue: string, part: QueuePart): string {
  return queuePrefix(namespace, queue) + part;
}

/** events: what README calls completion events. leases: lib/job.lua's announce_end. history: the bell of lib/history.lua. */
export type QueueChannel = "events" | "leases" | "history";

/** The pub/sub channels of a queue: lua/lib/queue.lua's CHANNEL, and a name. */
export function queueChannel(namespace: string, queue: string, channel: QueueChannel): string {
  return queuePrefix(namespace, queue) + channel;
}

/** All queues that ever had a job, in a sorted set, by name; only listing and sweeping depend on it. */
export function queuesKey(namespace: string): string {
  return `${namespace}:queue-names`;
}

/** A broker's own list, beside the doorbells that it waits for: a push interrupts its wait. */
export function interruptKey(namespace: string, brokerId: string): string {
  return `${namespace}:broker:${brokerId}:interrupt`;
}

/** Of all workers, beside the queues; without a part: the channel on which brokers tell each other of them. */
export function workersKey(namespace: string, part?: "names" | "seen" | "info" | "quiet"): string {
  return part === undefined ? `${namespace}:workers` : `${namespace}:workers:${part}`;
}
