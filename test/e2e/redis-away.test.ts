/** Redis goes away and comes back: callers are told so while it is away, and afterwards everything goes on by itself. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until, within } from "../support/wait.ts";
import { RawClient } from "./raw-client.ts";
import { openStream, type WorkerStream } from "./worker-stream.ts";

const OUTAGES = [
  {
    what: "is killed and started again",
    leave: (redis: TestRedis) => redis.kill(),
    comeBack: (redis: TestRedis) => redis.restart(),
  },
  {
    what: "stops answering for a while",
    leave: async (redis: TestRedis) => redis.pause(),
    comeBack: async (redis: TestRedis) => redis.resume(),
  },
];

describe.each(OUTAGES)("while Redis $what, a broker", { timeout: 60_000 }, ({ leave, comeBack }) => {
  let redis: TestRedis;
  let broker: TestBroker;
  let client: BatonClient;
  let raw: RawClient;
  let streams: WorkerStream[];

  beforeEach(async () => {
    redis = await startRedis({ appendonly: true, appendfsync: "always" });
    broker = await startBroker({ redis, redisTimeoutMs: 500 });
    client = new BatonClient({ address: broker.address });
    raw = new RawClient(broker.address);
    streams = [];
  });

  afterEach(async () => {
    for (const stream of streams) stream.close();
    for (const one of [client, raw]) one?.close();
    redis.resume();
    await broker?.stop();
    await redis?.stop();
  });

  async function open(queue: string): Promise<WorkerStream> {
    const stream = await openStream(client, { queues: [queue], maxOutstanding: 5 });
    streams.push(stream);
    return stream;
  }

  const untilHealthIs = (status: string) =>
    until(async () => (await raw.health()) === status, { what: `the health to be ${status}`, withinMs: 20_000 });

  it("is NOT_SERVING, refuses with STORE_UNAVAILABLE and how long to wait, and serves again afterwards", async () => {
    await untilHealthIs("SERVING");
    await leave(redis);
    await untilHealthIs("NOT_SERVING");
    expect(await raw.health("baton.v1.JobService")).toBe("NOT_SERVING");
    const refused = { code: "UNAVAILABLE", reason: "STORE_UNAVAILABLE", retryAfterMs: expect.any(Number) };
    await expect(client.put({ queue: "away", id: "1" }, { deadlineMs: 5_000 })).rejects.toMatchObject(refused);
    await expect(client.reserve({ queues: ["away"] })).rejects.toMatchObject(refused);
    await comeBack(redis);
    await untilHealthIs("SERVING");
    expect(await client.put({ queue: "away", id: "2" })).toMatchObject({ created: true });
  });

  it("keeps its streams open: they get what is put afterwards, and jobs in hand can be released", async () => {
    const [busy, idle] = [await open("busy"), await open("idle")];
    await client.put({ queue: "busy", id: "held" });
    const held = await busy.got("held");
    await leave(redis);
    await untilHealthIs("NOT_SERVING");
    await comeBack(redis);
    await untilHealthIs("SERVING");
    expect(await client.release(held.leaseToken, { outcome: "completed" })).toMatchObject({ state: "COMPLETED" });
    await client.put({ queue: "idle", id: "later" });
    await client.put({ queue: "busy", id: "later" });
    expect(await idle.got("later")).toMatchObject({ attempt: 1 });
    expect(await busy.got("later")).toMatchObject({ attempt: 1 });
    expect(busy.jobs()).toHaveLength(2);
  });

  it("completes a repeated put and a repeated release once", async () => {
    await client.put({ queue: "repeat", id: "held" });
    const [held] = await client.reserve({ queues: ["repeat"] });
    await leave(redis);
    await untilHealthIs("NOT_SERVING");
    // These are repeated by the client, until they are answered.
    const put = client.put({ queue: "repeat", id: "new", onConflict: "KEEP" });
    const release = client.release(held?.leaseToken ?? "", { outcome: "completed" });
    await comeBack(redis);
    await put;
    expect(await release).toMatchObject({ state: "COMPLETED" });
    expect(await client.get("repeat", "held")).toMatchObject({ state: "COMPLETED", attempt: 1 });
    expect(await client.reserve({ queues: ["repeat"], maxJobs: 10 })).toMatchObject([{ id: "new", attempt: 1 }]);
  });

  it("gives delayed jobs that became due meanwhile to the stream that waits for them", async () => {
    const stream = await open("due");
    await client.put({ queue: "due", id: "1", delayMs: 500 });
    await leave(redis);
    await untilHealthIs("NOT_SERVING");
    await comeBack(redis);
    expect(await stream.got("1")).toMatchObject({ attempt: 1 });
  });

  it("can be told to stop meanwhile, with a job in hand, and does not wait for Redis", async () => {
    const stream = await open("stop");
    await client.put({ queue: "stop", id: "held" });
    await stream.got("held");
    await leave(redis);
    await untilHealthIs("NOT_SERVING");
    await within(broker.server.stop(), { what: "the broker to stop", withinMs: 10_000 });
  });
});
