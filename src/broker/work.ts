/**
 * A Work stream: a subscription on which the worker speaks as well. What it says is done as it comes, and answered by
 * events among those that it is told anyway.
 *
 * What has been asked and is not answered yet, or answered and not yet taken by the transport, costs something, and there
 * is a limit to it: where it is reached, hasRoom() lets the reader of the stream wait. So a worker that sends and never
 * reads is held back by its own connection, and costs the broker no more memory than the limit.
 */
import type { Lease, Outcome, Progress, Released } from "../model/job.ts";
import type { Jobs, Release, Settled } from "./jobs.ts";
import type { Credit, StreamAnswer, Subscription, SubscriptionEvent } from "./subscription.ts";

/** `sequence`: by which its answer is told. */
export type NumberedRelease = Release & { readonly sequence: number };

/** Likewise, of one that cannot be done. */
export type RefusedRelease = { readonly sequence: number; readonly error: unknown };

/** `bytes`: what it takes in a message, at most. */
type Reply = { readonly bytes: number } & (
  | {
      readonly kind: "released";
      readonly releases: readonly NumberedRelease[];
      /** For each of them. */
      readonly answers: readonly Settled<Released>[];
      readonly refused: readonly RefusedRelease[];
    }
  | { readonly kind: "extended"; readonly sequence: number; readonly results: readonly Settled<number>[] }
  | { readonly kind: "report refused"; readonly leaseToken: string; readonly error: unknown }
  | { readonly kind: "quiet"; readonly isQuiet: boolean }
);

export type WorkAnswer = Reply & StreamAnswer;

export type WorkEvent = SubscriptionEvent | WorkAnswer;

/** The full batches of four messages: enough to keep Redis busy while the answers travel. */
const MOST_COST = 4_000;
/** So many bytes of a result cost as much as a release without one: at most 16 MiB wait for Redis on one stream. */
const BYTES_PER_COST = 4_096;
/** What an answer takes in a message: one that is well, and one that is an error, with a queue and an id named twice. */
const GOOD_BYTES = 32;
const ERROR_BYTES = 1_280;
/** No lease token is longer; of what is none, so much is said back. */
const TOKEN_CHARACTERS = 512;

export class Work {
  readonly #subscription: Subscription<WorkAnswer>;
  readonly #jobs: Jobs;
  #cost = 0;
  #room: PromiseWithResolvers<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  #isClosed = false;

  constructor(subscription: Subscription<WorkAnswer>, jobs: Jobs) {
    this.#subscription = subscription;
    this.#jobs = jobs;
  }

  /** `refused`: what is answered with the others. */
  release(releases: readonly NumberedRelease[], refused: readonly RefusedRelease[]): void {
    let cost = releases.length + refused.length;
    for (const { outcome } of releases) cost += bytesOf(outcome) / BYTES_PER_COST;
    this.#do(cost, async () => {
      const answers = releases.length > 0 ? await this.#jobs.release(releases) : [];
      const bytes = bytesOfAnswers(answers) + refused.length * ERROR_BYTES;
      return { kind: "released", releases, answers, refused, bytes };
    });
  }

  extend(sequence: number, leases: readonly Settled<Lease>[], leaseMs: number): void {
    const cost = 1 + leases.length;
    this.#do(cost, async () => {
      const good = leases.flatMap((lease) => ("ok" in lease ? [lease.ok] : []));
      const done = good.length > 0 ? await this.#jobs.extend(good, leaseMs) : [];
      let next = 0;
      const results = leases.map((lease) => ("ok" in lease ? (done[next++] as Settled<number>) : lease));
      return { kind: "extended", sequence, results, bytes: bytesOfAnswers(results) };
    });
  }

  /** Answered only when it is refused. */
  reportProgress(leaseToken: string, report: Settled<{ readonly lease: Lease; readonly progress: Progress }>): void {
    // What is no token may be as long as a message.
    const cost = 1 + leaseToken.length / BYTES_PER_COST;
    const named = leaseToken.slice(0, TOKEN_CHARACTERS);
    this.#do(cost, async () => {
      try {
        if ("error" in report) throw report.error;
        await this.#jobs.reportProgress(report.ok.lease, report.ok.progress);
        return undefined;
      } catch (error) {
        return { kind: "report refused", leaseToken: named, error, bytes: ERROR_BYTES + TOKEN_CHARACTERS };
      }
    });
  }

  setCredit(credit: Credit): void {
    this.#subscription.setCredit(credit);
  }

  setQuiet(isQuiet: boolean): void {
    this.#subscription.setQuiet(isQuiet);
    this.#do(1, async () => ({ kind: "quiet", isQuiet, bytes: GOOD_BYTES }));
  }

  /** Resolves when more may be asked, or the stream has ended; undefined: at once. */
  hasRoom(): Promise<void> | undefined {
    if (this.#cost < MOST_COST || this.#isClosed) return undefined;
    this.#room ??= Promise.withResolvers<void>();
    return this.#room.promise;
  }

  /** All that there is to tell and fits into one message, at least one event; undefined when the stream has ended. */
  next(): Promise<readonly WorkEvent[] | undefined> {
    return this.#subscription.nextAll();
  }

  /** What fail() was given. */
  throwIfFailed(): void {
    if (this.#failure) throw this.#failure.error;
  }

  /** The worker says no more. */
  finish(): void {
    this.#subscription.finish();
  }

  /** The worker said what is not allowed: the stream ends with this error. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.close();
  }

  close(): void {
    this.#isClosed = true;
    this.#subscription.close();
    this.#room?.resolve();
  }

  /** Never rejects: the stream fails instead, with what should not have happened. */
  #do(cost: number, answer: () => Promise<Reply | undefined>): void {
    this.#cost += cost;
    this.#subscription.owe();
    answer()
      .then((reply) => {
        if (reply) this.#subscription.tell({ ...reply, taken: () => this.#take(cost) });
        else this.#take(cost);
      })
      .catch((error: unknown) => this.fail(error))
      .finally(() => this.#subscription.paid());
  }

  #take(cost: number): void {
    this.#cost -= cost;
    if (this.#cost >= MOST_COST) return;
    this.#room?.resolve();
    this.#room = undefined;
  }
}

function bytesOfAnswers(answers: readonly Settled<unknown>[]): number {
  return answers.reduce((bytes, answer) => bytes + ("ok" in answer ? GOOD_BYTES : ERROR_BYTES), 0);
}

function bytesOf(outcome: Outcome): number {
  if (outcome.kind === "completed") return outcome.result?.length ?? 0;
  return outcome.kind === "failed" ? outcome.error.length : 0;
}
