import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/client.ts";
import type { ReservedJob } from "../../src/client/output.ts";
import { queueKey } from "../../src/store/keys.ts";
import { Store } from "../../src/store/store.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { type OpenStream, openStream } from "./support.ts";

describe("the hub", () => {
  let redis: TestRedis;
  let broker: TestBroker;
  let client: BatonClient;
  let other: TestBroker;
  let otherClient: BatonClient;
  let admin: Redis;
  let queue: string;
  let queues = 0;
  const streams: OpenStream[] = [];

  beforeAll(async () => {
    redis = await startRedis();
    admin = new Redis(redis.socketPath);
    broker = await startBroker({ redis, fallbackIntervalMs: 300 });
    other = await startBroker({ redis, fallbackIntervalMs: 60_000 });
    client = new BatonClient({ address: broker.address });
    otherClient = new BatonClient({ address: other.address });
  });

  afterAll(async () => {
    client.close();
    otherClient.close();
    await broker.stop();
    await other.stop();
    admin.disconnect();
    await redis.stop();
  });

  beforeEach(() => {
    queue = `q${++queues}`;
  });

  afterEach(async () => {
    await Promise.all(streams.splice(0).map((stream) => stream.cut()));
  });

  async function subscribe(input: Partial<Parameters<typeof openStream>[1]> = {}, through = client) {
    const stream = await openStream(through, { queues: [queue], maxOutstanding: 10, ...input });
    streams.push(stream);
    return stream;
  }

  const ids = (jobs: readonly ReservedJob[]) => jobs.map(({ id }) => id);
  const complete = (job: ReservedJob | undefined, through = client) =>
    through.release(job?.leaseToken ?? "", { outcome: "completed" });
  const put = (...names: string[]) => client.putMany(names.map((id) => ({ queue, id })));

  it("hands a job to a waiting stream, whichever broker it was put through", async () => {
    const stream = await subscribe();
    await client.put({ queue, id: "here" });
    await until(() => stream.jobs.length === 1, { what: "the first job" });
    await otherClient.put({ queue, id: "there" });
    await until(() => stream.jobs.length === 2, { what: "the second job" });
    expect(ids(stream.jobs)).toEqual(["here", "there"]);
  });

  it("hands out a delayed job when it is due, without anybody ringing", async () => {
    // The other broker looks by itself only once a minute, so that only the due time can be what wakes it.
    const stream = await subscribe({}, otherClient);
    await otherClient.put({ queue, id: "later", delayMs: 300 });
    await until(() => stream.jobs.length === 1, { what: "the job", withinMs: 3_000 });
  });

  it("wakes for a job that is due before the one it waits for, also when it was put through another broker", async () => {
    const stream = await subscribe({}, otherClient);
    await client.put({ queue, id: "late", delayMs: 30_000 });
    await client.put({ queue, id: "soon", delayMs: 200 });
    await until(() => stream.jobs.length === 1, { what: "the job", withinMs: 3_000 });
    expect(ids(stream.jobs)).toEqual(["soon"]);
  });

  it("finds work after the fallback interval when its bell was lost", async () => {
    const stream = await subscribe();
    await putWithoutBell("unheard");
    await until(() => stream.jobs.length === 1, { what: "the job", withinMs: 3_000 });
  });

  /** A put whose bell goes astray: the script is given another list in the place of the doorbell. */
  async function putWithoutBell(id: string): Promise<void> {
    const bell = queueKey("baton", queue, "wake");
    const astray = new Proxy(admin, {
      get(target, name) {
        if (name !== "callBuffer") return Reflect.get(target, name);
        return (...args: [string, ...string[]]) =>
          target.callBuffer(...(args.map((arg) => (arg === bell ? `${bell}:lost` : arg)) as [string, ...string[]]));
      },
    });
    const settings = { defaultRetentionMs: 1_000, deadLetterMax: 10, deadLetterAgeMs: 10_000 };
    const store = new Store({ redis: astray, namespace: "baton", ...settings });
    await store.put(queue, [{ id, spec: new Uint8Array(), priority: 0, conflict: "reject" }]);
  }

  it("serves waiting callers in the order in which they came", async () => {
    const answers: string[] = [];
    const waiting: Promise<void>[] = [];
    for (const name of ["first", "second", "third"]) {
      const call = client.reserve({ queues: [queue], waitMs: 10_000, workerId: name });
      waiting.push(call.then(([job]) => void answers.push(`${name} ${job?.id}`)));
      await until(async () => (await client.reserve({ queues: [`${queue}-other`] })).length === 0, {
        what: "its turn",
      });
    }
    for (const id of ["a", "b", "c"]) {
      await client.put({ queue, id });
      await until(() => answers.some((answer) => answer.endsWith(id)), { what: `somebody to get ${id}` });
    }
    await Promise.all(waiting);
    expect(answers).toEqual(["first a", "second b", "third c"]);
  });

  it("shares a queue's jobs among its streams in turn", async () => {
    const one = await subscribe();
    const two = await subscribe();
    for (let i = 0; i < 6; i++) {
      await client.put({ queue, id: `${i}` });
      await until(() => one.jobs.length + two.jobs.length === i + 1, { what: "the job" });
    }
    expect([one.jobs.length, two.jobs.length]).toEqual([3, 3]);
  });

  it("never has more unreleased jobs on a stream than its credit, and goes on as they are released", async () => {
    const stream = await subscribe({ maxOutstanding: 3 });
    await put("a", "b", "c", "d", "e");
    await until(() => stream.jobs.length === 3, { what: "the credit to be used up" });
    await complete(stream.jobs[0]);
    await until(() => stream.jobs.length === 4, { what: "the next job" });
    expect(ids(stream.jobs)).toEqual(["a", "b", "c", "d"]);
    expect((await client.get(queue, "e")).state).toBe("READY");
  });

  it("serves a stream that was busy again as soon as its job is released, however many others were served before", async () => {
    const busy = await subscribe({ maxOutstanding: 1 });
    await put("first");
    await until(() => busy.jobs.length === 1, { what: "the first job" });
    const idle = await subscribe({ maxOutstanding: 20 });
    for (let n = 1; n <= 20; n++) {
      await put(`other-${n}`);
      await until(() => idle.jobs.length === n, { what: `job ${n} of the others` });
    }
    await put("last");
    await complete(busy.jobs[0]);
    await until(() => busy.jobs.length === 2, { what: "the last job" });
    expect(ids(busy.jobs)).toEqual(["first", "last"]);
  });

  it("frees credit at once when the job was released through another broker", async () => {
    const stream = await subscribe({ maxOutstanding: 1 });
    await put("a", "b");
    await until(() => stream.jobs.length === 1, { what: "the first job" });
    await complete(stream.jobs[0], otherClient);
    await until(() => stream.jobs.length === 2, { what: "the second job", withinMs: 2_000 });
  });

  it("gives what a busy worker has no credit for to an idle one at another broker", async () => {
    const busy = await subscribe({ maxOutstanding: 1 });
    const idle = await subscribe({ maxOutstanding: 5 }, otherClient);
    await put("a", "b", "c", "d");
    await until(() => busy.jobs.length + idle.jobs.length === 4, { what: "all jobs", withinMs: 3_000 });
    expect(busy.jobs.length).toBeLessThanOrEqual(1);
  });

  it("tells the holder at once when its job is deleted, through whichever broker", async () => {
    const stream = await subscribe();
    await put("a", "b");
    await until(() => stream.jobs.length === 2, { what: "the jobs" });
    await client.delete(queue, "a");
    await otherClient.delete(queue, "b");
    const revoked = () => stream.events.filter(({ type }) => type === "revoked");
    await until(() => revoked().length === 2, { what: "both revocations" });
    expect(revoked()).toEqual(
      expect.arrayContaining(
        stream.jobs.map(({ leaseToken }) => ({ type: "revoked", leaseTokens: [leaseToken], reason: "DELETED" })),
      ),
    );
    await expect(complete(stream.jobs[0])).rejects.toMatchObject({ reason: "LEASE_LOST" });
  });

  it("keeps a stream's leases beyond their duration for as long as the stream lives", async () => {
    const stream = await subscribe({ leaseMs: 1_000 });
    await put("long");
    await until(() => stream.jobs.length === 1, { what: "the job" });
    const firstEnd = stream.jobs[0]?.leaseExpiresAt?.getTime() ?? 0;
    await until(
      async () => {
        const { leaseExpiresAt } = await client.get(queue, "long");
        return (leaseExpiresAt?.getTime() ?? 0) > firstEnd + 1_500;
      },
      { what: "the lease to be renewed beyond its first duration" },
    );
    expect(await complete(stream.jobs[0])).toMatchObject({ state: "COMPLETED" });
    expect(stream.events.filter(({ type }) => type === "revoked")).toEqual([]);
  });

  it("ends a job at its run_timeout although its stream lives, and says so", async () => {
    const stream = await subscribe({ leaseMs: 1_000, maxOutstanding: 1 });
    await client.put({ queue, id: "hung", runTimeoutMs: 500, retry: { maxAttempts: 1 } });
    await until(() => stream.events.some(({ type }) => type === "revoked"), { what: "the revocation" });
    expect(stream.events.at(-1)).toMatchObject({ type: "revoked", reason: "RUN_TIMEOUT" });
    expect(await client.get(queue, "hung")).toMatchObject({ state: "FAILED", failures: 1 });
  });

  it("hands the jobs of a stream that was cut to another after the grace, as a failed attempt", async () => {
    const lost = await subscribe({ disconnectGraceMs: 300, leaseMs: 60_000 });
    await put("a", "b");
    await until(() => lost.jobs.length === 2, { what: "the jobs" });
    const next = await subscribe({}, otherClient);
    await lost.cut();
    await until(() => next.jobs.length === 2, { what: "the jobs to come back", withinMs: 3_000 });
    expect(next.jobs.map(({ attempt, failures }) => ({ attempt, failures }))).toEqual([
      { attempt: 2, failures: 1 },
      { attempt: 2, failures: 1 },
    ]);
  });

  it("lets a worker whose stream was cut still release within the grace", async () => {
    const stream = await subscribe({ disconnectGraceMs: 10_000 });
    await put("a");
    await until(() => stream.jobs.length === 1, { what: "the job" });
    await stream.cut();
    expect(await complete(stream.jobs[0])).toMatchObject({ state: "COMPLETED" });
  });

  it("reserves nothing for a caller that has gone", async () => {
    const controller = new AbortController();
    const call = client.reserve({ queues: [queue], waitMs: 10_000 }, { signal: controller.signal });
    // A call on the same connection is answered after the one before it has arrived, and so has the cancellation.
    const roundTrip = () => client.delete(queue, "none");
    await roundTrip();
    controller.abort();
    await expect(call).rejects.toThrow();
    await roundTrip();
    await put("a");
    const [job] = await client.reserve({ queues: [queue], waitMs: 5_000 });
    expect(job).toMatchObject({ id: "a", attempt: 1 });
  });

  it("tells a caller when Redis is away, and hands its streams jobs again when it is back", async () => {
    const stream = await subscribe();
    await redis.kill();
    try {
      const once = client.reserve({ queues: [queue], waitMs: 5_000 }, { repeatForMs: 0 });
      await expect(once).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "STORE_UNAVAILABLE" });
    } finally {
      await redis.restart();
    }
    await until(() => client.put({ queue, id: "after" }), { what: "Redis to be back", withinMs: 10_000 });
    await until(() => stream.jobs.length === 1, { what: "the job", withinMs: 5_000 });
  });

  it("serves a lower queue only when the higher one is empty (strict)", async () => {
    const low = `${queue}-low`;
    await client.putMany(Array.from({ length: 30 }, (_, i) => ({ queue: low, id: `low-${i}` })));
    await client.putMany(Array.from({ length: 30 }, (_, i) => ({ queue, id: `high-${i}` })));
    const order: string[] = [];
    for (;;) {
      const jobs = await client.reserve({ queues: [queue, low], maxJobs: 7 });
      if (jobs.length === 0) break;
      order.push(...ids(jobs));
    }
    expect(order).toEqual([
      ...Array.from({ length: 30 }, (_, i) => `high-${i}`),
      ...Array.from({ length: 30 }, (_, i) => `low-${i}`),
    ]);
  });

  it("serves queues in proportion to their weights (weighted)", async () => {
    const names = [`${queue}-1`, `${queue}-2`, `${queue}-5`];
    for (const name of names) {
      await client.putMany(Array.from({ length: 800 }, (_, i) => ({ queue: name, id: `${i}` })));
    }
    const weights = [1, 2, 5];
    const stream = await subscribe({
      queues: names.map((name, i) => ({ name, weight: weights[i] as number })),
      policy: "WEIGHTED",
      maxOutstanding: 20,
    });
    const seen = { done: 0 };
    await until(
      async () => {
        const fresh = stream.jobs.slice(seen.done);
        seen.done += fresh.length;
        await client.releaseMany(fresh.map(({ leaseToken }) => ({ leaseToken, outcome: "completed" })));
        return stream.jobs.length >= 800;
      },
      { what: "800 jobs", withinMs: 10_000 },
    );
    const counts = names.map((name) => stream.jobs.slice(0, 800).filter((job) => job.queue === name).length);
    for (const [i, count] of counts.entries()) {
      const share = (800 * (weights[i] as number)) / 8;
      expect(count).toBeGreaterThan(share * 0.95);
      expect(count).toBeLessThan(share * 1.05);
    }
  });

  it("loses no job to a weighted Reserve that finds jobs in several queues at once", async () => {
    const names = [`${queue}-a`, `${queue}-b`];
    for (const name of names) {
      await client.putMany(Array.from({ length: 100 }, (_, i) => ({ queue: name, id: `${i}` })));
    }
    const selectors = names.map((name, i) => ({ name, weight: i + 1 }));
    const got: ReservedJob[] = [];
    for (;;) {
      const jobs = await client.reserve({ queues: selectors, policy: "WEIGHTED", maxJobs: 7 });
      if (jobs.length === 0) break;
      got.push(...jobs);
    }
    expect(new Set(got.map((job) => `${job.queue} ${job.id}`)).size).toBe(200);
    expect(got.every(({ attempt }) => attempt === 1)).toBe(true);
  });

  it("serves weighted Reserve calls in proportion, whatever the order of the queues", async () => {
    const names = [`${queue}-1`, `${queue}-9`];
    for (const name of names) {
      await client.putMany(Array.from({ length: 300 }, (_, i) => ({ queue: name, id: `${i}` })));
    }
    const selectors = [
      { name: names[0] as string, weight: 1 },
      { name: names[1] as string, weight: 9 },
    ];
    let light = 0;
    for (let i = 0; i < 300; i++) {
      const [job] = await client.reserve({ queues: selectors, policy: "WEIGHTED" });
      if (job?.queue === names[0]) light++;
    }
    // 30 are expected; more than 5 standard deviations away is once in millions.
    expect(light).toBeGreaterThan(3);
    expect(light).toBeLessThan(57);
  });

  it("uses as many Redis connections for 200 streams as for one", async () => {
    const count = async () => ((await admin.client("LIST")) as string).trim().split("\n").length;
    await subscribe();
    const before = await count();
    for (let i = 0; i < 199; i++) await subscribe({ queues: [`${queue}-${i % 40}`] });
    expect(await count()).toBe(before);
    await client.put({ queue: `${queue}-39`, id: "x" });
    await until(() => streams.some((stream) => stream.jobs.length > 0), { what: "the job" });
  });
});
