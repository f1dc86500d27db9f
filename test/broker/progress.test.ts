/** Reports of progress on their way to Redis, at two brokers. */
import { setImmediate as turn } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { LeasedJob } from "../../src/model/job.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until, within } from "../support/wait.ts";
import { completeAll, type InnerBroker, numbered, putAll, startInnerBroker } from "./inner-broker.ts";

const INTERVAL_MS = 100;

describe("reports of progress", () => {
  let redis: TestRedis;
  let first: InnerBroker;
  let second: InnerBroker;
  let queue: string;
  let count = 0;

  beforeAll(async () => {
    redis = await startRedis();
    first = await startInnerBroker({ redis, redisTimeoutMs: 300 });
    second = await startInnerBroker({ redis });
  });

  afterAll(async () => {
    await first?.stop();
    await second?.stop();
    await redis?.stop();
  });

  beforeEach(() => {
    count += 1;
    queue = `progress-${count}`;
  });

  async function reserved(howMany: number): Promise<LeasedJob[]> {
    await putAll(first.store, queue, numbered(howMany));
    const claims = [{ count: howMany, leaseMs: 60_000, workerId: "worker" }];
    return (await first.store.reserve(queue, "test", count, claims)).jobs.flat();
  }

  const report = (at: InnerBroker, lease: LeasedJob | undefined, percent: number, note = "") =>
    at.broker.jobs.reportProgress(lease as LeasedJob, { percent, note });
  const shown = async (id = "job-0") => (await first.store.get(queue, id))?.progress;

  it("of one job cost each broker no more than ten writes a second, however many there are, and all are answered", async () => {
    const [lease] = await reserved(1);
    const brokers = [first, second];
    const before = brokers.map(({ store }) => store.reports.length);
    const answers: Promise<void>[] = [];
    const beganMs = performance.now();
    for (let i = 0; performance.now() - beganMs < 10 * INTERVAL_MS; i++) {
      for (const [n, at] of brokers.entries()) answers.push(report(at, lease, i % 101, `${i} of ${n}`));
      await turn();
    }
    await Promise.all(answers);
    const tookMs = performance.now() - beganMs;
    expect(answers.length).toBeGreaterThan(200);
    for (const [n, { store }] of brokers.entries()) {
      const calls = store.reports.length - (before[n] ?? 0);
      expect(calls).toBeLessThanOrEqual(tookMs / INTERVAL_MS + 2);
      expect(calls).toBeGreaterThan(3);
    }
    // Of each broker the last one was written last.
    const lasts = brokers.map((_, n) => `${answers.length / 2 - 1} of ${n}`);
    expect(lasts).toContain((await shown())?.note);
    await report(second, lease, 77, "the very last");
    expect(await shown()).toMatchObject({ percent: 77, note: "the very last" });
  });

  it("that come alone are written at once", async () => {
    const [lease] = await reserved(1);
    await report(first, lease, 1);
    const quietSince = performance.now();
    await until(() => performance.now() - quietSince > INTERVAL_MS, { what: "the interval to be over" });
    const beganMs = performance.now();
    await report(first, lease, 2);
    expect(performance.now() - beganMs).toBeLessThan(INTERVAL_MS);
  });

  it("of very many jobs go in calls of a thousand", async () => {
    const leases = await reserved(2_500);
    const before = first.store.reports.length;
    await Promise.all(leases.map((lease, i) => report(first, lease, i % 100, lease.id)));
    expect(first.store.reports.slice(before)).toEqual([1_000, 1_000, 500]);
    expect(await shown("job-2345")).toMatchObject({ percent: 45, note: "job-2345" });
  });

  it("of a lease that is lost are refused, and of those beside it are not", async () => {
    const [gone, there] = await reserved(2);
    await completeAll(first.broker, gone ? [gone] : []);
    const both = await Promise.allSettled([report(second, gone, 5), report(second, there, 6)]);
    expect(both[0]).toMatchObject({ status: "rejected", reason: { reason: "LEASE_LOST" } });
    expect(both[1]?.status).toBe("fulfilled");
    expect(await shown("job-1")).toMatchObject({ percent: 6 });
    const pulled = { queue, id: "job-1", fence: 0 } as LeasedJob;
    await expect(report(second, pulled, 1)).rejects.toMatchObject({ reason: "LEASE_LOST" });
  });

  it("fail when Redis does not answer, and are written again when it does", async () => {
    const [lease] = await reserved(1);
    redis.pause();
    try {
      await expect(report(first, lease, 1)).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE" });
    } finally {
      redis.resume();
    }
    await until(() => report(first, lease, 2).then(() => true), { what: "Redis to be back" });
    expect(await shown()).toMatchObject({ percent: 2 });
  });

  it("that wait when a broker stops are still written", async () => {
    const [lease] = await reserved(1);
    const third = await startInnerBroker({ redis });
    await report(third, lease, 10);
    const last = report(third, lease, 20);
    await third.stop();
    await within(last, { what: "its answer" });
    expect(await shown()).toMatchObject({ percent: 20 });
  });
});
