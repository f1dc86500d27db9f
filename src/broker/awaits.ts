/**
 * Waiting for jobs to finish; src/broker/awaited-queue.ts says how. Messages can be missed only while the connection is
 * away, after which everything is looked at again. As a fallback the states of all awaited jobs are read at intervals,
 * up to 1,000 in one script call: of 10,000 awaits that took 19 ms of Redis and 17 of the broker when they were of one
 * queue, 56 and 60 when they were of 1,000.
 */
import type { Logger } from "../model/log.ts";
import type { JobState } from "../model/states.ts";
import type { Channels } from "../store/channels.ts";
import type { Store } from "../store/store.ts";
import { AwaitedQueue, type Finished, type Waiter } from "./awaited-queue.ts";
import { Gather } from "./gather.ts";
import { isUnavailable } from "./waiting.ts";

export type { Finished };

export type AwaitOptions = {
  readonly queue: string;
  readonly id: string;
  readonly timeoutMs: number;
  /** Wait also for a job that is not there. */
  readonly expect: boolean;
};

export type AwaitsOptions = {
  readonly store: Pick<Store, "get" | "states">;
  readonly channels: Channels;
  readonly namespace: string;
  readonly log: Logger;
  readonly pollMs?: number;
};

const POLL_MS = 5_000;

export class Awaits {
  readonly #options: AwaitsOptions;
  readonly #queues = new Map<string, AwaitedQueue>();
  readonly #waiters = new Set<Waiter>();
  readonly #states: Gather<string, JobState | undefined>;
  #timer: NodeJS.Timeout | undefined;
  #polling: Promise<void> | undefined;
  #pollAgain = false;

  constructor(options: AwaitsOptions) {
    this.#options = options;
    this.#states = new Gather((queue, ids) => options.store.states(queue, ids));
    options.channels.onGap(() => {
      for (const queue of this.#queues.values()) queue.missed();
      this.#poll();
    });
  }

  start(): void {
    this.#timer ??= setInterval(() => this.#poll(), this.#options.pollMs ?? POLL_MS);
  }

  /** Safe to call twice, and before start. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await this.#polling;
  }

  /** Rejects with JOB_NOT_FOUND, AWAIT_TIMEOUT or STORE_UNAVAILABLE; on the signal's abort with its reason. */
  async await({ queue: name, id, timeoutMs, expect }: AwaitOptions, signal: AbortSignal): Promise<Finished> {
    signal.throwIfAborted();
    const { promise, resolve: finish, reject: fail } = Promise.withResolvers<Finished>();
    const waiter: Waiter = { id, expect, finish, fail };
    const queue = this.#queue(name);
    const onAbort = () => fail(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = setTimeout(() => queue.timeOut(waiter), timeoutMs);
    this.#waiters.add(waiter);
    if (timeoutMs > 0) queue.add(waiter);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      this.#waiters.delete(waiter);
      queue.remove(waiter);
      if (queue.isEmpty) this.#forget(name, queue);
    }
  }

  /** Ends all of them with this error. */
  cancelAll(reason: unknown): void {
    for (const { fail } of this.#waiters) fail(reason);
  }

  #queue(name: string): AwaitedQueue {
    let queue = this.#queues.get(name);
    if (!queue) {
      const { store, channels, namespace } = this.#options;
      const get = (id: string) => store.get(name, id);
      queue = new AwaitedQueue({ queue: name, namespace, channels, get, states: this.#states });
      this.#queues.set(name, queue);
    }
    return queue;
  }

  #forget(name: string, queue: AwaitedQueue): void {
    if (this.#queues.get(name) !== queue) return;
    this.#queues.delete(name);
    queue.close();
  }

  #poll(): void {
    this.#pollAgain = true;
    this.#polling ??= this.#pollAll().finally(() => {
      this.#polling = undefined;
    });
  }

  async #pollAll(): Promise<void> {
    while (this.#pollAgain) {
      this.#pollAgain = false;
      for (const queue of this.#queues.values()) await queue.poll().catch((error: unknown) => this.#complain(error));
    }
  }

  /** While Redis is away, the next poll tries again, and others have said so. */
  #complain(error: unknown): void {
    if (isUnavailable(error)) return;
    this.#options.log.error("awaited jobs cannot be looked at", {
      error: error instanceof Error ? error : String(error),
    });
  }
}
