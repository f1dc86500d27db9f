import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Contender, startContender } from "../../bench/compare/contender.ts";
import { baton } from "../../bench/systems/baton.ts";

const LOAD = { jobs: 250, batch: 100, calls: 2, payloadBytes: 200 };

describe("a client of the bench, at a real broker", () => {
  let contender: Contender;

  beforeAll(async () => {
    const signal = new AbortController().signal;
    contender = await startContender(baton, { durability: "everysec", signal });
  });

  afterAll(() => contender?.stop());

  it("puts one by one until the time is over", async () => {
    const done = await contender.do({ op: "put", queue: "put", concurrency: 4, durationMs: 100, payloadBytes: 200 });
    expect(done.jobs).toBeGreaterThan(0);
    expect(done.elapsedMs).toBeGreaterThanOrEqual(100);
    expect(done.perSecond).toBeCloseTo((done.jobs / done.elapsedMs) * 1_000);
    expect(Object.keys(done.cpu)).toEqual(["broker", "redis", "client"]);
  });

  it("takes jobs through their life cycle in several queues, also when the last batch is not full", async () => {
    const queues = ["one", "two", "three"];
    const done = await contender.do({ op: "lifeCycle", queues, streams: 2, unfinished: 150, ...LOAD });
    expect(done.jobs).toBe(LOAD.jobs);
  });

  it("drains what was put before", async () => {
    await contender.do({ op: "putMany", queues: ["drain"], ...LOAD });
    const done = await contender.do({ op: "drain", queues: ["drain"], streams: 1, jobs: LOAD.jobs });
    expect(done.jobs).toBe(LOAD.jobs);
  });

  it("drains delayed jobs when they are due, and counts the time from then", async () => {
    const dueAtMs = Date.now() + 700;
    await contender.do({ op: "putMany", queues: ["due"], dueAtMs, ...LOAD });
    const done = await contender.do({ op: "drain", queues: ["due"], streams: 1, jobs: LOAD.jobs, fromMs: dueAtMs });
    expect(done.elapsedMs).toBeGreaterThan(0);
    // A clock that counts whole milliseconds may be behind by one.
    expect(done.elapsedMs).toBeLessThanOrEqual(Date.now() + 1 - dueAtMs);
  });

  it("fails jobs, and drains them when they are due again", async () => {
    const queues = ["retries"];
    const retryAtMs = Date.now() + 1_000;
    await contender.do({ op: "putMany", queues, willFail: true, ...LOAD });
    const failed = await contender.do({ op: "drain", queues, streams: 1, jobs: LOAD.jobs, retryAtMs });
    expect(failed.jobs).toBe(LOAD.jobs);
    expect(Date.now()).toBeLessThan(retryAtMs);
    await contender.do({ op: "drain", queues, streams: 1, jobs: LOAD.jobs, fromMs: retryAtMs });
    expect(Date.now()).toBeGreaterThanOrEqual(retryAtMs);
  });

  it("tells of each job how long it took to arrive", async () => {
    const done = await contender.do({ op: "latency", queue: "latency", perSecond: 200, jobs: 40, payloadBytes: 200 });
    expect(done.latenciesMs).toHaveLength(40);
    expect(done.latenciesMs?.every((ms) => ms > 0 && ms < 10_000)).toBe(true);
    expect(done.elapsedMs).toBeGreaterThanOrEqual(195);
  });

  it("says why it cannot do an operation, and goes on", async () => {
    await expect(contender.do({ op: "clear", queues: ["one"] })).rejects.toThrow("this driver cannot clear queues");
    await expect(contender.do({ op: "putMany", queues: ["-/-"], ...LOAD })).rejects.toThrow();
    const done = await contender.do({ op: "lifeCycle", queues: ["after"], streams: 1, unfinished: 100, ...LOAD });
    expect(done.jobs).toBe(LOAD.jobs);
  });

  it("measures what its jobs cost in Redis, and that clearing removes them", async () => {
    await contender.clear();
    const empty = (await contender.redisBytes?.()) ?? 0;
    await contender.do({ op: "putMany", queues: ["memory"], ...LOAD, jobs: 2_000 });
    const full = (await contender.redisBytes?.()) ?? 0;
    expect((full - empty) / 2_000).toBeGreaterThan(LOAD.payloadBytes);
    await contender.clear();
    expect(((await contender.redisBytes?.()) ?? 0) - empty).toBeLessThan((full - empty) / 10);
  });
});
