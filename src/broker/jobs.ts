/** The verbs on jobs that need no waiting: a batch is split by queue, and each queue gets one script call. */
import { BatonError, jobExists, jobNotFinished, jobNotFound, leaseLost, uniqueKeyTaken } from "../model/errors.ts";
import {
  type JobView,
  type Lease,
  type NewJob,
  NO_LEASE,
  type Outcome,
  type Progress,
  type PutOutcome,
  type Released,
} from "../model/job.ts";
import type { JobState } from "../model/states.ts";
import type { Extension, JobPage, Position, RetryOutcome, Store } from "../store/store.ts";
import { Gather } from "./gather.ts";
import type { HeldLeases } from "./held-leases.ts";
import type { Hub } from "./hub.ts";
import { ProgressReports } from "./progress.ts";

export type PutJob = { readonly queue: string; readonly job: NewJob };
export type PutAnswer = { readonly id: string; readonly created: boolean; readonly state: JobState };
export type Release = { readonly lease: Lease; readonly outcome: Outcome };

/** The outcome of one item of a batch: an error concerns this item alone. */
export type Settled<T> = { readonly ok: T } | { readonly error: unknown };

export type { JobPage, Position };

/** Jobs retried in one script call: about 3 ms of Redis. */
const STEP_JOBS = 500;

export class Jobs {
  readonly #store: Store;
  readonly #heldLeases: HeldLeases;
  readonly #puts: Gather<NewJob, PutOutcome>;
  readonly #releases: Gather<Release, Released | undefined>;
  /** By duration and queue: a worker may send many extends of one token each. */
  readonly #extensions: Gather<Lease, Extension["ends"][number]>;
  readonly #progress: ProgressReports;

  /** `onNextDue`: something in this queue is due so soon, such as the end of a lease that was made shorter. */
  constructor(store: Store, hub: Hub, heldLeases: HeldLeases, onNextDue: (queue: string, inMs: number) => void) {
    this.#store = store;
    this.#heldLeases = heldLeases;
    this.#progress = new ProgressReports(store);
    this.#extensions = new Gather(async (key, leases) => {
      const [leaseMs, queue = ""] = key.split(" ");
      const { ends, nextDueMs } = await store.extend(queue, leases, Number(leaseMs));
      if (nextDueMs !== undefined) onNextDue(queue, nextDueMs);
      return ends;
    });
    this.#puts = new Gather((queue, jobs) => hub.put(queue, jobs));
    this.#releases = new Gather((queue, releases) => {
      const announce = releases.some(({ lease }) => lease.fence !== NO_LEASE && !heldLeases.has(lease));
      return store.release(queue, releases, { announce });
    });
  }

  put(puts: readonly PutJob[]): Promise<Settled<PutAnswer>[]> {
    return byQueue(
      puts,
      ({ queue }) => queue,
      async (queue, group) => {
        const outcomes = await this.#puts.add(
          queue,
          group.map(({ job }) => job),
        );
        return group.map(({ job }, i) => putAnswer(queue, job.id, outcomes[i] as PutOutcome));
      },
    );
  }

  release(releases: readonly Release[]): Promise<Settled<Released>[]> {
    return byQueue(
      releases,
      ({ lease }) => lease.queue,
      async (queue, group) => {
        const answers = await this.#releases.add(queue, group);
        return group.map(({ lease }, i) => {
          const released = answers[i];
          if (!released) return { error: leaseLost(queue, lease.id) };
          if (lease.fence !== NO_LEASE) this.#heldLeases.onReleased(lease);
          return { ok: released };
        });
      },
    );
  }

  /** When the leases end now, in ms since 1970. */
  extend(leases: readonly Lease[], leaseMs: number): Promise<Settled<number>[]> {
    return byQueue(
      leases,
      ({ queue }) => queue,
      async (queue, group) => {
        const ends = await this.#extensions.add(`${leaseMs} ${queue}`, group);
        return group.map((lease, i) => {
          const end = ends[i];
          if (typeof end !== "number") return { error: leaseLost(queue, lease.id) };
          this.#heldLeases.onExtended(lease, leaseMs);
          return { ok: end };
        });
      },
    );
  }

  /** Has Redis asked for all extensions: what it is asked for from now on is done after them. */
  flushExtensions(): void {
    this.#extensions.flush();
  }

  /** Answers when it is stored; what comes of one job more often than every 100 ms is merged. */
  async reportProgress(lease: Lease, progress: Progress): Promise<void> {
    if (!(await this.#progress.report(lease, progress))) throw leaseLost(lease.queue, lease.id);
  }

  /** Writes what has not been written. */
  stop(): Promise<void> {
    return this.#progress.stop();
  }

  /** The state the job was in; undefined when there was none. */
  delete(queue: string, id: string): Promise<JobState | undefined> {
    return this.#store.delete(queue, id);
  }

  async get(queue: string, id: string): Promise<JobView> {
    const job = await this.#store.get(queue, id);
    if (!job) throw jobNotFound(queue, id);
    return job;
  }

  /** `error`: a JobError. */
  cancel(
    queue: string,
    id: string,
    error: Uint8Array,
    eventDetail: string,
  ): Promise<{ cancelled: boolean; previous: JobState | undefined }> {
    return this.#store.cancel(queue, id, error, eventDetail);
  }

  /** At most so many jobs of one state, after a position. */
  list(queue: string, state: JobState, most: number, after: Position | undefined): Promise<JobPage> {
    return this.#store.list(queue, state, most, after);
  }

  /** "READY" for each job that runs again. */
  async retry(queue: string, ids: readonly string[]): Promise<Settled<"READY">[]> {
    const outcomes = await this.#store.retry(queue, ids);
    return ids.map((id, i) => retryAnswer(queue, id, outcomes[i] as RetryOutcome));
  }

  /**
   * Retries all that had failed when the call came, in steps; how many run again. Those that fail anew meanwhile have
   * failed later. Ends early when the caller has gone.
   */
  async retryAllFailed(queue: string, signal: AbortSignal): Promise<number> {
    const untilMs = await this.#store.now();
    let total = 0;
    // The oldest come first, and those that cannot be retried stay in front.
    let skip = 0;
    for (;;) {
      signal.throwIfAborted();
      const { retried, refused } = await this.#store.retryFailed(queue, untilMs, skip, STEP_JOBS);
      total += retried;
      skip += refused;
      if (retried + refused === 0) return total;
    }
  }
}

function retryAnswer(queue: string, id: string, outcome: RetryOutcome): Settled<"READY"> {
  switch (outcome.kind) {
    case "retried":
      return { ok: "READY" };
    case "not found":
      return { error: jobNotFound(queue, id) };
    case "not finished":
      return { error: jobNotFinished(queue, id, outcome.state) };
    case "unique conflict":
      return { error: uniqueKeyTaken(queue, outcome.keeperId, outcome.state) };
  }
}

function putAnswer(queue: string, id: string, outcome: PutOutcome): Settled<PutAnswer> {
  const { kind, state } = outcome;
  switch (kind) {
    case "conflict":
      return { error: jobExists(queue, id, state) };
    case "unique conflict":
      return { error: uniqueKeyTaken(queue, outcome.keeperId, state) };
    case "unique kept":
      return { ok: { id: outcome.keeperId, created: false, state } };
    default:
      return { ok: { id, created: kind === "created", state } };
  }
}

/** Runs `work` once for each queue; its answers come back in the order of the items. A queue's failure is its own. */
async function byQueue<T, R>(
  items: readonly T[],
  queueOf: (item: T) => string,
  work: (queue: string, group: readonly T[]) => Promise<Settled<R>[]>,
): Promise<Settled<R>[]> {
  const [first] = items;
  if (first !== undefined && items.every((item) => queueOf(item) === queueOf(first))) {
    return settle(queueOf(first), items, work);
  }
  const results = new Array<Settled<R>>(items.length);
  const groups = Map.groupBy(items.keys(), (i) => queueOf(items[i] as T));
  await Promise.all(
    [...groups].map(async ([queue, indexes]) => {
      const group = indexes.map((i) => items[i] as T);
      const settled = await settle(queue, group, work);
      for (const [n, i] of indexes.entries()) results[i] = settled[n] as Settled<R>;
    }),
  );
  return results;
}

function settle<T, R>(
  queue: string,
  group: readonly T[],
  work: (queue: string, group: readonly T[]) => Promise<Settled<R>[]>,
): Promise<Settled<R>[]> {
  return work(queue, group).catch((error: unknown) => group.map(() => ({ error })));
}

/** The one answer of a batch of one. */
export function only<T>([settled]: readonly Settled<T>[]): T {
  if (!settled) throw new BatonError("INTERNAL", "INTERNAL", "a batch of one had no answer");
  return settledValue(settled);
}

/** Throws what it ended with. */
export function settledValue<T>(settled: Settled<T>): T {
  if ("error" in settled) throw settled.error;
  return settled.ok;
}
