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

class ReserveCall implements Consumer {
  readonly queues: readonly QueueShare[];
  readonly policy: QueuePolicy;
  readonly workerId: string;
  readonly leaseMs: number;
  readonly #maxJobs: number;
  readonly #notLookedInto: Set<string>;
  readonly #onAnswer: (jobs: readonly LeasedJob[]) => void;
  readonly #onFailure: (error: unknown) => void;
  readonly #answersEmpty: boolean;
  #answered = false;

  constructor(
    options: ReserveOptions,
    onAnswer: (jobs: readonly LeasedJob[]) => void,
    onFailure: (error: unknown) => void,
  ) {
    this.queues = options.queues;
    this.policy = options.policy;
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
    const call = new ReserveCall(options, resolve, reject);
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
