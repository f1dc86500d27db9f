/** What exq polled for, and how often: measured, so in a file of its own beside exq.test.ts. */
import { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import { QueuePolicy } from "../../gen/baton/v1/job_service_pb.js";
import { hours } from "../rpc/fixture.ts";
import { QueueClient } from "../rpc/queue-client.ts";
import { RawClient } from "../rpc/raw-client.ts";
import { startBroker } from "../support/broker.ts";
import { until } from "../support/wait.ts";
import { countCommands } from "./support.ts";

describe("Scheduled and retrying jobs move when due: how often Redis is asked", () => {
  it.concurrent.each([100, 1_000])("the polling interval is a setting: %i ms", async (sweepIntervalMs) => {
    const broker = await startBroker({ sweepIntervalMs });
    const client = new RawClient(broker.address);
    try {
      // Nobody waits at this queue: only sweeps look into it.
      await client.good("put", { queue: "mail", start: { case: "delay", value: hours(1) } });
      await client.reserve({ queues: [{ name: "mail" }] });
      const sweeps = await countCommands(broker.redis, "mail", 3_000);
      expect(sweeps).toBeLessThanOrEqual(3_000 / sweepIntervalMs + 1);
      expect(sweeps).toBeGreaterThanOrEqual((3_000 / sweepIntervalMs) * 0.6);
    } finally {
      client.close();
      await broker.stop();
    }
  });

  it.concurrent("an idle broker asks Redis less than twice a second per queue", async () => {
    // A broker of its own, where workers wait at a queue of theirs and at several, by stream and by call.
    const broker = await startBroker();
    const client = new RawClient(broker.address);
    const redis = new Redis(broker.redis.socketPath);
    const names = ["mail", "news", "letters"];
    try {
      for (const queue of names) await client.good("put", { queue, start: { case: "delay", value: hours(1) } });
      const queues = names.map((name, i) => ({ name, weight: i + 1 }));
      const streams = [QueuePolicy.STRICT, QueuePolicy.WEIGHTED].map((policy) => client.subscribe({ queues, policy }));
      streams.push(client.subscribe({ queues: [{ name: "mail" }] }));
      // The first sweep sends its script; this is about the others.
      const isSwept = async (name: string) => await redis.hexists(`baton:{${name}}:meta`, "stats_day");
      await until(async () => (await Promise.all(names.map(isSwept))).every(Boolean), { what: "the first sweeps" });
      const waiting = client.start("reserve", { queues: [{ name: "mail" }], wait: hours(0.1) });
      const workers = async () => (await new QueueClient(client).good("listWorkers", { queue: "mail" })).workers.length;
      await until(async () => (await workers()) === 4, { what: "all workers to wait" });
      const seconds = 8;
      const asked = await Promise.all(names.map((name) => countCommands(broker.redis, name, seconds * 1_000)));
      for (const stream of streams) stream.cancel();
      waiting.cancel();
      await Promise.all([...streams.map(({ ended }) => ended), waiting.answer]);
      for (const commands of asked) expect(commands).toBeLessThan(2 * seconds);
      expect(Math.min(...asked)).toBeGreaterThan(0);
    } finally {
      redis.disconnect();
      client.close();
      await broker.stop();
    }
  });
});
