/** One Reserve: a consumer that takes a single delivery, and waits for it as long as its caller wants to. */
import type { LeasedJob } from "../model/job.ts";
import type { Consumer, QueuePolicy, QueueShare } from "./consumer.ts";
import type { Hub } from "./hub.ts";

export type ReserveOptions = {
  readonly queues: readonly QueueShare[];
  readonly policy: QueuePolicy;
  readonly maxJobs: number;
  /** 0: answer as soon as all queues have been looked into. */
  readonly waitMs: number;
  /** 0: as each job says. */
  readonly leaseMs: number;
  readonly workerId: string;
};

/**
 * A single call has no past from which its fair share could follow. So under policy "weighted" its queues are put into
 * an order that is drawn by their weights, and served strictly: over many calls, each comes first in proportion.
 */
function drawnByWeight(queues: readonly QueueShare[]): QueueShare[] {
  // Efraimidis and Spirakis, 2006: the greatest of random^(1/weight) is each queue's in proportion to its weight.
  const keyed = queues.map((queue) => ({ queue, key: Math.random() ** (1 / queue.weight) }));
  return keyed.sort((a, b) => b.key - a.key).map(({ queue }) => queue);
}

class ReserveCall implements Consumer {
  readonly queues: readonly QueueShare[];
  readonly policy = "strict";
  readonly workerId: string;
  readonly leaseMs: number;
  readonly #maxJobs: number;
  readonly #notLookedInto: Set<string>;
  readonly #onAnswer: (jobs: readonly LeasedJob[]) => void;
  readonly #onFailure: (error: unknown) => void;
  readonly #answersEmpty: boolean;
  #answered = false;

  /** Both are called once, and at once: whatever else the hub has for this call must go back. */
  constructor(
    options: ReserveOptions,
    onAnswer: (jobs: readonly LeasedJob[]) => void,
    onFailure: (error: unknown) => void,
  ) {
    this.queues = options.policy === "weighted" ? drawnByWeight(options.queues) : options.queues;
    this.workerId = options.workerId;
    this.leaseMs = options.leaseMs;
    this.#maxJobs = options.maxJobs;
    this.#answersEmpty = options.waitMs === 0;
    this.#notLookedInto = new Set(options.queues.map(({ name }) => name));
    this.#onAnswer = onAnswer;
    this.#onFailure = onFailure;
  }

  capacity(): number {
    return this.#answered ? 0 : this.#maxJobs;
  }

  deliver(jobs: readonly LeasedJob[]): void {
    this.#answered = true;
    this.#onAnswer(jobs);
  }

  missed(queue: string): void {
    this.#notLookedInto.delete(queue);
    if (this.#answersEmpty && this.#notLookedInto.size === 0) this.deliver([]);
  }

  failed(error: unknown): void {
    this.#answered = true;
    this.#onFailure(error);
  }
}

/** The Reserve calls of a broker that are under way. */
export class ReserveCalls {
  readonly #hub: Hub;
  readonly #waiting = new Set<(reason: unknown) => void>();

  constructor(hub: Hub) {
    this.#hub = hub;
  }

  /** Resolves with what came, or with nothing when the wait is over. Rejects with the signal's reason on its abort. */
  async reserve(options: ReserveOptions, signal: AbortSignal): Promise<readonly LeasedJob[]> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<readonly LeasedJob[]>();
    const call: ReserveCall = new ReserveCall(
      options,
      (jobs) => {
        this.#hub.leave(call);
        resolve(jobs);
      },
      (error) => {
        this.#hub.leave(call);
        reject(error);
      },
    );
    const onAbort = () => reject(signal.reason);
    const timer = options.waitMs > 0 ? setTimeout(() => resolve([]), options.waitMs) : undefined;
    signal.addEventListener("abort", onAbort, { once: true });
    this.#waiting.add(reject);
    this.#hub.join(call);
    try {
      return await promise;
    } finally {
      this.#hub.leave(call);
      this.#waiting.delete(reject);
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Ends all of them with this error. */
  cancelAll(reason: unknown): void {
    for (const reject of this.#waiting) reject(reason);
  }
}
