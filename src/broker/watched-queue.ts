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

/** An event of the history. `atMs`: when it happened, 0: not known. */
export type PastEvent = { readonly number: number; readonly atMs: number };

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
  /** By the event, number and time, after which they read. Those that began before the last bell may miss what it was for. */
  readonly #reads = new Map<string, Promise<HistoryPage>>();
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

  /** The last event so far; from now on all are written. */
  async end(): Promise<PastEvent> {
    const { last, entries } = await this.#options.watch(this.#options.queue, undefined, 1, WRITE_FOR_MS);
    return { number: last, atMs: entries[0]?.atMs ?? 0 };
  }

  read({ number, atMs }: PastEvent): Promise<HistoryPage> {
    const key = `${number} ${atMs}`;
    const read = this.#reads.get(key) ?? this.#begin(key, number, atMs);
    this.#reads.set(key, read);
    return read;
  }

  #begin(key: string, after: number, afterMs: number): Promise<HistoryPage> {
    const read = this.#options
      .watch(this.#options.queue, after, PAGE_EVENTS, WRITE_FOR_MS, afterMs)
      .catch((error: unknown) => {
        // The next poll then has news, whether anything has happened since the one before or not.
        this.#last = undefined;
        throw error;
      })
      .finally(() => {
        if (this.#reads.get(key) === read) this.#reads.delete(key);
      });
    return read;
  }

  /** Something has happened, or may have. */
  ring(): void {
    this.#reads.clear();
    for (const onNews of this.#onNews) onNews();
  }

  async poll(): Promise<void> {
    const { number } = await this.end();
    if (number === this.#last) return;
    this.#last = number;
    this.ring();
  }
}
