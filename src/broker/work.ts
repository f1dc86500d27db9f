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
import type { Credit, Subscription, SubscriptionEvent } from "./subscription.ts";

export type Sequenced<T> = { readonly sequence: number; readonly settled: Settled<T> };

export type WorkAnswer =
  | { readonly kind: "released"; readonly answers: readonly Sequenced<Released>[]; readonly cost: number }
  | {
      readonly kind: "extended";
      readonly sequence: number;
      readonly results: readonly Settled<number>[];
      readonly cost: number;
    }
  | { readonly kind: "report refused"; readonly leaseToken: string; readonly error: unknown; readonly cost: number }
  | { readonly kind: "quiet"; readonly isQuiet: boolean; readonly cost: number };

export type WorkEvent = SubscriptionEvent | WorkAnswer;

/** The full batches of four messages: enough to keep Redis busy while the answers travel. */
const MOST_COST = 4_000;
/** So many bytes of a result cost as much as a release without one: at most 16 MiB wait for Redis on one stream. */
const BYTES_PER_COST = 4_096;

export class Work {
  readonly #subscription: Subscription<WorkAnswer>;
  readonly #jobs: Jobs;
  #cost = 0;
  #room: PromiseWithResolvers<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(subscription: Subscription<WorkAnswer>, jobs: Jobs) {
    this.#subscription = subscription;
    this.#jobs = jobs;
  }

  /** Those that are errors already are answered with the others. */
  release(releases: readonly Sequenced<Release>[]): void {
    let cost = releases.length;
    for (const { settled } of releases) if ("ok" in settled) cost += bytesOf(settled.ok.outcome) / BYTES_PER_COST;
    this.#do(cost, async () => {
      const good = releases.flatMap(({ settled }) => ("ok" in settled ? [settled.ok] : []));
      const done = good.length > 0 ? await this.#jobs.release(good) : [];
      let next = 0;
      const answers = releases.map(({ sequence, settled }) => ({
        sequence,
        settled: "ok" in settled ? (done[next++] as Settled<Released>) : settled,
      }));
      return { kind: "released", answers, cost };
    });
  }

  extend(sequence: number, leases: readonly Settled<Lease>[], leaseMs: number): void {
    const cost = 1 + leases.length;
    this.#do(cost, async () => {
      const good = leases.flatMap((lease) => ("ok" in lease ? [lease.ok] : []));
      const done = good.length > 0 ? await this.#jobs.extend(good, leaseMs) : [];
      let next = 0;
      const results = leases.map((lease) => ("ok" in lease ? (done[next++] as Settled<number>) : lease));
      return { kind: "extended", sequence, results, cost };
    });
  }

  /** Answered only when it is refused. */
  reportProgress(leaseToken: string, report: Settled<{ readonly lease: Lease; readonly progress: Progress }>): void {
    const cost = 1;
    this.#do(cost, async () => {
      try {
        if ("error" in report) throw report.error;
        await this.#jobs.reportProgress(report.ok.lease, report.ok.progress);
        return undefined;
      } catch (error) {
        return { kind: "report refused", leaseToken, error, cost };
      }
    });
  }

  setCredit(credit: Credit): void {
    this.#subscription.setCredit(credit);
  }

  setQuiet(isQuiet: boolean): void {
    this.#subscription.setQuiet(isQuiet);
    this.#do(1, async () => ({ kind: "quiet", isQuiet, cost: 1 }));
  }

  /** Resolves when more may be asked, or the stream has ended; undefined: at once. */
  hasRoom(): Promise<void> | undefined {
    if (this.#cost < MOST_COST) return undefined;
    this.#room ??= Promise.withResolvers<void>();
    return this.#room.promise;
  }

  /** All that there is to tell, at least one event; undefined when the stream has ended. Throws what fail() was given. */
  async next(): Promise<readonly WorkEvent[] | undefined> {
    const events = await this.#subscription.nextAll();
    if (this.#failure) throw this.#failure.error;
    for (const event of events ?? []) if ("cost" in event) this.#take(event.cost);
    return events;
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
    this.#subscription.close();
    this.#room?.resolve();
  }

  /** Never rejects: the stream fails instead, with what should not have happened. */
  #do(cost: number, answer: () => Promise<WorkAnswer | undefined>): void {
    this.#cost += cost;
    this.#subscription.owe();
    answer()
      .then((told) => (told ? this.#subscription.tell(told) : this.#take(cost)))
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

function bytesOf(outcome: Outcome): number {
  if (outcome.kind === "completed") return outcome.result?.length ?? 0;
  return outcome.kind === "failed" ? outcome.error.length : 0;
}
