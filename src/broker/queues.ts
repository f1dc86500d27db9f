/** The verbs on queues as a whole. Long ones go in steps, and end early when their caller has gone. */
import { queueNotFound } from "../model/errors.ts";
import type { RetryPolicy } from "../model/job.ts";
import type { QueueChange, QueueDefaults, QueueSettings, QueueView } from "../model/queue.ts";
import { JOB_STATES, type JobState } from "../model/states.ts";
import type { Store } from "../store/store.ts";

/** `effective`: its own settings, and the broker's where it has none. */
export type ShownQueue = { readonly name: string; readonly view: QueueView; readonly effective: EffectiveSettings };

export type EffectiveSettings = Required<Omit<QueueSettings, "retry">> & {
  readonly retry: { readonly [K in keyof RetryPolicy]: RetryPolicy[K] | undefined };
};

export type QueuePage = { readonly queues: readonly ShownQueue[]; readonly last: string | undefined };

/** Jobs in one script call: about 3 ms of Redis. */
const STEP_JOBS = 500;
/** Queues of a list that are read at once. */
const QUEUES_AT_ONCE = 20;

/** In the order in which jobs pass through them, so that a purge of several overtakes those that move meanwhile. */
const ALONG_THE_WAY = Object.keys(JOB_STATES) as JobState[];

export class Queues {
  readonly #store: Store;
  readonly #defaults: QueueDefaults;

  constructor(store: Store, defaults: QueueDefaults) {
    this.#store = store;
    this.#defaults = defaults;
  }

  /** At most so many, in the order of their names, after one; `last`: where the next page goes on, if there is one. */
  async list(after: string | undefined, most: number, signal: AbortSignal): Promise<QueuePage> {
    const names = await this.#store.queues.namesAfter(after, most);
    const queues: ShownQueue[] = [];
    for (let i = 0; i < names.length; i += QUEUES_AT_ONCE) {
      signal.throwIfAborted();
      const some = names.slice(i, i + QUEUES_AT_ONCE);
      queues.push(...(await Promise.all(some.map((name) => this.#show(name, { days: false })))));
    }
    return { queues, last: names.length === most ? names.at(-1) : undefined };
  }

  async get(name: string): Promise<ShownQueue> {
    const [exists, shown] = await Promise.all([this.#store.queues.exists(name), this.#show(name)]);
    if (!exists) throw queueNotFound(name);
    return shown;
  }

  /** The queue after the change. */
  async update(name: string, change: QueueChange): Promise<ShownQueue> {
    await this.#store.queues.update(name, change);
    return await this.#show(name);
  }

  /** Whether it was not paused. */
  async pause(name: string): Promise<boolean> {
    const { before } = await this.#store.queues.update(name, { paused: true });
    return !before.paused;
  }

  /** Whether it was paused. A queue that there is not is not made for this. */
  async resume(name: string): Promise<boolean> {
    if (!(await this.#store.queues.exists(name))) return false;
    const { before } = await this.#store.queues.update(name, { paused: null });
    return before.paused;
  }

  /**
   * Removes the jobs in these states that had been put when the call came; how many. Those that move between these
   * states meanwhile are removed where they are found: it goes round until there are none, and there come no more.
   */
  async purge(name: string, states: ReadonlySet<JobState>, signal: AbortSignal): Promise<number> {
    const untilMs = await this.#store.now();
    const inOrder = ALONG_THE_WAY.filter((state) => states.has(state));
    let total = 0;
    for (;;) {
      let found = 0;
      for (const state of inOrder) found += await this.#purgeState(name, state, untilMs, signal);
      total += found;
      if (found === 0) return total;
    }
  }

  async #purgeState(name: string, state: JobState, untilMs: number, signal: AbortSignal): Promise<number> {
    let total = 0;
    let skip = 0;
    for (;;) {
      signal.throwIfAborted();
      const { purged, left, later } = await this.#store.queues.purge(name, state, STEP_JOBS, { untilMs, skip });
      total += purged;
      skip += later;
      if (skip >= left) return total;
    }
  }

  /** Ends at most so many reservations whose lease is over; how many. */
  async requeue(name: string, most: number, signal: AbortSignal): Promise<number> {
    let total = 0;
    while (total < most) {
      signal.throwIfAborted();
      const ended = await this.#store.queues.requeue(name, Math.min(STEP_JOBS, most - total));
      if (ended === 0) break;
      total += ended;
    }
    return total;
  }

  async #show(name: string, options?: { readonly days: boolean }): Promise<ShownQueue> {
    const view = await this.#store.queues.get(name, options);
    return { name, view, effective: effectiveSettings(view.settings, this.#defaults) };
  }
}

/** What the scripts go by: lua/lib/finish.lua says the same of retries. */
function effectiveSettings(own: QueueSettings, defaults: QueueDefaults): EffectiveSettings {
  const said = own.retry ?? {};
  const curve = said.curve ?? defaults.retry.curve;
  const initialBackoffMs = said.initialBackoffMs ?? defaults.retry.initialBackoffMs;
  // exq's curve is bounded only by what a job or its queue says itself.
  const bound = curve === "exq" ? said.maxBackoffMs : (said.maxBackoffMs ?? defaults.retry.maxBackoffMs);
  return {
    paused: own.paused,
    mode: own.mode ?? "reliable",
    leaseMs: own.leaseMs ?? defaults.leaseMs,
    retentionMs: own.retentionMs ?? defaults.retentionMs,
    retry: {
      maxAttempts: said.maxAttempts ?? defaults.retry.maxAttempts,
      initialBackoffMs,
      maxBackoffMs: bound === undefined || curve === "exq" ? bound : Math.max(bound, initialBackoffMs),
      multiplier: said.multiplier ?? defaults.retry.multiplier,
      jitter: said.jitter ?? defaults.retry.jitter,
      curve,
    },
    deadLetterMax: own.deadLetterMax ?? defaults.deadLetterMax,
    deadLetterAgeMs: own.deadLetterAgeMs ?? defaults.deadLetterAgeMs,
    historyMaxEvents: own.historyMaxEvents ?? defaults.historyMaxEvents,
  };
}
