/**
 * What brokers tell each other of leases that have ended: lua/lib/job.lua's announce_end, over pub/sub. A broker
 * listens for the queues of which it keeps leases for streams. A message that gets lost is made good by the next
 * renewal, which finds the lease gone.
 */
import type { Redis } from "ioredis";
import type { LeaseEnd } from "../model/job.ts";
import type { Logger } from "../model/log.ts";
import { queuePrefix } from "./keys.ts";

export type EndedLease = {
  readonly queue: string;
  readonly id: string;
  readonly fence: number;
  readonly reason: LeaseEnd;
};

export class LeaseEnds {
  readonly #redis: Redis;
  readonly #namespace: string;
  readonly #log: Logger;
  /** channel → {queue, how many want it}. */
  readonly #channels = new Map<string, { readonly queue: string; followers: number }>();

  constructor(
    redis: Redis,
    namespace: string,
    log: Logger,
    onEnd: (lease: EndedLease) => void,
    /** The connection was lost, and with it maybe some messages. */
    onGap: () => void,
  ) {
    redis.on("ready", onGap);
    this.#redis = redis;
    this.#namespace = namespace;
    this.#log = log;
    redis.on("message", (channel: string, text: string) => {
      const queue = this.#channels.get(channel)?.queue;
      if (queue !== undefined) this.#read(queue, text, onEnd);
    });
  }

  /** Once for each stream that takes jobs from the queue; as often `unfollow`. */
  follow(queue: string): void {
    const channel = this.#channel(queue);
    const entry = this.#channels.get(channel);
    if (entry) {
      entry.followers += 1;
      return;
    }
    this.#channels.set(channel, { queue, followers: 1 });
    this.#redis.subscribe(channel).catch((error: Error) => this.#complain(error));
  }

  unfollow(queue: string): void {
    const channel = this.#channel(queue);
    const entry = this.#channels.get(channel);
    if (!entry) return;
    entry.followers -= 1;
    if (entry.followers > 0) return;
    this.#channels.delete(channel);
    this.#redis.unsubscribe(channel).catch((error: Error) => this.#complain(error));
  }

  /** Anybody may publish on a channel: what is not ours must not end the broker. */
  #read(queue: string, text: string, onEnd: (lease: EndedLease) => void): void {
    try {
      const { id, fence, reason } = JSON.parse(text) as { id: string; fence: string; reason: LeaseEnd };
      onEnd({ queue, id, fence: Number(fence), reason });
    } catch (error) {
      this.#complain(error as Error);
    }
  }

  #channel(queue: string): string {
    return `${queuePrefix(this.#namespace, queue)}leases`;
  }

  #complain(error: Error): void {
    this.#log.warn("ends of leases: not followed", { error: error.message });
  }
}
