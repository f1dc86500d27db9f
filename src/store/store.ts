/**
 * The queues in Redis: one method for each script in lua/, of the same name. It turns what the broker means into a
 * script's arguments and its reply into what the broker understands, and knows nothing of why.
 */
import { randomInt } from "node:crypto";
import type { Redis } from "ioredis";
import {
  DEFAULT_LEASE_MS,
  DEFAULT_RETRY,
  type JobView,
  type Lease,
  type LeasedJob,
  type NewJob,
  type Progress,
  type PutOutcome,
  type Released,
  type RetryPolicy,
} from "../model/job.ts";
import { JOB_STATES, type JobState, stateOf } from "../model/states.ts";
import { bufferOf, type JobReply, jobView, knownState, retryFields, withoutHead } from "./job-fields.ts";
import { queueKey, queuesKey } from "./keys.ts";
import { packPuts, packReleases, type Release } from "./packing.ts";
import { QueueStore } from "./queue-store.ts";
import { type DueSchedule, dueSchedules, ScheduleStore } from "./schedule-store.ts";
import { asBatonError, type Reply, type ScriptArgument, ScriptRunner } from "./script-runner.ts";

const DEFAULT_TIMEOUT_MS = 5_000;

export type StoreOptions = {
  readonly redis: Redis;
  /** How long a call may take, the loss of its connection included; default 5 s. */
  readonly timeoutMs?: number;
  readonly namespace: string;
  readonly defaultRetentionMs: number;
  readonly defaultLeaseMs?: number;
  readonly defaultRetry?: RetryPolicy;
  readonly deadLetterMax: number;
  readonly deadLetterAgeMs: number;
  readonly historyMaxEvents?: number;
  /** For tests: the time that scripts see, in ms. */
  readonly clock?: () => number;
};

/** A caller's wish in a reserve: up to `count` jobs, also those due until `availableByMs`. `leaseMs` 0: as the job says. */
export type Claim = {
  readonly count: number;
  readonly leaseMs: number;
  readonly workerId: string;
  readonly availableByMs?: number | undefined;
  readonly bytes?: ByteBudget | undefined;
};

/** So many bytes all jobs of a claim may have together; `takesAny`: but one job, whatever it has. */
export type ByteBudget = { readonly most: number; readonly takesAny: boolean };

export type Reservation = {
  /** For each claim the jobs it got. */
  readonly jobs: readonly LeasedJob[][];
  /** Jobs were left READY. */
  readonly remaining: boolean;
  /** The queue is of mode SIMPLE: the jobs are to be pulled. */
  readonly pull: boolean;
  /** Until something is due; undefined when nothing waits for a time. */
  readonly nextDueMs: number | undefined;
  /** The claims, by their places, that got no more because the next job has too many bytes. */
  readonly outgrown: readonly number[];
};

/** lua/reserve.lua and lua/release.lua pack numbers: a reply of many integers costs much more, there and here. */
const RESERVED_JOB_BYTES = 27;
const RELEASED_BYTES = 7;
/** lua/put.lua */
const PUT_VERDICTS = ["conflict", "kept", "created", "unique conflict", "unique kept"] as const;
/** lua/release.lua */
const PULLED = 255;
/** lua/extend.lua */
const LOST_LEASES = ["EXPIRED", "RUN_TIMEOUT", "RESUMED"] as const;
/** lua/reserve.lua's flags. */
const REMAINING = 1;
const SIMPLE = 2;
const HISTORY_MAX_EVENTS = 10_000;
const NONCE_LIMIT = 2 ** 32;
/** As many queue names as a broker remembers to have listed; beyond that it lists them again, which does no harm. */
const MAX_LISTED_QUEUES = 10_000;

/** `holder`: the number of the stream that keeps it; 0 for the one that got it, undefined for whichever. */
export type KeptLease = Lease & { readonly holder?: number | undefined };

/** `RESUMED`: another stream keeps the lease now. */
export type Extension = {
  readonly ends: readonly (number | "EXPIRED" | "RUN_TIMEOUT" | "RESUMED")[];
  /** How many bytes each job has; for leases that were taken over only. */
  readonly bytes: readonly number[];
  readonly nextDueMs: number | undefined;
};

export type ProgressReport = { readonly lease: Lease; readonly progress: Progress };

/** Where a page of a list begins: after this member of the state's set. */
export type Position = { readonly score: string; readonly member: Buffer };

export type JobPage = { readonly jobs: readonly JobView[]; readonly last: Position | undefined };

/** "retried", or why not. */
export type RetryOutcome =
  | { readonly kind: "retried" }
  | { readonly kind: "not found" }
  | { readonly kind: "not finished"; readonly state: JobState }
  | { readonly kind: "unique conflict"; readonly state: JobState; readonly keeperId: string };

/** lua/retry.lua */
const RETRIED = 255;
const UNIQUE_TAKEN = 254;

/** An event of a queue's history, as lua/lib/history.lua writes it. `s` is the state's number, 0: gone. */
export type HistoryEntry = {
  readonly number: number;
  readonly id: string;
  readonly transition: string;
  readonly state: JobState | undefined;
  readonly atMs: number;
  readonly attempt: number;
  readonly failures: number;
  readonly workerId: string;
  readonly dueMs: number;
  /** Of the transition `report`. */
  readonly progress: Progress | undefined;
};

export type HistoryPage = {
  /** The number of the queue's last event. */
  readonly last: number;
  /** Nothing is missing in `entries` after this number. */
  readonly from: number;
  /** What happened between the event that was given and this number is not known. */
  readonly isGap: boolean;
  readonly entries: readonly HistoryEntry[];
};

export type Sweep = {
  readonly more: boolean;
  readonly nextDueMs: number | undefined;
  /** Ids of records that could not be read. */
  readonly setAside: readonly string[];
  /** Redis's time. */
  readonly nowMs: number;
  readonly due: readonly DueSchedule[];
};

export class Store {
  readonly queues: QueueStore;
  readonly schedules: ScheduleStore;
  readonly #redis: Redis;
  readonly #runner: ScriptRunner;
  readonly #namespace: string;
  readonly #queuesKey: string;
  readonly #clock: (() => number) | undefined;
  readonly #listed = new Set<string>();

  constructor({ redis, timeoutMs = DEFAULT_TIMEOUT_MS, namespace, clock, ...defaults }: StoreOptions) {
    this.#redis = redis;
    this.#namespace = namespace;
    this.#queuesKey = queuesKey(namespace);
    this.#clock = clock;
    this.#runner = new ScriptRunner({
      redis,
      timeoutMs,
      namespace,
      clock,
      defaults: {
        retention: defaults.defaultRetentionMs,
        lease: defaults.defaultLeaseMs ?? DEFAULT_LEASE_MS,
        retry: retryFields(defaults.defaultRetry ?? DEFAULT_RETRY),
        dead_letter_max: defaults.deadLetterMax,
        dead_letter_age: defaults.deadLetterAgeMs,
        history_max: defaults.historyMaxEvents ?? HISTORY_MAX_EVENTS,
      },
    });
    // Redis may have lost the end of its data, and with it a name. What it has is not written again.
    redis.on("ready", () => this.#listed.clear());
    this.queues = new QueueStore(redis, this.#runner, this.#queuesKey, (queue) => this.#list(queue));
    this.schedules = new ScheduleStore(this.#runner, (queue) => this.#list(queue));
  }

  /** In one step, in the order of `jobs`; an outcome for each. */
  async put(queue: string, jobs: readonly NewJob[], nonce = randomInt(NONCE_LIMIT)): Promise<PutOutcome[]> {
    await this.#list(queue);
    const reply = (await this.#runner.run("put", queue, [nonce, packPuts(jobs)])) as Buffer | Buffer[];
    const [verdicts, ...keepers] = Array.isArray(reply) ? (reply as [Buffer, ...Buffer[]]) : [reply];
    return jobs.map((_, i) => {
      const kind = PUT_VERDICTS[verdicts[2 * i] ?? 0] ?? "conflict";
      const state = knownState(verdicts[2 * i + 1]);
      if (kind !== "unique conflict" && kind !== "unique kept") return { kind, state };
      return { kind, state, keeperId: keepers.shift()?.toString() ?? "" };
    });
  }

  /**
   * Serves the claims one after the other. `call` must be new for each call whose predecessor was answered; a call
   * that failed is repeated with its number and claims, and gets what the first may already have reserved.
   */
  async reserve(queue: string, caller: string, call: number, claims: readonly Claim[]): Promise<Reservation> {
    const args: ScriptArgument[] = [caller, call];
    for (const { count, leaseMs, workerId, availableByMs, bytes } of claims) {
      const budget = bytes && (bytes.takesAny ? -bytes.most : bytes.most);
      args.push(count, leaseMs, workerId, availableByMs?.toFixed(0) ?? "", budget?.toFixed(0) ?? "");
    }
    const reply = await this.#runner.run("reserve", queue, args);
    const [flags, nextDue, numbers, outgrown, ids, ...specs] = reply as [
      number,
      number,
      Buffer,
      Buffer,
      Buffer,
      ...Buffer[],
    ];
    const jobs: LeasedJob[][] = claims.map(() => []);
    // One text is read much faster than many small ones.
    for (const [i, id] of (specs.length > 0 ? ids.toString().split("\n") : []).entries()) {
      const at = i * RESERVED_JOB_BYTES;
      jobs[numbers.readUInt16BE(at) - 1]?.push({
        queue,
        id,
        spec: withoutHead(specs[i] as Buffer),
        attempt: numbers.readUInt32BE(at + 2),
        failures: numbers.readUInt16BE(at + 6),
        // 7 bytes, of which Node reads at most 6 at once.
        fence: numbers.readUInt8(at + 8) * 2 ** 48 + numbers.readUIntBE(at + 9, 6),
        leaseExpiresAtMs: numbers.readUIntBE(at + 15, 6),
        putAtMs: numbers.readUIntBE(at + 21, 6),
      });
    }
    return {
      jobs,
      remaining: (flags & REMAINING) !== 0,
      pull: (flags & SIMPLE) !== 0,
      nextDueMs: dueTime(nextDue),
      outgrown: Array.from({ length: outgrown.length / 2 }, (_, i) => outgrown.readUInt16BE(2 * i) - 1),
    };
  }

  /**
   * Puts jobs that ask for nothing and hands them to these claims, which want no more of them than their count; undefined
   * when the queue is not empty, or a job's id is taken: then nothing has changed. "again": this call has run before, and
   * reserve, with its caller, number and claims, gives the jobs. The calls of a caller are numbered as there.
   */
  async handOver(
    queue: string,
    caller: string,
    call: number,
    claims: readonly Claim[],
    jobs: readonly NewJob[],
    nonce = randomInt(NONCE_LIMIT),
  ): Promise<Reservation | "again" | undefined> {
    await this.#list(queue);
    const args: ScriptArgument[] = [caller, call, nonce, packPuts(jobs)];
    for (const { count, leaseMs, workerId } of claims) args.push(count, leaseMs, workerId);
    const reply = (await this.#runner.run("hand_over", queue, args)) as number[] | 0 | 1;
    if (!Array.isArray(reply)) return reply === 1 ? "again" : undefined;
    const [remaining, nextDue = -1, nowMs = 0, firstFence = 0, ...ends] = reply;
    let handed = 0;
    const ofClaims = claims.map(({ count }, i) => {
      const leaseExpiresAtMs = ends[i] ?? 0;
      const own = jobs.slice(handed, handed + count).map(({ id, spec: bytes }, n): LeasedJob => {
        const fence = firstFence + handed + n;
        // They may be a part of a large request, which a slow worker's job would keep in memory.
        const spec = Buffer.from(bytes);
        return { queue, id, spec, attempt: 1, failures: 0, fence, leaseExpiresAtMs, putAtMs: nowMs };
      });
      handed += own.length;
      return own;
    });
    return { jobs: ofClaims, remaining: remaining === 1, pull: false, nextDueMs: dueTime(nextDue), outgrown: [] };
  }

  /**
   * Ends reservations; undefined for a lease that is lost. `announce`: another broker may keep one of them for a
   * stream, and is told.
   */
  async release(
    queue: string,
    releases: readonly Release[],
    { announce = false, chance = Math.random() } = {},
  ): Promise<(Released | undefined)[]> {
    const args = [chance, announce ? "1" : "", packReleases(releases)];
    const reply = (await this.#runner.run("release", queue, args)) as Buffer;
    return releases.map((_, i) => {
      const at = i * RELEASED_BYTES;
      const number = reply.readUInt8(at);
      const state = number === PULLED ? "GONE" : stateOf(number);
      return state && { state, runAtMs: reply.readUIntBE(at + 1, 6) || undefined };
    });
  }

  /**
   * The new ends of the leases, in ms since 1970, or why they are lost. `takeOver`: `holder` keeps them from now on;
   * `renew`: none is made shorter.
   */
  async extend(
    queue: string,
    leases: readonly KeptLease[],
    leaseMs: number,
    { takeOver = false, renew = false } = {},
  ): Promise<Extension> {
    const args: ScriptArgument[] = [leaseMs, takeOver ? "1" : renew ? "2" : ""];
    for (const { id, fence, holder } of leases) args.push(id, fence, holder ?? "");
    const [nextDue, ...numbers] = (await this.#runner.run("extend", queue, args)) as [number, ...number[]];
    const ends = takeOver ? numbers.filter((_, i) => i % 2 === 0) : numbers;
    return {
      ends: ends.map((end) => LOST_LEASES[end] ?? end),
      bytes: takeOver ? numbers.filter((_, i) => i % 2 === 1) : [],
      nextDueMs: dueTime(nextDue),
    };
  }

  /** Whether each report was stored; else its lease is lost. */
  async reportProgress(queue: string, reports: readonly ProgressReport[]): Promise<boolean[]> {
    const args = reports.flatMap(({ lease, progress }) => [lease.id, lease.fence, progress.percent, progress.note]);
    const stored = (await this.#runner.run("report_progress", queue, args)) as Buffer;
    return reports.map((_, i) => stored[i] === 1);
  }

  /** The state the job was in; undefined when there was none. */
  async delete(queue: string, id: string): Promise<JobState | undefined> {
    return stateOf((await this.#runner.run("delete", queue, [id])) as number);
  }

  /** The state the job was in, undefined when there was none; `error`: a JobError. */
  async cancel(
    queue: string,
    id: string,
    error: Uint8Array,
    eventDetail: string,
  ): Promise<{ cancelled: boolean; previous: JobState | undefined }> {
    const reply = await this.#runner.run("cancel", queue, [id, bufferOf(error), eventDetail]);
    const [previous, cancelled] = reply as [number, number];
    return { cancelled: cancelled === 1, previous: stateOf(previous) };
  }

  async get(queue: string, id: string): Promise<JobView | undefined> {
    const reply = (await this.#runner.run("get", queue, [id])) as JobReply | null;
    return reply ? jobView(queue, reply) : undefined;
  }

  /** The state of each of these jobs; undefined where there is none. */
  async states(queue: string, ids: readonly string[]): Promise<(JobState | undefined)[]> {
    const numbers = (await this.#runner.run("states", queue, ids)) as Buffer;
    return ids.map((_, i) => stateOf(numbers[i] ?? 0));
  }

  /** At most so many jobs of a state, in the order in which they stand, after a position. */
  async list(queue: string, state: JobState, most: number, after: Position | undefined): Promise<JobPage> {
    const args = [JOB_STATES[state], most, after?.score ?? "", after?.member ?? ""];
    const [score, member, ...jobs] = (await this.#runner.run("list", queue, args)) as [Buffer, Buffer, ...JobReply[]];
    const views = jobs.map((job) => jobView(queue, job));
    return { jobs: views, last: score.length > 0 ? { score: score.toString(), member } : undefined };
  }

  async retry(queue: string, ids: readonly string[]): Promise<RetryOutcome[]> {
    const reply = (await this.#runner.run("retry", queue, ["", ...ids])) as [Buffer, ...(Buffer | number)[]];
    const [verdicts, ...keepers] = reply;
    return ids.map((_, i) => {
      const verdict = verdicts[i] ?? 0;
      if (verdict === RETRIED) return { kind: "retried" };
      if (verdict === 0) return { kind: "not found" };
      if (verdict !== UNIQUE_TAKEN) return { kind: "not finished", state: knownState(verdict) };
      const [keeperId, state] = keepers.splice(0, 2) as [Buffer, number];
      return { kind: "unique conflict", state: knownState(state), keeperId: keeperId.toString() };
    });
  }

  /** Of the jobs that failed until a time, the oldest `most` after the first `skip`. */
  async retryFailed(
    queue: string,
    untilMs: number,
    skip: number,
    most: number,
  ): Promise<{ retried: number; refused: number }> {
    const reply = await this.#runner.run("retry", queue, [untilMs, skip, most]);
    const [retried, refused] = reply as [number, number];
    return { retried, refused };
  }

  /**
   * What happened after an event; undefined: only the last event is shown, if it is there. From now on events are written
   * for so long. `afterMs`: when that event happened, 0: not known. By it the script knows another one that has the number since Redis lost some.
   */
  async watch(
    queue: string,
    after: number | undefined,
    most: number,
    writeForMs: number,
    afterMs = 0,
  ): Promise<HistoryPage> {
    const reply = await this.#runner.run("watch", queue, [after ?? "", most, writeForMs, afterMs]);
    const [last, from, ...texts] = reply as [number, number, ...(number | Buffer)[]];
    const entries: HistoryEntry[] = [];
    for (let i = 0; i < texts.length; i += 2) entries.push(historyEntry(texts[i] as number, texts[i + 1] as Buffer));
    const isOther = from < 0;
    return {
      last,
      from: isOther ? last : from,
      isGap: isOther || (after !== undefined && from !== after),
      entries,
    };
  }

  /** Does what time asks for; `more`: call again at once. */
  async sweep(queue: string): Promise<Sweep> {
    const reply = (await this.#runner.run("sweep", queue, [])) as [number, number, Buffer[], Reply[]];
    const [more, nextDue, setAside, [nowMs, ...due]] = reply;
    return {
      more: more === 1,
      nextDueMs: dueTime(nextDue),
      setAside: setAside.map(String),
      nowMs: nowMs as number,
      due: dueSchedules(queue, due),
    };
  }

  /** The time that scripts see, in ms since 1970. */
  async now(): Promise<number> {
    if (this.#clock) return this.#clock();
    const [seconds = 0, microseconds = 0] = await this.#redis
      .time()
      .catch((error: unknown) => Promise.reject(asBatonError(error)));
    return Number(seconds) * 1_000 + Math.floor(Number(microseconds) / 1_000);
  }

  /** Passes a bell on to another broker that waits at this queue. */
  async ring(queue: string): Promise<void> {
    const key = queueKey(this.#namespace, queue, "wake");
    await this.#redis.lpush(key, "1").catch((error: unknown) => Promise.reject(asBatonError(error)));
  }

  /** Throws when Redis does not answer; a connection that looks alive and is not is then replaced. */
  async ping(): Promise<void> {
    try {
      await this.#redis.ping();
    } catch (error) {
      if (this.#redis.status === "ready") this.#redis.disconnect(true);
      throw asBatonError(error);
    }
  }

  /** Before a queue's first put: were it after, a crash in between would leave jobs that no sweep finds. */
  async #list(queue: string): Promise<void> {
    if (this.#listed.has(queue)) return;
    // Where memory is full, Redis refuses to write also what it has.
    if (!(await this.queues.exists(queue))) {
      await this.#redis.zadd(this.#queuesKey, 0, queue).catch((error: unknown) => Promise.reject(asBatonError(error)));
    }
    if (this.#listed.size >= MAX_LISTED_QUEUES) this.#listed.clear();
    this.#listed.add(queue);
  }
}

function historyEntry(number: number, json: Buffer): HistoryEntry {
  const { id, t, s, at, a, f, w, due, p, n } = JSON.parse(json.toString()) as {
    [K in "s" | "at" | "a" | "f" | "due"]: number;
  } & { [K in "id" | "t" | "w"]: string } & { p?: number; n?: string };
  return {
    number,
    id,
    transition: t,
    state: stateOf(s),
    atMs: at,
    attempt: a,
    failures: f,
    workerId: w,
    dueMs: due,
    progress: p === undefined ? undefined : { percent: p, note: n ?? "" },
  };
}

function dueTime(wait: number): number | undefined {
  return wait < 0 ? undefined : wait;
}
