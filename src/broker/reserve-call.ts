/** One Reserve: a consumer that takes a single delivery, and waits for it as long as its caller wants to. */
import type { LeasedJob } from "../model/job.ts";
import type { Consumer, DeliveryMode, QueuePolicy, QueueShare } from "./consumer.ts";
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
  readonly mode: DeliveryMode;
  /** Takes also what is due only later, until then, when nothing is READY. */
  readonly availableByMs?: number | undefined;
};

/** What came for a call; `pull`: to be forgotten as it is handed out. */
export type Delivery = { readonly jobs: readonly LeasedJob[]; readonly pull: boolean };

/** What is pulled is leased for two calls to Redis; when the broker dies in between, so long until it comes back. */
const PULL_LEASE_MS = 10_000;

const NOTHING: Delivery = { jobs: [], pull: false };

/**
 * A single call has no past from which its fair share could follow. So under policy "weighted" its queues are put into
 * an order that its point in [0, 1) decides, each first for a part of all points that is its weight's, and so on for
 * the others; and they are served strictly. Over many calls, each queue comes first in proportion.
 */
function orderedByWeight(queues: readonly QueueShare[], point: number): QueueShare[] {
  const rest = [...queues];
  const ordered: QueueShare[] = [];
  let left = point;
  while (rest.length > 0) {
    let at = left * rest.reduce((sum, { weight }) => sum + weight, 0);
    let index = 0;
    for (; index < rest.length - 1 && at >= (rest[index]?.weight ?? 0); index++) at -= rest[index]?.weight ?? 0;
    const [first] = rest.splice(index, 1);
    if (!first) break;
    ordered.push(first);
    // Where in its part the point lies, is a point for the others.
    left = at / first.weight;
  }
  return ordered;
}

/**
 * Steps of this size, modulo 1, spread points more evenly than chance does: after 10,000 calls each queue has its share
 * to within a few calls, where with random points a share of an eighth was off by 5% in every fifth run.
 */
const GOLDEN_RATIO = 0.6180339887498949;

class ReserveCall implements Consumer {
  readonly queues: readonly QueueShare[];
  readonly policy = "strict";
  readonly workerId: string;
  readonly leaseMs: number;
  readonly availableByMs: number | undefined;
  readonly asksItself: boolean;
  readonly #pulls: boolean;
  readonly #maxJobs: number;
  readonly #notLookedInto: Set<string>;
  readonly #isQuiet: (workerId: string) => boolean;
  readonly #onAnswer: (delivery: Delivery) => void;
  readonly #onFailure: (error: unknown) => void;
  readonly #answersEmpty: boolean;
  #answered = false;

  /** Both are called once, and at once: whatever else the hub has for this call must go back. */
  constructor(
    options: ReserveOptions,
    point: number,
    isQuiet: (workerId: string) => boolean,
    onAnswer: (delivery: Delivery) => void,
    onFailure: (error: unknown) => void,
  ) {
    this.queues = options.policy === "weighted" ? orderedByWeight(options.queues, point) : options.queues;
    this.workerId = options.workerId;
    this.#pulls = options.mode === "pull";
    this.leaseMs = this.#pulls ? PULL_LEASE_MS : options.leaseMs;
    this.availableByMs = options.availableByMs;
    this.#isQuiet = isQuiet;
    this.#maxJobs = options.maxJobs;
    this.#answersEmpty = options.waitMs === 0;
    this.asksItself = this.#answersEmpty || options.availableByMs !== undefined;
    this.#notLookedInto = new Set(options.queues.map(({ name }) => name));
    this.#onAnswer = onAnswer;
    this.#onFailure = onFailure;
  }

  capacity(): number {
    return this.#answered || this.#isQuiet(this.workerId) ? 0 : this.#maxJobs;
  }

  deliver(jobs: readonly LeasedJob[], pull: boolean): void {
    this.#answer({ jobs, pull: pull || this.#pulls });
  }

  byteBudget(): undefined {}

  outgrown(): void {}

  /** Its worker is to get no more jobs: a call that does not wait would else hear of it from nobody. */
  becameQuiet(): void {
    if (this.#answersEmpty && !this.#answered) this.#answer(NOTHING);
  }

  missed(queue: string): void {
    this.#notLookedInto.delete(queue);
    if (this.#answersEmpty && this.#notLookedInto.size === 0) this.#answer(NOTHING);
  }

  failed(error: unknown): void {
    this.#answered = true;
    this.#onFailure(error);
  }

  #answer(delivery: Delivery): void {
    this.#answered = true;
    this.#onAnswer(delivery);
  }
}

type WaitingCall = { readonly call: ReserveCall; readonly reject: (reason: unknown) => void };

/** The Reserve calls of a broker that are under way. */
export class ReserveCalls {
  readonly #hub: Hub;
  readonly #isQuiet: (workerId: string) => boolean;
  readonly #waiting = new Set<WaitingCall>();
  /** Of the last weighted call; brokers begin at different ones. */
  #point = Math.random();

  constructor(hub: Hub, isQuiet: (workerId: string) => boolean) {
    this.#hub = hub;
    this.#isQuiet = isQuiet;
  }

  /** Resolves with what came, or with nothing when the wait is over. Rejects with the signal's reason on its abort. */
  async reserve(options: ReserveOptions, signal: AbortSignal): Promise<Delivery> {
    signal.throwIfAborted();
    if (options.policy === "weighted") this.#point = (this.#point + GOLDEN_RATIO) % 1;
    const settled = Promise.withResolvers<Delivery>();
    // It leaves the hub in the same moment: what is on its way to it then goes back.
    const resolve = (delivery: Delivery) => {
      this.#hub.leave(call);
      settled.resolve(delivery);
    };
    const reject = (reason: unknown) => {
      this.#hub.leave(call);
      settled.reject(reason);
    };
    const call: ReserveCall = new ReserveCall(options, this.#point, this.#isQuiet, resolve, reject);
    const onAbort = () => reject(signal.reason);
    const timer = options.waitMs > 0 ? setTimeout(() => resolve(NOTHING), options.waitMs) : undefined;
    signal.addEventListener("abort", onAbort, { once: true });
    const waiting = { call, reject };
    this.#waiting.add(waiting);
    this.#hub.join(call);
    if (this.#isQuiet(options.workerId)) call.becameQuiet();
    try {
      return await settled.promise;
    } finally {
      this.#waiting.delete(waiting);
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** A worker is to get no more jobs, or some again. */
  onQuiet(workerId: string, isQuiet: boolean): void {
    for (const { call } of this.#waiting) {
      if (call.workerId !== workerId) continue;
      if (isQuiet) call.becameQuiet();
      else this.#hub.wake(call);
    }
  }

  /** Ends all of them with this error. */
  cancelAll(reason: unknown): void {
    for (const { reject } of this.#waiting) reject(reason);
  }
}
