/**
 * Serves several queues in proportion to their weights, by stride scheduling (Waldspurger and Weihl, 1995): a queue's
 * pass grows by 1/weight with each job taken from it, and a queue may not run further ahead of its rivals than one
 * round, in which it gives `weight` jobs. A queue that was empty starts again beside its rivals, so that it cannot
 * claim later what it had not to give before.
 */
import type { QueueShare } from "./consumer.ts";

export class Weights {
  readonly #weights: ReadonlyMap<string, number>;
  readonly #passes = new Map<string, number>();
  readonly #empty = new Set<string>();

  constructor(queues: readonly QueueShare[]) {
    this.#weights = new Map(queues.map(({ name, weight }) => [name, weight]));
    for (const { name } of queues) this.#passes.set(name, 0);
  }

  /** How many jobs may be taken from `queue` now, given its rivals: the others that have jobs. */
  allowance(queue: string, rivals: readonly string[]): number {
    if (rivals.length === 0) return Number.POSITIVE_INFINITY;
    const slowest = Math.min(...rivals.map((rival) => this.#pass(rival)));
    if (this.#empty.delete(queue)) this.#passes.set(queue, Math.max(this.#pass(queue), slowest));
    const weight = this.#weights.get(queue) ?? 1;
    return Math.max(0, Math.floor((slowest - this.#pass(queue) + 1) * weight + 1e-9));
  }

  took(queue: string, count: number): void {
    this.#passes.set(queue, this.#pass(queue) + count / (this.#weights.get(queue) ?? 1));
  }

  foundEmpty(queue: string): void {
    this.#empty.add(queue);
  }

  #pass(queue: string): number {
    return this.#passes.get(queue) ?? 0;
  }
}
