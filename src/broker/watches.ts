/** The Watch calls of a broker, and the histories that they share. */
import type { Logger } from "../model/log.ts";
import type { Channels } from "../store/channels.ts";
import type { Store } from "../store/store.ts";
import { isUnavailable } from "./waiting.ts";
import { type WatchOptions, WatchStream } from "./watch-stream.ts";
import { WatchedQueue } from "./watched-queue.ts";

export type WatchesOptions = {
  readonly store: Pick<Store, "watch">;
  readonly channels: Channels;
  readonly namespace: string;
  readonly keepaliveMs: number;
  /** When a stream that begins now is to end; undefined: never. */
  readonly ageMs?: () => number | undefined;
  readonly log: Logger;
  readonly pollMs?: number;
};

/** How often a watched queue's history is looked at although no bell rang, which also keeps it being written. */
const POLL_MS = 5_000;

export class Watches {
  readonly #options: WatchesOptions;
  readonly #queues = new Map<string, WatchedQueue>();
  readonly #streams = new Set<WatchStream>();
  #timer: NodeJS.Timeout | undefined;
  #polling: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  constructor(options: WatchesOptions) {
    this.#options = options;
    options.channels.onGap(() => {
      for (const queue of this.#queues.values()) queue.ring();
    });
  }

  start(): void {
    this.#timer ??= setInterval(() => {
      this.#polling ??= this.#poll().finally(() => {
        this.#polling = undefined;
      });
    }, this.#options.pollMs ?? POLL_MS);
  }

  /** Safe to call twice, and before start. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    for (const stream of this.#streams) stream.close();
    await this.#polling;
  }

  /** Whoever takes the stream must read it to its end, or call its return(). */
  open(options: WatchOptions): WatchStream {
    const stream = new WatchStream(options, {
      take: (queue, onNews) => this.#take(queue, onNews),
      giveBack: (queue, onNews) => this.#giveBack(queue, onNews),
      keepaliveMs: this.#options.keepaliveMs,
      ageMs: this.#options.ageMs?.(),
      onClose: (closed) => this.#forget(closed),
    });
    this.#streams.add(stream);
    return stream;
  }

  /** Tells all readers. Resolves when their streams have ended, or after the grace, when the others are cut. */
  async drain(graceMs: number): Promise<void> {
    for (const stream of this.#streams) stream.drain(graceMs);
    if (this.#streams.size > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, graceMs);
      this.#onIdle = resolve;
      await promise;
      clearTimeout(timer);
    }
    for (const stream of this.#streams) stream.close();
  }

  #take(name: string, onNews: () => void): WatchedQueue {
    let queue = this.#queues.get(name);
    if (!queue) {
      const { store, channels, namespace } = this.#options;
      queue = new WatchedQueue({ queue: name, namespace, channels, watch: (...read) => store.watch(...read) });
      this.#queues.set(name, queue);
    }
    queue.add(onNews);
    return queue;
  }

  #giveBack(name: string, onNews: () => void): void {
    const queue = this.#queues.get(name);
    queue?.remove(onNews);
    if (!queue?.isEmpty) return;
    this.#queues.delete(name);
    queue.close();
  }

  #forget(stream: WatchStream): void {
    this.#streams.delete(stream);
    if (this.#streams.size === 0) this.#onIdle?.();
  }

  async #poll(): Promise<void> {
    for (const [name, queue] of this.#queues) {
      await queue.poll().catch((error: unknown) => {
        // While Redis is away, the next poll tries again, and others have said so.
        if (!isUnavailable(error)) {
          const shown = error instanceof Error ? error : String(error);
          this.#options.log.error("a history cannot be read", { queue: name, error: shown });
        }
      });
    }
  }
}
