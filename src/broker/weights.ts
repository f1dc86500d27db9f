/**
 * Serves several queues in proportion to their weights, by stride scheduling (Waldspurger and Weihl, 1995): a queue's
 * pass grows by 1/weight with each job taken from it, and a queue may not run further ahead of its rivals than a lead of
 * so many rounds, in each of which it gives `weight` jobs. A queue that was empty starts again beside its rivals, so that
 * it cannot claim later what it had not to give before.
 *
 * The lead is one round, or more where the consumer can take many jobs at once, and so does not see their order: with one
 * round always, 8,000 jobs in 100 queues took 4,400 calls.
 */
import type { QueueShare } from "./consumer.ts";

/** A queue of average weight may lead by this part of what its consumer can take. */
const LEAD = 1 / 4;

export class Weights {
  readonly #weights: ReadonlyMap<string, number>;
  readonly #passes = new Map<string, number>();
  readonly #empty = new Set<string>();

  constructor(queues: readonly QueueShare[]) {
    this.#weights = new Map(queues.map(({ name, weight }) => [name, weight]));
    for (const { name } of queues) this.#passes.set(name, 0);
  }

  /** How many jobs may be taken from `queue` now, given its rivals, the others that have jobs, and room for so many. */
  allowance(queue: string, rivals: readonly string[], room: number): number {
    if (rivals.length === 0) return Number.POSITIVE_INFINITY;
    const passes = rivals.filter((rival) => !this.#empty.has(rival)).map((rival) => this.#pass(rival));
    if (this.#empty.delete(queue)) {
      // Where none goes on, all begin together: beside the one that is the furthest.
      const beside = passes.length > 0 ? Math.min(...passes) : Math.max(...this.#passes.values());
      this.#passes.set(queue, Math.max(this.#pass(queue), beside));
    }
    // Rivals that were empty will start beside this one.
    const slowest = passes.length > 0 ? Math.min(...passes) : this.#pass(queue);
    const total = [queue, ...rivals].reduce((sum, name) => sum + this.#weight(name), 0);
    const lead = Math.max(1, (room * LEAD * (rivals.length + 1)) / total);
    return Math.max(0, Math.floor((slowest - this.#pass(queue) + lead) * this.#weight(queue) + 1e-9));
  }

  took(queue: string, count: number): void {
    this.#passes.set(queue, this.#pass(queue) + count / this.#weight(queue));
  }

  foundEmpty(queue: string): void {
    this.#empty.add(queue);
  }

  #weight(queue: string): number {
    return this.#weights.get(queue) ?? 1;
  }

  #pass(queue: string): number {
    return this.#passes.get(queue) ?? 0;
  }
}
