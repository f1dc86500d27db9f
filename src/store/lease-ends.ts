/**
 * What brokers tell each other of leases that have ended, and of jobs that are gone: lua/lib/job.lua's announce_end,
 * over pub/sub. A broker listens for the queues of which it keeps leases for streams. A message that gets lost is made
 * good by the next renewal, which finds the lease gone.
 */
import type { LeaseEnd } from "../model/job.ts";
import type { Channels, Following } from "./channels.ts";
import { queueChannel } from "./keys.ts";

export type EndedLease = {
  readonly queue: string;
  readonly id: string;
  /** 0: the job was not reserved. */
  readonly fence: number;
  readonly reason: LeaseEnd;
  /** RESUMED: the number of the stream that keeps it now. */
  readonly holder?: number | undefined;
};

type EndMessage = { id: string; fence: string; reason: LeaseEnd; holder?: string };

export class LeaseEnds {
  readonly #channels: Channels;
  readonly #namespace: string;
  readonly #onEnd: (lease: EndedLease) => void;
  /** queue → how many want it. */
  readonly #queues = new Map<string, { readonly following: Following; followers: number }>();

  constructor(channels: Channels, namespace: string, onEnd: (lease: EndedLease) => void) {
    this.#channels = channels;
    this.#namespace = namespace;
    this.#onEnd = onEnd;
  }

  /** Once for each stream that takes jobs from the queue; as often `unfollow`. */
  follow(queue: string): void {
    const entry = this.#queues.get(queue);
    if (entry) {
      entry.followers += 1;
      return;
    }
    const channel = queueChannel(this.#namespace, queue, "leases");
    const following = this.#channels.follow(channel, (text) => this.#onEnd(endedLease(queue, text)));
    this.#queues.set(queue, { following, followers: 1 });
  }

  unfollow(queue: string): void {
    const entry = this.#queues.get(queue);
    if (!entry) return;
    entry.followers -= 1;
    if (entry.followers > 0) return;
    this.#queues.delete(queue);
    entry.following.unfollow();
  }
}

/** Throws for what is no such message. */
export function endedLease(queue: string, text: string): EndedLease {
  const { id, fence, reason, holder } = JSON.parse(text) as EndMessage;
  return { queue, id, fence: Number(fence), reason, holder: holder === undefined ? undefined : Number(holder) };
}
