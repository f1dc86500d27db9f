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
  type Outcome,
  type PutOutcome,
  type Released,
  type RetryPolicy,
} from "../model/job.ts";
import { type JobState, stateOf } from "../model/states.ts";
import { queueKey, queuesKey } from "./keys.ts";
import { asBatonError, type Reply, type ScriptArgument, ScriptRunner } from "./script-runner.ts";

export type StoreOptions = {
  readonly redis: Redis;
  readonly namespace: string;
  readonly defaultRetentionMs: number;
  readonly deadLetterMax: number;
  readonly deadLetterAgeMs: number;
  /** For tests: the time that scripts see, in ms. */
  readonly clock?: () => number;
};

/** A caller's wish in a reserve: up to `count` jobs. `leaseMs` 0: as the job says. */
export type Claim = { readonly count: number; readonly leaseMs: number; readonly workerId: string };

export type Reservation = {
  /** For each claim the jobs it got. */
  readonly jobs: readonly LeasedJob[][];
  /** Jobs were left READY. */
  readonly remaining: boolean;
  /** Until something is due; undefined when nothing waits for a time. */
  readonly nextDueMs: number | undefined;
};

/** lua/reserve.lua and lua/release.lua pack numbers: a reply of many integers costs much more, there and here. */
const RESERVED_JOB_BYTES = 27;
const RELEASED_BYTES = 7;
/** lua/put.lua */
const PUT_VERDICTS = ["conflict", "kept", "created"] as const;
const NONCE_LIMIT = 2 ** 32;
/** As many queue names as a broker remembers to have listed; beyond that it lists them again, which does no harm. */
const MAX_LISTED_QUEUES = 10_000;
/** Queue names read in one SSCAN. */
const SCAN_COUNT = 500;

export type Extension = {
  readonly ends: readonly (number | "EXPIRED" | "RUN_TIMEOUT")[];
  readonly nextDueMs: number | undefined;
};

export class Store {
  readonly #redis: Redis;
  readonly #runner: ScriptRunner;
  readonly #namespace: string;
  readonly #queuesKey: string;
  readonly #listed = new Set<string>();

  constructor({ redis, namespace, clock, ...defaults }: StoreOptions) {
    this.#redis = redis;
    this.#namespace = namespace;
    this.#queuesKey = queuesKey(namespace);
    this.#runner = new ScriptRunner({
      redis,
      namespace,
      clock,
      defaults: {
        retention: defaults.defaultRetentionMs,
        lease: DEFAULT_LEASE_MS,
        retry: retryFields(DEFAULT_RETRY),
        dead_letter_max: defaults.deadLetterMax,
        dead_letter_age: defaults.deadLetterAgeMs,
      },
    });
  }

  /** In one step, in the order of `jobs`; an outcome for each. */
  async put(queue: string, jobs: readonly NewJob[], nonce = randomInt(NONCE_LIMIT)): Promise<PutOutcome[]> {
    await this.#list(queue);
    const args: ScriptArgument[] = [nonce];
    for (const job of jobs) args.push(job.id, bufferOf(job.spec), putOptions(job));
    const reply = (await this.#runner.run("put", queue, args)) as Buffer;
    return jobs.map((_, i) => {
      const kind = PUT_VERDICTS[reply[2 * i] ?? 0] ?? "conflict";
      return { kind, state: knownState(reply[2 * i + 1]) };
    });
  }

  /**
   * Serves the claims one after the other. `call` must be new for each call whose predecessor was answered; a call
   * that failed is repeated with its number and claims, and gets what the first may already have reserved.
   */
  async reserve(queue: string, caller: string, call: number, claims: readonly Claim[]): Promise<Reservation> {
    const args: ScriptArgument[] = [caller, call];
    for (const { count, leaseMs, workerId } of claims) args.push(count, leaseMs, workerId);
    const [remain, nextDue, numbers, ...texts] = (await this.#runner.run("reserve", queue, args)) as [
      number,
      number,
      Buffer,
      ...Buffer[],
    ];
    const jobs: LeasedJob[][] = claims.map(() => []);
    for (let i = 0; i < texts.length / 2; i++) {
      const at = i * RESERVED_JOB_BYTES;
      jobs[numbers.readUInt16BE(at) - 1]?.push({
        queue,
        id: (texts[2 * i] as Buffer).toString(),
        spec: texts[2 * i + 1] as Buffer,
        attempt: numbers.readUInt32BE(at + 2),
        failures: numbers.readUInt16BE(at + 6),
        // 7 bytes, of which Node reads at most 6 at once.
        fence: numbers.readUInt8(at + 8) * 2 ** 48 + numbers.readUIntBE(at + 9, 6),
        leaseExpiresAtMs: numbers.readUIntBE(at + 15, 6),
        putAtMs: numbers.readUIntBE(at + 21, 6),
      });
    }
    return { jobs, remaining: remain === 1, nextDueMs: dueTime(nextDue) };
  }

  /**
   * Ends reservations; undefined for a lease that is lost. `announce`: another broker may keep one of them for a
   * stream, and is told.
   */
  async release(
    queue: string,
    releases: readonly { readonly lease: Lease; readonly outcome: Outcome }[],
    { announce = false, chance = Math.random() } = {},
  ): Promise<(Released | undefined)[]> {
    const args: ScriptArgument[] = [chance, announce ? "1" : ""];
    for (const { lease, outcome } of releases) args.push(lease.id, lease.fence, ...releaseFields(outcome));
    const reply = (await this.#runner.run("release", queue, args)) as Buffer;
    return releases.map((_, i) => {
      const at = i * RELEASED_BYTES;
      const state = stateOf(reply.readUInt8(at));
      return state && { state, runAtMs: reply.readUIntBE(at + 1, 6) || undefined };
    });
  }

  /** The new ends of the leases, in ms since 1970, or why they are lost. */
  async extend(queue: string, leases: readonly Lease[], leaseMs: number): Promise<Extension> {
    const args: ScriptArgument[] = [leaseMs];
    for (const { id, fence } of leases) args.push(id, fence);
    const [nextDue, ...ends] = (await this.#runner.run("extend", queue, args)) as [number, ...number[]];
    return {
      ends: ends.map((end) => (end === 0 ? "EXPIRED" : end === 1 ? "RUN_TIMEOUT" : end)),
      nextDueMs: dueTime(nextDue),
    };
  }

  /** The state the job was in; undefined when there was none. */
  async delete(queue: string, id: string): Promise<JobState | undefined> {
    return stateOf((await this.#runner.run("delete", queue, [id])) as number);
  }

  async get(queue: string, id: string): Promise<JobView | undefined> {
    const reply = (await this.#runner.run("get", queue, [id])) as Reply[] | null;
    if (!reply) return undefined;
    const [spec, outcome, state, attempt, failures, atMs, putAtMs, worker, reservedAtMs, finishedAtMs, reason] =
      reply as [Buffer, Buffer | null, number, number, number, number, number, Buffer | null, number, number, number];
    return {
      spec,
      outcome: outcome ?? undefined,
      state: knownState(state),
      attempt,
      failures,
      atMs,
      putAtMs,
      workerId: worker?.toString() ?? "",
      reservedAtMs,
      finishedAtMs,
      reason,
    };
  }

  /** Does what time asks for; `more`: call again at once. */
  async sweep(queue: string): Promise<{ more: boolean; nextDueMs: number | undefined }> {
    const [more, nextDue] = (await this.#runner.run("sweep", queue, [])) as [number, number];
    return { more: more === 1, nextDueMs: dueTime(nextDue) };
  }

  /** Passes a bell on to another broker that waits at this queue. */
  async ring(queue: string): Promise<void> {
    const key = queueKey(this.#namespace, queue, "wake");
    await this.#redis.lpush(key, "1").catch((error: unknown) => Promise.reject(asBatonError(error)));
  }

  /** The names of all queues that ever had a job, in pieces; a name may come twice. */
  async *queues(): AsyncGenerator<string[]> {
    let cursor = "0";
    do {
      const [next, names] = await this.#redis
        .sscan(this.#queuesKey, cursor, "COUNT", SCAN_COUNT)
        .catch((error: unknown) => Promise.reject(asBatonError(error)));
      cursor = next;
      yield names;
    } while (cursor !== "0");
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
    await this.#redis.sadd(this.#queuesKey, queue).catch((error: unknown) => Promise.reject(asBatonError(error)));
    if (this.#listed.size >= MAX_LISTED_QUEUES) this.#listed.clear();
    this.#listed.add(queue);
  }
}

/** The same bytes, not a copy. */
function bufferOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

function knownState(number: number | undefined): JobState {
  const state = stateOf(number ?? 0);
  if (!state) throw new Error(`a script answered with state ${number}`);
  return state;
}

function dueTime(wait: number): number | undefined {
  return wait < 0 ? undefined : wait;
}

/** The order of lua/lib/job.lua's R_…. */
function retryFields(retry: RetryPolicy): readonly number[] {
  return [retry.maxAttempts, retry.initialBackoffMs, retry.maxBackoffMs, retry.multiplier, retry.jitter];
}

/** A plain job costs no JSON. */
function putOptions(job: NewJob): string {
  const { priority, delayMs, runAtMs, conflict, leaseMs, runTimeoutMs, retentionMs, expiresInMs, retry } = job;
  // The order of lua/lib/job.lua's P_…; false: not set.
  const policy = [leaseMs, runTimeoutMs, retentionMs, expiresInMs, retry && retryFields(retry)].map((x) => x ?? false);
  const hasPolicy = policy.some((field) => field !== false);
  if (priority === 0 && !delayMs && !runAtMs && conflict === "reject" && !hasPolicy) return "";
  return JSON.stringify({
    priority,
    delay: delayMs,
    run_at: runAtMs,
    conflict,
    policy: hasPolicy ? policy : undefined,
  });
}

/** outcome, wait, bytes, event detail: lua/release.lua. */
function releaseFields(outcome: Outcome): [string, string, string | Buffer, string] {
  switch (outcome.kind) {
    case "completed":
      return ["completed", "", outcome.result ? bufferOf(outcome.result) : "", outcome.eventDetail ?? ""];
    case "failed":
      return [
        outcome.permanent ? "buried" : "failed",
        outcome.retryAfterMs?.toFixed(0) ?? "",
        bufferOf(outcome.error),
        outcome.eventDetail,
      ];
    case "returned":
      return ["returned", outcome.delayMs.toFixed(0), "", ""];
    case "undelivered":
      return ["undelivered", "0", "", ""];
  }
}
