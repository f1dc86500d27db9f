/**
 * Those who await jobs of one queue. A job may finish at any moment, also between a look at it and the first message
 * about it. So each of them
 *  1. follows the queue's channels, `events` (jobs that finish) and `leases` (jobs that are deleted), until Redis has
 *     confirmed that;
 *  2. waits until everything that was said before has been heard (Channels.sync): what is heard from then on is news.
 *     What is heard sooner may be about an earlier job with this id;
 *  3. looks. What has finished is the answer. What is not there never was, or is over: then the answer is what was
 *     heard in 2, or that there is no such job;
 *  4. then waits for news, which lead to the next look. A job that is stored no longer, or already runs again, is
 *     answered as its completion event told it.
 * A job that vanishes without a word, once it has been seen, was pulled: its outcome is still to come.
 */
import type { Completion } from "../model/completion.ts";
import { awaitTimeout, jobNotFound } from "../model/errors.ts";
import type { JobView } from "../model/job.ts";
import type { JobState } from "../model/states.ts";
import type { Channels, Following } from "../store/channels.ts";
import { readCompletion } from "../store/completions.ts";
import { queueChannel } from "../store/keys.ts";
import { endedLease } from "../store/lease-ends.ts";
import type { Gather } from "./gather.ts";
import { isUnavailable, soon } from "./waiting.ts";

export type Finished =
  | { readonly kind: "stored"; readonly job: JobView }
  /** All that is known of a job that is not stored any more. */
  | { readonly kind: "told"; readonly completion: Completion };

export type Waiter = {
  readonly id: string;
  /** It waits also for a job that is not there. */
  readonly expect: boolean;
  /** Whichever comes first counts; from then on the others are without effect. */
  readonly finish: (finished: Finished) => void;
  readonly fail: (error: unknown) => void;
};

export type AwaitedQueueOptions = {
  readonly queue: string;
  readonly namespace: string;
  readonly channels: Channels;
  readonly get: (id: string) => Promise<JobView | undefined>;
  readonly states: Gather<string, JobState | undefined>;
};

/** What a waiter has come to know. */
type Known = {
  /** Step 2 is done: what it hears is news. */
  hearsNews: boolean;
  early: Completion | undefined;
  told: Completion | undefined;
  /** A look has found the job. */
  seen: boolean;
};

/** Those who await one job share its looks. */
type AwaitedJob = { readonly waiters: Map<Waiter, Known>; looking: boolean; lookAgain: boolean };

/** States read in one script call: about 1 ms of Redis. */
const POLL_BATCH = 1_000;

export class AwaitedQueue {
  readonly #options: AwaitedQueueOptions;
  /** Made by the first who waits: a mere look needs none. */
  #followings: readonly Following[] | undefined;
  readonly #jobs = new Map<string, AwaitedJob>();
  /** Messages may have been missed: the next poll takes what is not there for gone. */
  #missed = false;

  constructor(options: AwaitedQueueOptions) {
    this.#options = options;
  }

  get isEmpty(): boolean {
    return this.#jobs.size === 0;
  }

  /** Nobody may be waiting any more. */
  close(): void {
    for (const following of this.#followings ?? []) following.unfollow();
    this.#followings = undefined;
  }

  add(waiter: Waiter): void {
    const known: Known = { hearsNews: false, early: undefined, told: undefined, seen: false };
    const job = this.#jobs.get(waiter.id);
    if (job) job.waiters.set(waiter, known);
    else this.#jobs.set(waiter.id, { waiters: new Map([[waiter, known]]), looking: false, lookAgain: false });
    this.#lookFirst(waiter, known).catch(waiter.fail);
  }

  remove(waiter: Waiter): void {
    const job = this.#jobs.get(waiter.id);
    job?.waiters.delete(waiter);
    if (job?.waiters.size === 0) this.#jobs.delete(waiter.id);
  }

  /** The waiter's time is over, or it had none: it gets what there is at this moment. */
  timeOut(waiter: Waiter): void {
    this.#lookLast(waiter).catch(waiter.fail);
  }

  /** The connection was away. */
  missed(): void {
    this.#missed = true;
  }

  /** Looks at all awaited jobs, cheaply. */
  async poll(): Promise<void> {
    const missed = this.#missed;
    this.#missed = false;
    try {
      const ids = [...this.#jobs.keys()];
      for (let i = 0; i < ids.length; i += POLL_BATCH) await this.#pollSome(ids.slice(i, i + POLL_BATCH), missed);
    } catch (error) {
      this.#missed ||= missed;
      throw error;
    }
  }

  #follow(): Following[] {
    const { queue, namespace, channels } = this.#options;
    return [
      channels.follow(queueChannel(namespace, queue, "events"), (text) => this.#onCompletion(text)),
      channels.follow(queueChannel(namespace, queue, "leases"), (text) => this.#onLeaseEnd(text)),
    ];
  }

  async #pollSome(ids: readonly string[], missed: boolean): Promise<void> {
    const hearing = new Map(ids.map((id) => [id, this.#whoHearNews(id)]));
    const states = await this.#options.states.add(this.#options.queue, ids);
    const absent: string[] = [];
    for (const [i, id] of ids.entries()) {
      const state = states[i];
      const toldOf = hearing.get(id)?.some(([, { told }]) => told) ?? false;
      if (isFinal(state) || toldOf) void this.#look(id);
      else if (state === undefined) absent.push(id);
    }
    if (!missed || absent.length === 0) return;
    // What was published since the connection is back has to be heard first.
    await this.#options.channels.sync();
    for (const id of absent) {
      for (const [waiter, { told }] of hearing.get(id) ?? []) {
        if (!waiter.expect && !told) waiter.fail(jobNotFound(this.#options.queue, id));
      }
    }
  }

  async #lookFirst(waiter: Waiter, known: Known): Promise<void> {
    const { queue, channels } = this.#options;
    this.#followings ??= this.#follow();
    await Promise.all(this.#followings.map(({ listening }) => soon(listening)));
    await channels.sync();
    known.hearsNews = true;
    const state = await this.#state(waiter.id);
    known.seen = state !== undefined;
    if (state !== undefined && !isFinal(state)) return;
    const job = state && (await this.#options.get(waiter.id));
    if (job && isFinal(job.state)) return waiter.finish({ kind: "stored", job });
    // It may be put again by now; or what it ended with is on its way.
    await channels.sync();
    if (job || known.told) return;
    if (known.early) waiter.finish({ kind: "told", completion: known.early });
    else if (!waiter.expect) waiter.fail(jobNotFound(queue, waiter.id));
  }

  async #lookLast(waiter: Waiter): Promise<void> {
    const { queue } = this.#options;
    const known = this.#jobs.get(waiter.id)?.waiters.get(waiter);
    const state = await this.#state(waiter.id);
    const job = isFinal(state) ? await this.#options.get(waiter.id) : undefined;
    const told = known?.told ?? (state === undefined ? known?.early : undefined);
    if (job && isFinal(job.state)) waiter.finish({ kind: "stored", job });
    else if (told) waiter.finish({ kind: "told", completion: told });
    else if (state === undefined && !waiter.expect && !known?.seen) waiter.fail(jobNotFound(queue, waiter.id));
    else waiter.fail(awaitTimeout(queue, waiter.id, job?.state ?? state ?? "GONE"));
  }

  #onCompletion(text: string): void {
    const completion = readCompletion(this.#options.queue, text);
    const job = this.#jobs.get(completion.id);
    if (!job) return;
    for (const known of job.waiters.values()) {
      // The first final state counts: an operator may have it run again at once.
      if (known.hearsNews) known.told ??= completion;
      else known.early = completion;
    }
    void this.#look(completion.id);
  }

  #onLeaseEnd(text: string): void {
    // Most leases end with a job that is still there.
    if (!text.includes("DELETED")) return;
    const { queue, id, reason } = endedLease(this.#options.queue, text);
    if (reason !== "DELETED") return;
    for (const [waiter] of this.#whoHearNews(id)) waiter.fail(jobNotFound(queue, id));
  }

  /** The job may have finished: whoever hears news gets the job, or what was told of it. */
  async #look(id: string): Promise<void> {
    const job = this.#jobs.get(id);
    if (!job) return;
    job.lookAgain = true;
    if (job.looking) return;
    job.looking = true;
    try {
      while (job.lookAgain) {
        job.lookAgain = false;
        const hearing = this.#whoHearNews(id);
        if (hearing.length > 0) answer(hearing, await this.#options.get(id));
      }
    } catch (error) {
      // While Redis is away, the next poll looks again.
      if (isUnavailable(error)) return;
      for (const [waiter] of this.#whoHearNews(id)) waiter.fail(error);
    } finally {
      job.looking = false;
    }
  }

  #whoHearNews(id: string): [Waiter, Known][] {
    return [...(this.#jobs.get(id)?.waiters ?? [])].filter(([, { hearsNews }]) => hearsNews);
  }

  async #state(id: string): Promise<JobState | undefined> {
    const [state] = await this.#options.states.add(this.#options.queue, [id]);
    return state;
  }
}

function answer(waiters: readonly [Waiter, Known][], job: JobView | undefined): void {
  for (const [waiter, { told }] of waiters) {
    if (job && isFinal(job.state)) waiter.finish({ kind: "stored", job });
    else if (told) waiter.finish({ kind: "told", completion: told });
  }
}

function isFinal(state: JobState | undefined): boolean {
  return state === "COMPLETED" || state === "FAILED";
}
