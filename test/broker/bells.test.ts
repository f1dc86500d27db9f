/** The doorbell's one token, where several brokers listen: whoever takes it and has no use for it passes it on. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/client.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { openStream } from "./support.ts";

describe("a broker that hears the bell and hands out no more jobs", () => {
  let redis: TestRedis;
  let draining: TestBroker;
  let other: TestBroker;
  let toDraining: BatonClient;
  let client: BatonClient;

  beforeAll(async () => {
    redis = await startRedis();
    // Neither looks by itself before the test is over.
    draining = await startBroker({ redis, fallbackIntervalMs: 60_000 });
    other = await startBroker({ redis, fallbackIntervalMs: 60_000 });
    toDraining = new BatonClient({ address: draining.address });
    client = new BatonClient({ address: other.address });
  });

  afterAll(async () => {
    toDraining.close();
    client.close();
    await draining.stop();
    await other.stop();
    await redis.stop();
  });

  it("because it drains passes it on to another", async () => {
    const queue = "drained";
    const first = await openStream(toDraining, { queues: [queue], maxOutstanding: 2 });
    await client.put({ queue, id: "held" });
    await until(() => first.jobs.length === 1, { what: "the first job" });
    // It waits for the bell again now, and was there before the other.
    const second = await openStream(client, { queues: [queue], maxOutstanding: 2 });
    const drained = draining.server.drain();
    await until(() => first.events.some(({ type }) => type === "draining"), { what: "the broker to drain" });
    await client.put({ queue, id: "next" });
    await until(() => second.jobs.length === 1, { what: "the job at the other broker", withinMs: 3_000 });
    await client.release(first.jobs[0]?.leaseToken ?? "", { outcome: "completed" });
    await drained;
    expect(first.jobs).toHaveLength(1);
    await second.cut();
  });
});
