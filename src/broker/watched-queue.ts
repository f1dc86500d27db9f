/**
 * The history of one queue, for those of this broker who watch it.
 *
 * Scripts write the history only while META's `watched_until` lies ahead (lua/lib/history.lua); each read of it moves that
 * on, and the poll reads it also for streams that don't. A bell on the channel `history` says that there is more; the
 * poll finds what a lost bell would have told. Streams that stand at the same event share one read.
 */
import type { Channels, Following } from "../store/channels.ts";
import { queueChannel } from "../store/keys.ts";
import type { HistoryPage, Store } from "../store/store.ts";

export type WatchedQueueOptions = {
  readonly queue: string;
  readonly namespace: string;
  readonly channels: Channels;
  readonly watch: Store["watch"];
};

/** Events in one read: about 1 ms of Redis, and at most 0.4 MB here for each stream that is slow to take them. */
const PAGE_EVENTS = 500;
/** The contract says: 10 minutes. */
const WRITE_FOR_MS = 600_000;

export class WatchedQueue {
  readonly #options: WatchedQueueOptions;
  readonly #following: Following;
  readonly #onNews = new Set<() => void>();
  /** By the event after which they read. Those that began before the last bell may miss what it was for. */
  readonly #reads = new Map<number, Promise<HistoryPage>>();
  #last: number | undefined;

  constructor(options: WatchedQueueOptions) {
    const { queue, namespace, channels } = options;
    this.#options = options;
    this.#following = channels.follow(queueChannel(namespace, queue, "history"), () => this.ring());
  }

  /** Bells are heard. Rejects with STORE_UNAVAILABLE when Redis refuses the channel. */
  get listening(): Promise<void> {
    return this.#following.listening;
  }

  get isEmpty(): boolean {
    return this.#onNews.size === 0;
  }

  close(): void {
    this.#following.unfollow();
  }

  add(onNews: () => void): void {
    this.#onNews.add(onNews);
  }

  remove(onNews: () => void): void {
    this.#onNews.delete(onNews);
  }

  /** The number of the last event so far; from now on all are written. */
  async end(): Promise<number> {
    const { last } = await this.#options.watch(this.#options.queue, undefined, 1, WRITE_FOR_MS);
    return last;
  }

  read(after: number): Promise<HistoryPage> {
    const read = this.#reads.get(after) ?? this.#begin(after);
    this.#reads.set(after, read);
    return read;
  }

  #begin(after: number): Promise<HistoryPage> {
    const read = this.#options.watch(this.#options.queue, after, PAGE_EVENTS, WRITE_FOR_MS).finally(() => {
      if (this.#reads.get(after) === read) this.#reads.delete(after);
    });
    return read;
  }

  /** Something has happened, or may have. */
  ring(): void {
    this.#reads.clear();
    for (const onNews of this.#onNews) onNews();
  }

  async poll(): Promise<void> {
    const last = await this.end();
    if (last === this.#last) return;
    this.#last = last;
    this.ring();
  }
}
