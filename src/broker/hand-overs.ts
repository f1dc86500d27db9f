/**
 * Handing over: fresh jobs that come while workers wait at their empty queue are put and reserved in one step, which
 * spares them a bell, a call, and the way through READY. Several such calls of a line may be in flight; it goes on
 * listening. Where there are other brokers, this is done with one put of as many as there are brokers: the others ring,
 * so that workers elsewhere get their share.
 */
import { setTimeout as delay } from "node:timers/promises";
import { asksForNothing, type NewJob, type PutOutcome } from "../model/job.ts";
import type { Reservation } from "../store/store.ts";
import type { Line, ReserveCall } from "./line.ts";

type Claims = ReserveCall["claims"];

/** What it needs of the store. */
export type HandOversOptions = {
  readonly brokerId: string;
  readonly reserve: (queue: string, caller: string, call: number, claims: Claims) => Promise<Reservation>;
  readonly handOver: (
    queue: string,
    caller: string,
    call: number,
    claims: Claims,
    jobs: readonly NewJob[],
  ) => Promise<Reservation | "again" | undefined>;
  /** How many brokers there are, this one included. */
  readonly brokers: () => number;
};

/** What becomes of the calls. */
export type HandOversContext = {
  readonly handOut: (line: Line, call: ReserveCall, reservation: Reservation) => void;
  /** The call has reserved nothing. */
  readonly takeBack: (call: ReserveCall) => void;
  readonly warn: (line: Line, what: string, error: unknown) => void;
  /** One call of the line less is in flight. */
  readonly onSettled: (line: Line) => void;
};

/** Calls of one line at once. Each has a name of its own among the callers that the scripts remember. */
const MOST_CALLS = 8;
/** Together they hand over no more bytes than one reserve call does. */
const MAX_BYTES = (3.5 * 1024 * 1024) / MOST_CALLS;
/** What a queue's name takes in a job's message, and the numbers beside it. */
const QUEUE_BYTES = 136;
const RETRY_MS = 250;

export class HandOvers {
  readonly #options: HandOversOptions;
  readonly #context: HandOversContext;
  readonly #inFlight = new Set<Promise<void>>();
  #stopped = false;

  constructor(options: HandOversOptions, context: HandOversContext) {
    this.#options = options;
    this.#context = context;
  }

  /** As far as the jobs go, and the line; not whether somebody in it has room for them. */
  isPossible({ state, rovers, handOvers }: Line, jobs: readonly NewJob[]): boolean {
    if (state.kind !== "listening" || handOvers.size === MOST_CALLS) return false;
    // Those take from their queues in an order.
    if (rovers.size > 0) return false;
    if (Math.random() * this.#options.brokers() >= 1) return false;
    let bytes = 0;
    for (const job of jobs) {
      bytes += job.spec.length + Buffer.byteLength(job.id) + QUEUE_BYTES;
      if (bytes > MAX_BYTES || !asksForNothing(job)) return false;
    }
    return true;
  }

  /** undefined: the queue or the jobs are not so, and nothing has changed. */
  async begin(line: Line, call: ReserveCall, jobs: readonly NewJob[]): Promise<PutOutcome[] | undefined> {
    const { brokerId, handOver } = this.#options;
    let name = 0;
    while (line.handOvers.has(name)) name++;
    line.handOvers.add(name);
    const caller = `${brokerId}.${name}`;
    const handing = handOver(line.queue, caller, call.number, call.claims, jobs);
    const handed = handing
      .then(
        (over) => {
          if (over === undefined) this.#context.takeBack(call);
          else if (over === "again") return this.#findAgain(line, call, caller);
          else this.#context.handOut(line, call, over);
        },
        (error: unknown) => {
          this.#context.warn(line, "handing over fails, trying to reserve", error);
          return this.#findAgain(line, call, caller);
        },
      )
      .finally(() => {
        this.#inFlight.delete(handed);
        line.handOvers.delete(name);
        this.#context.onSettled(line);
      });
    this.#inFlight.add(handed);
    return (await handing) === undefined ? undefined : jobs.map(() => ({ kind: "created", state: "READY" }));
  }

  /** Settles when the last call in flight is answered. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#inFlight);
  }

  /** Whether a call whose answer was lost has handed out jobs, a reserve of its number tells, or gets others. */
  async #findAgain(line: Line, call: ReserveCall, caller: string): Promise<void> {
    const { claims, number } = call;
    while (!this.#stopped) {
      const found = await this.#options.reserve(line.queue, caller, number, claims).catch(() => undefined);
      if (found) {
        this.#context.handOut(line, call, found);
        return;
      }
      await delay(RETRY_MS);
    }
    this.#context.takeBack(call);
  }
}
