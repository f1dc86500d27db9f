/** The verbs on queues: one method for each script, and the list of their names. */
import type { Redis } from "ioredis";
import type { BackoffCurve, OwnRetryPolicy } from "../model/job.ts";
import type { Counters, QueueChange, QueueMode, QueueSettings, QueueView } from "../model/queue.ts";
import { JOB_STATES, type JobState } from "../model/states.ts";
import { asBatonError, type ScriptRunner } from "./script-runner.ts";

/** Queue names read at once. */
const NAMES_AT_ONCE = 500;
const MS_PER_DAY = 86_400_000;

/** As lua/lib/queue.lua's settings(). */
type SettingsJson = {
  paused?: boolean;
  mode?: QueueMode;
  lease?: number;
  retention?: number;
  retry?: (number | false)[];
  dead_letter_max?: number;
  dead_letter_age?: number;
  history_max?: number;
};

const NAMES_IN_LUA = {
  paused: "paused",
  mode: "mode",
  leaseMs: "lease",
  retentionMs: "retention",
  deadLetterMax: "dead_letter_max",
  deadLetterAgeMs: "dead_letter_age",
  historyMaxEvents: "history_max",
} as const satisfies Record<Exclude<keyof QueueSettings, "retry">, keyof SettingsJson>;

/** lua/lib/record.lua's R_…, in their order. */
const RETRY_IN_LUA = [
  "maxAttempts",
  "initialBackoffMs",
  "maxBackoffMs",
  "multiplier",
  "jitter",
  "curve",
] as const satisfies readonly (keyof OwnRetryPolicy)[];
const CURVES: readonly BackoffCurve[] = ["exponential", "exq"];

export class QueueStore {
  readonly #redis: Redis;
  readonly #runner: ScriptRunner;
  readonly #namesKey: string;
  readonly #list: (queue: string) => Promise<void>;

  constructor(redis: Redis, runner: ScriptRunner, namesKey: string, list: (queue: string) => Promise<void>) {
    this.#redis = redis;
    this.#runner = runner;
    this.#namesKey = namesKey;
    this.#list = list;
  }

  /** The names of all queues that ever had a job, a setting or a schedule, in pieces. */
  async *names(): AsyncGenerator<string[]> {
    let after: string | undefined;
    do {
      const names = await this.namesAfter(after, NAMES_AT_ONCE);
      yield names;
      after = names.length === NAMES_AT_ONCE ? names.at(-1) : undefined;
    } while (after !== undefined);
  }

  /** The first `most` names after this one, in the order of their bytes. */
  async namesAfter(after: string | undefined, most: number): Promise<string[]> {
    const from = after === undefined ? "-" : `(${after}`;
    return await this.#redis
      .zrangebylex(this.#namesKey, from, "+", "LIMIT", 0, most)
      .catch((error: unknown) => Promise.reject(asBatonError(error)));
  }

  async exists(queue: string): Promise<boolean> {
    const score = await this.#redis
      .zscore(this.#namesKey, queue)
      .catch((error: unknown) => Promise.reject(asBatonError(error)));
    return score !== null;
  }

  /** `days`: with the counters of each day; without them none, which is far less to read. */
  async get(queue: string, { days = true } = {}): Promise<QueueView> {
    const reply = await this.#runner.run("get_queue", queue, [days ? "1" : ""]);
    const [counts, oldest, today, settings, setAside, rates, stats] = reply as [
      number[],
      number,
      number,
      Buffer,
      number,
      number[],
      Buffer[],
    ];
    return {
      counts: Object.fromEntries(
        Object.entries(JOB_STATES).map(([state, number]) => [state, counts[number - 1] ?? 0]),
      ) as Record<JobState, number>,
      oldestReadyMs: oldest < 0 ? undefined : oldest,
      ...countersOf(stats, today),
      rates: ratesOf(rates),
      settings: readSettings(settings),
      setAside,
    };
  }

  /** The settings before and after. */
  async update(queue: string, change: QueueChange): Promise<{ before: QueueSettings; now: QueueSettings }> {
    await this.#list(queue);
    const reply = await this.#runner.run("update_queue", queue, [JSON.stringify(changeJson(change))]);
    const [before, now] = reply as [Buffer, Buffer];
    return { before: readSettings(before), now: readSettings(now) };
  }

  /**
   * Looks at `most` jobs of a state, the first first, after the first `skip`, and removes those put until a time, or all.
   * `left`: in the state; `later`: looked at, and put later.
   */
  async purge(
    queue: string,
    state: JobState,
    most: number,
    { untilMs, skip = 0 }: { readonly untilMs?: number; readonly skip?: number } = {},
  ): Promise<{ purged: number; left: number; later: number }> {
    const args = [JOB_STATES[state], most, untilMs?.toFixed(0) ?? "", skip];
    const [purged, left, later] = (await this.#runner.run("purge", queue, args)) as [number, number, number];
    return { purged, left, later };
  }

  /** Ends at most so many reservations whose lease is over. */
  async requeue(queue: string, most: number): Promise<number> {
    return (await this.#runner.run("requeue", queue, [most])) as number;
  }
}

/** Fields `name:day` count one day, `name` what came before those that are kept. */
function countersOf(stats: readonly Buffer[], today: number): Pick<QueueView, "totals" | "days"> {
  const empty = (): { -readonly [K in keyof Counters]: number } => ({ put: 0, completed: 0, failed: 0, pulled: 0 });
  const totals = empty();
  const days = new Map<number, ReturnType<typeof empty>>();
  for (let i = 0; i < stats.length; i += 2) {
    const [name, day] = String(stats[i]).split(":") as [keyof Counters, string | undefined];
    const number = Number(stats[i + 1]);
    totals[name] += number;
    if (day === undefined) continue;
    const counters = days.get(Number(day)) ?? empty();
    counters[name] += number;
    days.set(Number(day), counters);
  }
  const newestFirst = [...days].filter(([day]) => day <= today).sort(([a], [b]) => b - a);
  return {
    totals,
    days: newestFirst.map(([day, counters]) => ({
      date: new Date(day * MS_PER_DAY).toISOString().slice(0, 10),
      counters,
    })),
  };
}

function ratesOf([ms, ...growth]: readonly number[]): QueueView["rates"] {
  const [put = 0, completed = 0, failed = 0] = growth.map((count) => (ms ? (count * 1_000) / ms : 0));
  return { put, completed, failed };
}

function readSettings(text: Buffer): QueueSettings {
  const json = (text.length > 0 ? JSON.parse(text.toString()) : {}) as SettingsJson;
  const settings = Object.entries(NAMES_IN_LUA).map(([name, inLua]) => [name, json[inLua]]);
  return { ...Object.fromEntries(settings), paused: json.paused ?? false, retry: json.retry && readRetry(json.retry) };
}

function readRetry(fields: readonly (number | false)[]): OwnRetryPolicy {
  const said = RETRY_IN_LUA.flatMap((name, i) => {
    const field = fields[i];
    if (field === undefined || field === false) return [];
    return [[name, name === "curve" ? CURVES[field - 1] : field]];
  });
  return Object.fromEntries(said) as OwnRetryPolicy;
}

function changeJson({ retry, ...others }: QueueChange): object {
  const change = Object.entries(others).map(([name, value]) => [
    NAMES_IN_LUA[name as keyof typeof NAMES_IN_LUA],
    value ?? false,
  ]);
  if (!retry) return Object.fromEntries(change);
  const fields = Object.entries(retry).map(([name, value]) => {
    const field = RETRY_IN_LUA.indexOf(name as (typeof RETRY_IN_LUA)[number]) + 1;
    return [field, value === "exponential" || value === "exq" ? CURVES.indexOf(value) + 1 : (value ?? false)];
  });
  return { ...Object.fromEntries(change), retry: Object.fromEntries(fields) };
}
