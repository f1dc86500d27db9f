/**
 * Sweeps every queue when something in it is due, whether anybody waits there or not. All brokers do; each step is
 * idempotent, so none has to lead. A queue is swept when its last sweep, or a lease that this broker let run out, said
 * that something would be due, and at intervals, because another broker may have put something in the meantime.
 */
import { BatonError } from "../model/errors.ts";
import type { Logger } from "../model/log.ts";

export type SweeperOptions = {
  readonly sweep: (queue: string) => Promise<{ more: boolean; nextDueMs: number | undefined }>;
  readonly queues: () => AsyncIterable<string[]>;
  /** The longest between two sweeps of a queue, while there are few. */
  readonly intervalMs: number;
  readonly log: Logger;
};

/** How often the list of queues is read anew. */
const LIST_EVERY_MS = 5_000;
/** With many queues each is swept more rarely, so that this broker's sweeps stay below 500 a second. */
const SPACING_MS = 2;

export class Sweeper {
  readonly #options: SweeperOptions;
  /** queue → when to sweep it next, by performance.now(). */
  readonly #due = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #stopped = true;
  #listAt = 0;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  start(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    this.#runIn(0);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  /** Something in this queue is due so soon. One that is not swept yet is from now on, also if that is far away. */
  soon(queue: string, inMs: number): void {
    const at = performance.now() + Math.min(inMs + 1, this.#interval());
    if (at >= (this.#due.get(queue) ?? Number.POSITIVE_INFINITY)) return;
    this.#due.set(queue, at);
    if (!this.#stopped && !this.#running) this.#runIn(this.#wait());
  }

  #runIn(waitMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#running = this.#run().finally(() => {
        this.#running = undefined;
        if (!this.#stopped) this.#runIn(this.#wait());
      });
    }, waitMs);
  }

  #wait(): number {
    let next = this.#listAt;
    for (const at of this.#due.values()) next = Math.min(next, at);
    return Math.max(SPACING_MS, next - performance.now());
  }

  async #run(): Promise<void> {
    try {
      if (performance.now() >= this.#listAt) await this.#list();
      for (const [queue, at] of this.#due) {
        if (this.#stopped) return;
        if (at <= performance.now()) await this.#sweep(queue);
      }
    } catch (error) {
      this.#options.log.warn("queues not swept", { error: messageOf(error) });
      this.#listAt = performance.now() + this.#options.intervalMs;
      for (const [queue, at] of this.#due) this.#due.set(queue, Math.max(at, this.#listAt));
    }
  }

  /** Redis away ends the round; what is wrong with one queue is that queue's. */
  async #trySweep(queue: string): Promise<{ more: boolean; nextDueMs: number | undefined }> {
    try {
      return await this.#options.sweep(queue);
    } catch (error) {
      if (error instanceof BatonError && error.code === "UNAVAILABLE") throw error;
      this.#options.log.error("a queue cannot be swept", { queue, error: messageOf(error) });
      return { more: false, nextDueMs: undefined };
    }
  }

  async #sweep(queue: string): Promise<void> {
    const { more, nextDueMs } = await this.#trySweep(queue);
    const interval = this.#interval();
    const wait = more ? 0 : Math.min(nextDueMs === undefined ? interval : nextDueMs + 1, interval);
    this.#due.set(queue, performance.now() + wait);
  }

  #interval(): number {
    return Math.max(this.#options.intervalMs, this.#due.size * SPACING_MS);
  }

  async #list(): Promise<void> {
    for await (const names of this.#options.queues()) {
      for (const name of names) if (!this.#due.has(name)) this.#due.set(name, 0);
    }
    this.#listAt = performance.now() + LIST_EVERY_MS;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
