/** Jobs that come while a worker waits go to it in the same step: what is asked of Redis, and what a lost answer costs. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Subscription } from "../../src/broker/subscription.ts";
import { storeUnavailable } from "../../src/model/errors.ts";
import type { LeasedJob, NewJob } from "../../src/model/job.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { type InnerBroker, startInnerBroker, streamAt } from "./inner-broker.ts";

describe("a put while a worker waits", () => {
  let redis: TestRedis;
  let inner: InnerBroker;
  let queue: string;
  let queues = 0;
  const streams: Subscription[] = [];

  beforeAll(async () => {
    redis = await startRedis();
    // Nothing comes by the fallback's clock.
    inner = await startInnerBroker({ redis, fallbackIntervalMs: 60_000 });
  });

  afterAll(async () => {
    await inner.stop();
    await redis.stop();
  });

  beforeEach(() => {
    queue = `q${++queues}`;
  });

  afterEach(() => {
    for (const stream of streams.splice(0)) stream.close();
  });

  /** A worker at the queue, once that is known to be empty; what it is given. */
  async function waiting(options: Parameters<typeof streamAt>[1] = {}): Promise<LeasedJob[]> {
    const calls = inner.store.claims.length;
    const stream = inner.broker.subscribe(streamAt(queue, options));
    streams.push(stream);
    const jobs: LeasedJob[] = [];
    void (async () => {
      for (let event = await stream.next(); event; event = await stream.next()) {
        if (event.kind === "jobs") jobs.push(...event.jobs);
      }
    })();
    await until(() => inner.store.claims.length > calls, { what: "the queue to be looked into" });
    await inner.store.get(queue, "nothing");
    return jobs;
  }

  const job = (id: string, fields: Partial<NewJob> = {}): NewJob => {
    return { id, spec: Buffer.from(`spec of ${id}`), priority: 0, conflict: "reject", ...fields };
  };
  const put = (...jobs: readonly NewJob[]) => inner.broker.jobs.put(jobs.map((one) => ({ queue, job: one })));
  const ids = (jobs: readonly LeasedJob[]) => jobs.map(({ id }) => id);

  it("hands its jobs over without another call, as they would be by one", async () => {
    const jobs = await waiting({ credit: { maxOutstanding: 5, maxBytes: 0 } });
    const calls = inner.store.claims.length;
    const answers = await put(job("a"), job("b"));
    expect(answers).toEqual(["a", "b"].map((id) => ({ ok: { id, created: true, state: "READY" } })));
    await until(() => jobs.length === 2, { what: "the jobs" });
    expect(inner.store.claims.length).toBe(calls);
    expect(jobs[0]).toMatchObject({ queue, id: "a", attempt: 1, failures: 0 });
    expect(Buffer.from(jobs[0]?.spec ?? []).toString()).toBe("spec of a");
    const stored = await inner.store.get(queue, "a");
    expect(stored).toMatchObject({ state: "RESERVED", attempt: 1, atMs: jobs[0]?.leaseExpiresAtMs });
    const released = await inner.broker.jobs.release(jobs.map((lease) => ({ lease, outcome: { kind: "completed" } })));
    expect(released).toEqual([{ ok: { state: "COMPLETED" } }, { ok: { state: "COMPLETED" } }]);
  });

  it("leaves what the worker has no room for to whoever comes next", async () => {
    const jobs = await waiting({ credit: { maxOutstanding: 2, maxBytes: 0 } });
    await put(job("a"), job("b"), job("c"));
    await until(() => jobs.length === 2, { what: "two jobs" });
    expect((await inner.store.get(queue, "c"))?.state).toBe("READY");
    const others = await waiting();
    await until(() => others.length === 1, { what: "the third" });
  });

  it.each([
    { what: "a priority", odd: { priority: 1 } },
    { what: "a concurrency key", odd: { concurrency: { key: "key", limit: 1 } } },
    { what: "a retention", odd: { retentionMs: 1_000 } },
  ])("goes the usual way with $what", async ({ odd }) => {
    const jobs = await waiting();
    const calls = inner.store.claims.length;
    await put(job("odd", odd));
    await until(() => jobs.length === 1, { what: "the job" });
    expect(inner.store.claims.length).toBeGreaterThan(calls);
  });

  it("goes the usual way when an id is taken, and says so", async () => {
    const jobs = await waiting();
    await put(job("a"));
    await until(() => jobs.length === 1, { what: "the first" });
    const [taken, other] = await put(job("a"), job("b"));
    expect(taken).toMatchObject({ error: { reason: "JOB_EXISTS" } });
    expect(other).toEqual({ ok: { id: "b", created: true, state: "READY" } });
    await until(() => jobs.length === 2, { what: "the second" });
    expect(ids(jobs)).toEqual(["a", "b"]);
  });

  it("whose answer is lost fails, but its jobs reach the worker, once", async () => {
    const jobs = await waiting();
    const { store } = inner;
    const handOver = store.handOver.bind(store);
    store.handOver = async (...args) => {
      await handOver(...args);
      throw storeUnavailable();
    };
    try {
      expect(await put(job("a"), job("b"))).toMatchObject([{ error: { code: "UNAVAILABLE" } }, { error: {} }]);
    } finally {
      store.handOver = handOver;
    }
    await until(() => jobs.length === 2, { what: "the jobs" });
    await put(job("c"));
    await until(() => jobs.length >= 3, { what: "the next one" });
    expect(ids(jobs)).toEqual(["a", "b", "c"]);
    expect(jobs.map(({ attempt }) => attempt)).toEqual([1, 1, 1]);
  });

  it("is handed to the worker, whatever number of puts comes at once", async () => {
    const jobs = await waiting({ credit: { maxOutstanding: 5_000, maxBytes: 0 } });
    const names = Array.from({ length: 30 }, (_, i) => Array.from({ length: 100 }, (__, n) => `${i}-${n}`));
    await Promise.all(names.map((some) => put(...some.map((id) => job(id)))));
    await until(() => jobs.length >= 3_000, { what: "all jobs" });
    expect(new Set(ids(jobs))).toEqual(new Set(names.flat()));
    expect(jobs).toHaveLength(3_000);
  });
});
