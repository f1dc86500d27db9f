/** How streams end that have to: because their broker shuts down, or because they have reached their age. */
import { Client, credentials } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { readSettings, type Settings } from "../../src/settings.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { within } from "../support/wait.ts";
import { WorkStream } from "../support/work-stream.ts";
import { inMs, ms } from "./fixture.ts";
import { RawClient } from "./raw-client.ts";
import { WatchClient } from "./watch-client.ts";

type Start = Partial<Exclude<Parameters<typeof WorkStream.open>[1], { $typeName: string }>>;

let redis: TestRedis;
const stops: (() => unknown)[] = [];

beforeEach(async () => {
  redis = await startRedis();
});

afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
  await redis.stop();
});

async function brokerWith(settings: Partial<Settings> = {}): Promise<{ broker: TestBroker; client: RawClient }> {
  const broker = await startBroker({ redis, ...settings });
  const client = new RawClient(broker.address);
  stops.push(
    () => broker.stop(),
    () => client.close(),
  );
  return { broker, client };
}

async function opened(to: string | Client, start: Start = {}): Promise<WorkStream> {
  const stream = await WorkStream.open(to, { queues: [{ name: "queue" }], ...start });
  stops.push(() => stream.close());
  return stream;
}

function putMany(client: RawClient, ...ids: readonly string[]) {
  return client.good("putMany", { jobs: ids.map((id) => ({ queue: "queue", id })) });
}

const toldToDrain = (stream: WorkStream) => stream.saw(({ draining }) => draining, "draining");

describe("a Work stream of a broker that shuts down", () => {
  it("is told, goes on being heard and answered, gets nothing new, and ends well when its jobs are released", async () => {
    const { broker, client } = await brokerWith({ drainGraceMs: 8_000 });
    await putMany(client, "a", "b");
    const stream = await opened(broker.address, { maxOutstanding: 10 });
    const [a, b] = await stream.got(2);
    const drained = broker.server.drain();
    expect(inMs((await toldToDrain(stream)).grace)).toBe(8_000);
    const { client: other } = await brokerWith();
    await putMany(other, "later");
    const leaseToken = b?.leaseToken ?? "";
    stream.send({ progress: [{ leaseToken, percent: 50 }], extends: [{ sequence: 1, leaseTokens: [leaseToken] }] });
    const { results } = await stream.saw(({ extended }) => extended[0], "extended");
    expect(results[0]?.result.case).toBe("leaseExpiresAt");
    expect(await stream.answered(stream.complete(a as never))).toMatchObject([{ case: "released" }]);
    stream.send({ credit: { maxOutstanding: 20 }, quiet: false });
    await stream.saw(({ quiet }) => quiet === false, "quiet");
    const answer = stream.answered(stream.complete(b as never));
    expect(await within(stream.ended, { what: "the stream to end" })).toMatchObject({ code: "OK" });
    expect(await answer).toMatchObject([{ case: "released" }]);
    await within(drained, { what: "the broker to end" });
    expect(stream.jobs()).toHaveLength(2);
    expect((await other.reserveOne("queue")).id).toBe("later");
  });

  it("ends at once when it holds nothing; a job that is on its way to it runs, or goes to others, in its first attempt", async () => {
    const { broker, client } = await brokerWith({ drainGraceMs: 8_000 });
    const { broker: second, client: other } = await brokerWith();
    const stream = await opened(broker.address, { maxOutstanding: 10 });
    stream.call.on("data", () => {
      const last = stream.responses.at(-1)?.jobs ?? [];
      if (last.length > 0) stream.complete(...last);
    });
    await putMany(client, "a");
    await within(broker.server.drain(), { what: "the broker to end" });
    expect(await within(stream.ended, { what: "the stream to end" })).toMatchObject({ code: "OK" });
    const successor = await opened(second.address);
    if (stream.jobs().length === 0) await successor.got(1);
    expect([...stream.jobs(), ...successor.jobs()]).toMatchObject([{ id: "a", attempt: 1 }]);
    const state = (await other.good("get", { queue: "queue", id: "a" })).job?.state;
    expect(state).toBe(stream.jobs().length === 1 ? JobState.COMPLETED : JobState.RESERVED);
  });

  it("is cut after the grace, and what it holds goes to others", async () => {
    const { broker, client } = await brokerWith({ drainGraceMs: 400 });
    await putMany(client, "a");
    const stream = await opened(broker.address, { disconnectGrace: ms(300) });
    await stream.got(1);
    const began = performance.now();
    const drained = broker.server.drain();
    await toldToDrain(stream);
    await within(stream.ended, { what: "the stream to be cut" });
    expect(performance.now() - began).toBeGreaterThanOrEqual(399);
    await within(drained, { what: "the broker to end" });
    const { client: other } = await brokerWith();
    expect(await other.reserveOne("queue")).toMatchObject({ id: "a", attempt: 2 });
  });

  it("is cut after the grace also when it sends all the time and never reads", async () => {
    const { broker } = await brokerWith({ drainGraceMs: 400 });
    const stream = await opened(broker.address);
    stream.call.pause();
    const releases = Array.from({ length: 1_000 }, (_, sequence) => ({ leaseToken: "none", sequence }));
    while (stream.send({ releases }));
    await within(broker.server.drain(), { what: "the broker to end" });
  });
});

describe("a stream that has reached --max-stream-age", () => {
  const AGE_MS = 600;

  it("may be as old as the setting allows, without a timer that overflows", async () => {
    const { maxStreamAgeMs } = readSettings(["--max-stream-age", "20d"], {});
    const { broker, client } = await brokerWith({ maxStreamAgeMs });
    const stream = await opened(broker.address);
    const subscription = client.subscribe({ queues: [{ name: "queue" }] });
    await subscription.saw("started");
    await putMany(client, "a", "b");
    await stream.got(1);
    await subscription.got(1);
    expect(stream.responses.some(({ draining }) => draining)).toBe(false);
    expect(subscription.all("draining")).toEqual([]);
    expect(() => readSettings(["--max-stream-age", "23d"], {})).toThrow("--max-stream-age");
  });

  it("is told so at that age, give or take a tenth", async () => {
    const { broker, client } = await brokerWith({ maxStreamAgeMs: AGE_MS });
    const began = performance.now();
    const streams = await Promise.all(Array.from({ length: 10 }, () => opened(broker.address)));
    const subscription = client.subscribe({ queues: [{ name: "queue" }] });
    const ages = await Promise.all(
      [...streams, subscription].map(async (stream) => {
        await within<unknown>(stream.ended, { what: "the stream to end" });
        return performance.now() - began;
      }),
    );
    for (const stream of streams) expect((await toldToDrain(stream)).grace).toBeUndefined();
    expect((await subscription.saw("draining")).grace).toBeUndefined();
    expect(Math.min(...ages)).toBeGreaterThanOrEqual(AGE_MS * 0.9 - 5);
    expect(Math.max(...ages)).toBeLessThan(AGE_MS * 1.1 + 1_000);
    expect(new Set(ages.map((age) => Math.round(age / 5))).size).toBeGreaterThan(3);
  });

  it("stays until its jobs are released, and its worker may take them along", async () => {
    const { broker, client } = await brokerWith({ maxStreamAgeMs: AGE_MS });
    await putMany(client, "a", "b", "c");
    const stream = await opened(broker.address, { maxOutstanding: 2 });
    const [a, b] = await stream.got(2);
    await toldToDrain(stream);
    const next = await opened(broker.address, { maxOutstanding: 2, resumeLeaseTokens: [b?.leaseToken ?? ""] });
    expect((await next.got(1)).map(({ id }) => id)).toEqual(["c"]);
    expect(await stream.answered(stream.complete(a as never))).toMatchObject([{ case: "released" }]);
    expect(await within(stream.ended, { what: "the stream to end" })).toMatchObject({ code: "OK" });
    expect(stream.revoked()).toEqual([]);
    expect(await next.answered(next.complete(b as never, ...next.jobs()))).toMatchObject([
      { case: "released" },
      { case: "released" },
    ]);
  });

  it("of Watch ends, and goes on at its cursor without a gap", async () => {
    const { broker, client } = await brokerWith({ maxStreamAgeMs: AGE_MS });
    const watches = new WatchClient(broker.address);
    stops.push(() => watches.close());
    const first = await watches.started({ queues: ["queue"] });
    await putMany(client, "a");
    const [event] = await first.got(1);
    await first.saw("draining");
    expect(await within(first.ended, { what: "the stream to end" })).toBeUndefined();
    await putMany(client, "b");
    const second = await watches.started({ queues: ["queue"], resumeAfter: [event?.cursor ?? ""] });
    expect(await second.got(1)).toMatchObject([{ id: "b", transition: "put" }]);
    expect(second.all("gap")).toEqual([]);
  });

  it("finds a new connection, because the old one takes no calls by then", async () => {
    const { broker } = await brokerWith({ maxStreamAgeMs: AGE_MS });
    const client = new Client(broker.address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });
    stops.push(() => client.close());
    // Without a name of its own a worker is known by its connection's address.
    const first = await opened(client);
    await toldToDrain(first);
    const second = await opened(client);
    const [before, after] = [first, second].map(({ responses }) => responses[0]?.started?.workerId);
    expect(before).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(after).not.toBe(before);
  });

  it("is not told when there is no such age", async () => {
    const { broker, client } = await brokerWith();
    const stream = await opened(broker.address);
    await putMany(client, "a");
    await stream.got(1);
    expect(stream.responses.some(({ draining }) => draining)).toBe(false);
  });
});
