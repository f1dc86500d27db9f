/** A store on a private Redis whose time stands still until a test moves it. */
import { Redis } from "ioredis";
import { afterAll, beforeAll } from "vitest";
import type { Lease, LeasedJob, NewJob, Outcome } from "../../src/model/job.ts";
import { type QueuePart, queueKey } from "../../src/store/keys.ts";
import { type Claim, Store, type StoreOptions } from "../../src/store/store.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";

const NAMESPACE = "timed";
export const START_MS = Date.UTC(2026, 10, 21, 12);

export type TimedStore = {
  readonly redis: Redis;
  readonly store: Store;
  /** What scripts take for the time. */
  nowMs: number;
  key(queue: string, part: QueuePart): string;
  /** With a plain claim of so many jobs, as a call of its own. */
  reserve(queue: string, count: number, claim?: Partial<Claim>): Promise<LeasedJob[]>;
  /** The same outcome for each. */
  release(leases: readonly Lease[], outcome?: Outcome): Promise<(string | undefined)[]>;
};

/** For a describe block: it starts before its tests and ends after them. */
export function timedStore(options: Partial<StoreOptions> = {}): TimedStore {
  let server: TestRedis | undefined;
  let redis: Redis | undefined;
  let store: Store | undefined;
  let calls = 0;
  const started = <T>(part: T | undefined): T => {
    if (!part) throw new Error("the store is used before its tests have begun");
    return part;
  };
  const fixture: TimedStore = {
    nowMs: START_MS,
    get redis() {
      return started(redis);
    },
    get store() {
      return started(store);
    },
    key: (queue, part) => queueKey(NAMESPACE, queue, part),
    async reserve(queue, count, claim = {}) {
      const claims = [{ count, leaseMs: 0, workerId: "worker", ...claim }];
      const { jobs } = await started(store).reserve(queue, "caller", ++calls, claims);
      return jobs.flat();
    },
    async release(leases, outcome = { kind: "completed" }) {
      const [queue = ""] = leases.map((lease) => lease.queue);
      const answers = await started(store).release(
        queue,
        leases.map((lease) => ({ lease, outcome })),
      );
      return answers.map((answer) => answer?.state);
    },
  };
  beforeAll(async () => {
    server = await startRedis();
    redis = new Redis(server.socketPath);
    store = new Store({
      redis,
      namespace: NAMESPACE,
      defaultRetentionMs: 60_000,
      deadLetterMax: 1_000,
      deadLetterAgeMs: 1_000_000,
      clock: () => fixture.nowMs,
      ...options,
    });
  });
  afterAll(async () => {
    redis?.disconnect();
    await server?.stop();
  });
  return fixture;
}

export function job(id: string, fields: Partial<NewJob> = {}): NewJob {
  return { id, spec: Buffer.from(`spec of ${id}`), priority: 0, conflict: "reject", ...fields };
}

export function ids(jobs: readonly { readonly id: string }[]): string[] {
  return jobs.map(({ id }) => id);
}

/** job-0, job-1, … */
export function manyJobs(count: number, fields: Partial<NewJob> = {}): NewJob[] {
  return Array.from({ length: count }, (_, i) => job(`job-${i}`, fields));
}

export const FAILED_FOR_GOOD: Outcome = { kind: "failed", error: Buffer.alloc(0), permanent: true, eventDetail: "" };
