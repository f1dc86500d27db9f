/** How many bytes a stream may have unreleased: what max_outstanding_bytes promises, over real gRPC. */
import { Client, credentials } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { ReservedJob } from "../../gen/baton/v1/job_pb.js";
import { QueuePolicy } from "../../gen/baton/v1/job_service_pb.js";
import { startBroker } from "../support/broker.ts";
import { until } from "../support/wait.ts";
import { WorkStream } from "../support/work-stream.ts";
import { type Fixture, ms, startFixture } from "./fixture.ts";
import { RawClient } from "./raw-client.ts";

const KIB = 1024;
/** The least that these settings allow: 512 KiB for what a job has beside its payload, and the payload. */
const SETTINGS = { maxPayloadBytes: 512 * KIB, maxHeaderBytes: 64 * KIB };
const LIMIT = 1024 * KIB;

let fixture: Fixture;
let queue: string;
let count = 0;
const streams: WorkStream[] = [];

beforeAll(async () => {
  fixture = await startFixture(SETTINGS);
});

afterAll(() => fixture?.stop());

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
});

type Start = Parameters<typeof WorkStream.open>[1];

async function opened(start: Start = {}, address = fixture.broker.address): Promise<WorkStream> {
  const limits = { maxOutstanding: 100, maxOutstandingBytes: BigInt(LIMIT) };
  const stream = await WorkStream.open(address, { queues: [{ name: queue }], ...limits, ...start });
  streams.push(stream);
  return stream;
}

function put(id: string, bytes: number, to = queue, client = fixture.client) {
  return client.good("put", { queue: to, id, payload: { content: { case: "data", value: new Uint8Array(bytes) } } });
}

function bytesOf({ payload }: ReservedJob): number {
  return payload?.content.case === "data" ? payload.content.value.length : 0;
}

/** The most bytes that were unreleased at once, as the worker saw them, while it ran so many jobs one by one. */
async function runAll(stream: WorkStream, howMany: number, from = 0): Promise<number> {
  let most = 0;
  for (let done = from; done < howMany; done++) {
    const jobs = await stream.got(done + 1);
    most = Math.max(
      most,
      jobs.slice(done).reduce((sum, job) => sum + bytesOf(job), 0),
    );
    await stream.answered(stream.complete(jobs[done] as ReservedJob));
  }
  return most;
}

/** Until the broker has heard what was said so far: it answers this one without Redis. */
async function heard(stream: WorkStream): Promise<void> {
  const sequence = 1_000_000 + stream.released().size;
  stream.send({ releases: [{ leaseToken: "none", sequence }] });
  await stream.answered([sequence]);
}

/** How many scripts Redis has run. */
async function scriptCalls(): Promise<number> {
  const stats = await fixture.redis.info("commandstats");
  return [...stats.matchAll(/cmdstat_(?:evalsha|fcall):calls=(\d+)/g)].reduce(
    (sum, [, calls]) => sum + Number(calls),
    0,
  );
}

describe("max_outstanding_bytes", () => {
  it.each([
    { name: "strict", policy: QueuePolicy.STRICT },
    { name: "weighted", policy: QueuePolicy.WEIGHTED },
  ])("is never exceeded with several queues, $name, and each queue keeps its order", async ({ policy }) => {
    const queues = ["a", "b", "c"].map((suffix) => ({ name: `${queue}-${suffix}`, weight: 1 }));
    const sizes = [400, 10, 300, 500, 200, 1, 450, 512];
    for (const [i, size] of sizes.entries()) for (const { name } of queues) await put(`${i}`, size * KIB, name);
    const stream = await opened({ queues, policy });
    expect(await runAll(stream, sizes.length * queues.length)).toBeLessThanOrEqual(LIMIT);
    for (const { name } of queues) {
      const ids = stream.jobs().flatMap((job) => (job.queue === name ? [job.id] : []));
      expect(ids).toEqual(sizes.map((_, i) => `${i}`));
    }
  });

  it("counts the jobs that the worker brought along", async () => {
    for (const id of ["1", "2", "3"]) await put(id, 400 * KIB);
    const first = await opened({ disconnectGrace: ms(5_000) });
    const held = await first.got(2);
    first.close();
    const resumeLeaseTokens = held.map(({ leaseToken }) => leaseToken);
    const second = await opened({ resumeLeaseTokens });
    await put("small", 10);
    expect(second.jobs()).toEqual([]);
    await second.answered(second.complete(held[0] as ReservedJob));
    expect((await second.got(2)).map(({ id }) => id)).toEqual(["3", "small"]);
  });

  it("lets a job through alone that was put when larger ones were allowed", async () => {
    const generous = await startBroker({ redis: fixture.broker.redis, maxPayloadBytes: 3 * 1024 * KIB });
    const client = new RawClient(generous.address);
    await put("first", 10);
    await put("huge", 2 * LIMIT, queue, client);
    await put("last", 10);
    client.close();
    const stream = await opened();
    expect((await stream.got(1)).map(({ id }) => id)).toEqual(["first"]);
    await stream.answered(stream.complete(stream.jobs()[0] as ReservedJob));
    expect((await stream.got(2)).map(({ id }) => id)).toEqual(["first", "huge"]);
    await stream.answered(stream.complete(stream.jobs()[1] as ReservedJob));
    await stream.got(3);
    await generous.stop();
  });

  it.each([
    { name: "released", end: (stream: WorkStream, job: ReservedJob) => stream.complete(job) },
    { name: "deleted", end: (_: WorkStream, { id }: ReservedJob) => fixture.client.good("delete", { queue, id }) },
    { name: "cancelled", end: (_: WorkStream, { id }: ReservedJob) => fixture.client.good("cancel", { queue, id }) },
  ])("keeps Redis idle while the next job does not fit, and goes on when one is $name", async ({ end }) => {
    for (const id of ["1", "2", "3"]) await put(id, 500 * KIB);
    const stream = await opened();
    const [job] = await stream.got(2);
    const before = await scriptCalls();
    const began = performance.now();
    await until(async () => performance.now() - began > 1_500, { what: "some time to pass" });
    expect((await scriptCalls()) - before).toBeLessThan(20);
    expect(stream.jobs()).toHaveLength(2);
    await end(stream, job as ReservedJob);
    await stream.got(3);
  });

  it("goes on when a job's run timeout is over", async () => {
    const value = new Uint8Array(500 * KIB);
    const payload = { content: { case: "data", value } } as const;
    await fixture.client.good("put", { queue, id: "slow", runTimeout: ms(300), retry: { maxAttempts: 1 }, payload });
    for (const id of ["2", "3"]) await put(id, 500 * KIB);
    const stream = await opened();
    expect((await stream.got(3)).map(({ id }) => id)).toEqual(["slow", "2", "3"]);
  });

  it.each([
    { name: "taken by another worker", go: () => opened({ maxOutstanding: 1 }) },
    { name: "deleted", go: () => fixture.client.good("delete", { queue, id: "large" }) },
  ])("does not stand in the way of smaller jobs once the one that did not fit was $name", async ({ go }) => {
    await put("held", 500 * KIB);
    await put("small", 100 * KIB);
    await put("large", 512 * KIB);
    const stream = await opened();
    await stream.got(2);
    await go();
    await put("next", 10);
    expect((await stream.got(3)).map(({ id }) => id)).toEqual(["held", "small", "next"]);
  });

  it("is kept when it shrinks while jobs are on their way", async () => {
    for (const id of ["1", "2", "3"]) await put(id, 500 * KIB);
    const stream = await opened();
    stream.send({ credit: { maxOutstanding: 0 } });
    await heard(stream);
    await stream.answered(stream.complete(...stream.jobs()));
    for (const id of ["4", "5", "6"]) await put(id, 500 * KIB);
    const before = stream.jobs().length;
    fixture.broker.redis.pause();
    try {
      stream.send({ credit: { maxOutstanding: 100, maxOutstandingBytes: 0n } });
      stream.send({ credit: { maxOutstanding: 100, maxOutstandingBytes: BigInt(LIMIT) } });
      await heard(stream);
    } finally {
      fixture.broker.redis.resume();
    }
    await stream.got(before + 2);
    expect(await runAll(stream, 6, before)).toBeLessThanOrEqual(LIMIT);
    expect(stream.jobs().every(({ attempt }) => attempt === 1)).toBe(true);
  });

  it("given as credit, holds from then on; what is there already stays, and 0 lifts it", async () => {
    for (let i = 0; i < 6; i++) await put(`${i}`, 400 * KIB);
    const stream = await opened({ maxOutstandingBytes: 0n, maxOutstanding: 4 });
    await stream.got(4);
    stream.send({ credit: { maxOutstanding: 100, maxOutstandingBytes: BigInt(LIMIT) } });
    const [first, second] = stream.jobs();
    await stream.answered(stream.complete(first as ReservedJob));
    await stream.answered(stream.complete(second as ReservedJob));
    expect(stream.jobs()).toHaveLength(4);
    stream.send({ credit: { maxOutstanding: 100, maxOutstandingBytes: 0n } });
    await stream.got(6);
  });
});

describe("one message of a Work stream", () => {
  it("fits into the 4 MiB that gRPC clients take by default, however much there is to say", async () => {
    const generous = await startBroker({ redis: fixture.broker.redis });
    const client = new Client(generous.address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });
    const queues = ["a", "b", "c"].map((suffix) => ({ name: `${queue}-${suffix}`, weight: 1 }));
    for (const { name } of queues) for (let i = 0; i < 9; i++) await put(`${i}`, 500 * KIB, name);
    const stream = new WorkStream(client);
    streams.push(stream);
    stream.send({ start: { queues, policy: QueuePolicy.WEIGHTED, maxOutstanding: 100 } as Start });
    await stream.got(1);
    stream.call.pause();
    const lost = Array.from({ length: 1_000 }, (_, sequence) => ({
      leaseToken: `baton/${"q".repeat(120)}/1/${"i".repeat(255)}`,
      sequence,
      outcome: { case: "completed", value: {} } as const,
    }));
    for (let i = 0; i < 8; i++)
      stream.send({ releases: lost.map((one) => ({ ...one, sequence: one.sequence + i * 1_000 })) });
    stream.call.resume();
    await stream.got(27);
    await stream.answered(Array.from({ length: 8_000 }, (_, sequence) => sequence));
    client.close();
    await generous.stop();
  });
});
