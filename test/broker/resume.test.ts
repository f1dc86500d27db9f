/** A worker that lost its stream and takes its jobs along to another, at this broker or at another one. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/client.ts";
import type { ReservedJob } from "../../src/client/output.ts";
import { Worker } from "../../src/client/worker.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/wait.ts";
import { type OpenStream, openStream } from "./support.ts";

describe("a worker that resumes its jobs", () => {
  let redis: TestRedis;
  let brokers: [TestBroker, TestBroker];
  let clients: [BatonClient, BatonClient];
  /** Before the first broker. */
  let proxy: TcpProxy;
  let proxied: BatonClient;
  let queue: string;
  let count = 0;
  const streams: OpenStream[] = [];

  beforeAll(async () => {
    redis = await startRedis();
    brokers = [await startBroker({ redis, sweepIntervalMs: 100 }), await startBroker({ redis, sweepIntervalMs: 100 })];
    clients = [new BatonClient({ address: brokers[0].address }), new BatonClient({ address: brokers[1].address })];
  });

  afterAll(async () => {
    for (const client of clients) client.close();
    for (const broker of brokers) await broker.stop();
    await redis.stop();
  });

  beforeEach(async () => {
    count += 1;
    queue = `q${count}`;
    proxy = await startTcpProxy(brokers[0].address);
    proxied = new BatonClient({ address: `127.0.0.1:${proxy.port}` });
  });

  afterEach(async () => {
    await Promise.all(streams.splice(0).map((stream) => stream.cut()));
    proxied.close();
    await proxy.stop();
  });

  async function subscribe(through: BatonClient, input: Partial<Parameters<typeof openStream>[1]> = {}) {
    const common = { queues: [queue], maxOutstanding: 10, workerId: `worker-of-${queue}` };
    const stream = await openStream(through, { ...common, ...input });
    streams.push(stream);
    return stream;
  }

  async function withJobs(through: BatonClient, howMany: number, input: Parameters<typeof subscribe>[1] = {}) {
    const stream = await subscribe(through, { maxOutstanding: howMany, ...input });
    await clients[0].putMany(Array.from({ length: howMany }, (_, i) => ({ queue, id: `${i}` })));
    await until(() => stream.jobs.length === howMany, { what: "the jobs" });
    return stream;
  }

  const tokens = (jobs: readonly ReservedJob[]) => jobs.map(({ leaseToken }) => leaseToken);
  const revoked = (stream: OpenStream) =>
    stream.events.flatMap((event) => (event.type === "revoked" ? event.leaseTokens : []));
  const leaseEnd = async (id = "0") => (await clients[0].get(queue, id)).leaseExpiresAt?.getTime() ?? 0;
  const streamsListed = async () => {
    const { items } = await clients[1].queues.workers({ queue });
    return items.filter(({ streaming }) => streaming).length;
  };

  it.each([
    { where: "the same broker", other: 0 },
    { where: "another broker", other: 1 },
  ] as const)("keeps them at $where, also when the old connection dies only later", async ({ other }) => {
    const old = await withJobs(proxied, 2, { leaseMs: 2_000, disconnectGraceMs: 0 });
    // Half open: what goes over it is lost, and nobody is told.
    proxy.lose("requests");
    proxy.lose("replies");
    const resumeLeaseTokens = tokens(old.jobs);
    const stream = await subscribe(clients[other], { leaseMs: 3_000, disconnectGraceMs: 0, resumeLeaseTokens });
    await until(async () => (await streamsListed()) === 2, { what: "both streams to be listed" });
    proxy.cut();
    await until(async () => (await streamsListed()) === 1, { what: "the old broker to notice" });
    // The old stream would have ended the leases at once, had they still been its own; the new one renews them.
    const end = await leaseEnd();
    await until(async () => (await leaseEnd()) > end + 1_000, { what: "a renewal", withinMs: 10_000 });
    for (const id of ["0", "1"]) {
      expect(await clients[0].get(queue, id)).toMatchObject({ state: "RESERVED", attempt: 1, failures: 0 });
    }
    expect(revoked(stream)).toEqual([]);
    const released = await clients[other].releaseMany(
      old.jobs.map(({ leaseToken }) => ({ leaseToken, outcome: "completed" })),
    );
    expect(released.map(({ ok }) => ok)).toEqual([true, true]);
  });

  it("is not disturbed by the renewals of the old stream, which lets go of the leases", async () => {
    const old = await withJobs(clients[0], 1, { leaseMs: 600_000 });
    await subscribe(clients[1], { leaseMs: 1_000, resumeLeaseTokens: tokens(old.jobs), maxOutstanding: 1 });
    // The old stream has its credit back, so it has let go, and says nothing to its worker.
    await clients[0].put({ queue, id: "next" });
    await until(() => old.jobs.length === 2, { what: "the next job on the old stream" });
    expect(revoked(old)).toEqual([]);
    const end = await leaseEnd();
    expect(end - (await leaseEnd("next"))).toBeLessThan(-500_000);
    await until(async () => (await leaseEnd()) > end, { what: "a renewal by the new stream" });
    expect((await leaseEnd()) - end).toBeLessThan(5_000);
  });

  it("counts them to the credit of the new stream, and hears of it when one is cancelled or deleted", async () => {
    const old = await withJobs(proxied, 3);
    proxy.cut();
    const [cancelled, deleted, completed] = tokens(old.jobs) as [string, string, string];
    const stream = await subscribe(clients[1], {
      maxOutstanding: 3,
      resumeLeaseTokens: [cancelled, deleted, completed, cancelled],
    });
    await clients[0].put({ queue, id: "next" });
    const [job] = await clients[0].reserve({ queues: [queue], waitMs: 2_000 });
    expect(job?.id).toBe("next");
    await clients[0].release(job?.leaseToken ?? "", { outcome: "returned" });
    await clients[0].cancel(queue, "0");
    await until(() => revoked(stream).includes(cancelled), { what: "the cancellation" });
    await until(() => stream.jobs.length === 1, { what: "the next job" });
    await clients[0].delete(queue, "1");
    await until(() => revoked(stream).includes(deleted), { what: "the deletion" });
    expect(await clients[0].release(completed, { outcome: "completed" })).toMatchObject({ state: "COMPLETED" });
    await clients[0].putMany([
      { queue, id: "4" },
      { queue, id: "5" },
    ]);
    await until(() => stream.jobs.length === 3, { what: "as many jobs as there is credit" });
    expect(revoked(stream)).toEqual([cancelled, deleted]);
  });

  it("is told at once of those that are lost already: expired, released, taken by others, or never there", async () => {
    await clients[0].put({ queue, id: "expired" });
    const [expired] = await clients[0].reserve({ queues: [queue], leaseMs: 100 });
    await until(async () => (await clients[0].get(queue, "expired")).state === "READY", { what: "the expiry" });
    const [taken] = await clients[0].reserve({ queues: [queue], leaseMs: 60_000 });
    await clients[0].put({ queue, id: "released" });
    const [released] = await clients[0].reserve({ queues: [queue], leaseMs: 60_000 });
    await clients[0].release(released?.leaseToken ?? "", { outcome: "completed" });
    const lost = [expired?.leaseToken ?? "", released?.leaseToken ?? "", `baton/${queue}/1/nothing`];
    const stream = await subscribe(clients[1], { resumeLeaseTokens: [...lost, taken?.leaseToken ?? ""] });
    await until(() => revoked(stream).length === 3, { what: "three revocations" });
    expect(revoked(stream).sort()).toEqual([...lost].sort());
    expect(stream.events[0]?.type).toBe("started");
    expect(stream.events.every((event) => event.type !== "revoked" || event.reason === "EXPIRED")).toBe(true);
  });

  it("can move on from stream to stream, back to where it began, and the last one's end counts", async () => {
    let stream = await withJobs(clients[0], 1, { leaseMs: 600_000, disconnectGraceMs: 600_000 });
    const resumeLeaseTokens = tokens(stream.jobs);
    const before: OpenStream[] = [];
    for (const n of [1, 0, 0, 1, 0] as const) {
      before.push(stream);
      stream = await subscribe(clients[n], { leaseMs: 600_000, disconnectGraceMs: 0, resumeLeaseTokens });
    }
    for (const old of before) await old.cut();
    await until(async () => (await streamsListed()) === 1, { what: "the old streams to be gone" });
    expect(await clients[0].get(queue, "0")).toMatchObject({ state: "RESERVED", attempt: 1 });
    await stream.cut();
    await until(async () => (await clients[0].get(queue, "0")).state === "READY", { what: "the job to come back" });
    expect(await clients[0].get(queue, "0")).toMatchObject({ attempt: 1, failures: 1 });
  });

  it("runs nothing twice, however often its connection breaks, as the TypeScript worker does it", async () => {
    const ids = Array.from({ length: 60 }, (_, i) => `${i}`);
    const runs = new Map<string, number>();
    const aborted: string[] = [];
    const worker = new Worker(proxied, {
      queues: [queue],
      concurrency: 6,
      leaseMs: 2_000,
      disconnectGraceMs: 1_500,
      maxReconnectDelayMs: 100,
      onError: () => {},
      handler: async ({ id }, { signal }) => {
        runs.set(id, (runs.get(id) ?? 0) + 1);
        const end = performance.now() + 150;
        await until(() => performance.now() >= end, { what: "the work to be done" });
        if (signal.aborted) aborted.push(id);
      },
    });
    try {
      await worker.start();
      await clients[1].putMany(ids.map((id) => ({ queue, id })));
      for (let breaks = 1; breaks <= 5; breaks++) {
        await until(() => runs.size >= breaks * 10, { what: "some of the work" });
        proxy.cut();
      }
      const isDone = async () => (await clients[1].queues.get(queue)).counts.completed === ids.length;
      await until(isDone, { what: "all jobs to be completed", withinMs: 20_000 });
    } finally {
      await worker.stop({ timeoutMs: 0 });
    }
    expect([...runs.values()].filter((times) => times > 1)).toEqual([]);
    expect(aborted).toEqual([]);
  }, 40_000);
});
