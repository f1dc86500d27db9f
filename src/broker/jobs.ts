/** The verbs on jobs that need no waiting: a batch is split by queue, and each queue gets one script call. */
import { BatonError, jobExists, jobNotFound, leaseLost } from "../model/errors.ts";
import type { JobView, Lease, NewJob, Outcome, PutOutcome, Released } from "../model/job.ts";
import type { JobState } from "../model/states.ts";
import type { Store } from "../store/store.ts";
import { Gather } from "./gather.ts";
import type { HeldLeases } from "./held-leases.ts";

export type PutJob = { readonly queue: string; readonly job: NewJob };
export type PutAnswer = { readonly id: string; readonly created: boolean; readonly state: JobState };
export type Release = { readonly lease: Lease; readonly outcome: Outcome };

/** The outcome of one item of a batch: an error concerns this item alone. */
export type Settled<T> = { readonly ok: T } | { readonly error: unknown };

export class Jobs {
  readonly #store: Store;
  readonly #heldLeases: HeldLeases;
  readonly #puts: Gather<NewJob, PutOutcome>;
  readonly #releases: Gather<Release, Released | undefined>;

  constructor(store: Store, heldLeases: HeldLeases) {
    this.#store = store;
    this.#heldLeases = heldLeases;
    this.#puts = new Gather((queue, jobs) => store.put(queue, jobs));
    this.#releases = new Gather((queue, releases) => {
      const announce = releases.some(({ lease }) => !heldLeases.has(lease));
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
          this.#heldLeases.onEnd({ ...lease, reason: "RELEASED" });
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
        const { ends } = await this.#store.extend(queue, group, leaseMs);
        return group.map(({ id }, i) => {
          const end = ends[i];
          return typeof end === "number" ? { ok: end } : { error: leaseLost(queue, id) };
        });
      },
    );
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
}

function putAnswer(queue: string, id: string, outcome: PutOutcome): Settled<PutAnswer> {
  if (outcome.kind === "conflict") return { error: jobExists(queue, id, outcome.state) };
  return { ok: { id, created: outcome.kind === "created", state: outcome.state } };
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
  if ("error" in settled) throw settled.error;
  return settled.ok;
}
