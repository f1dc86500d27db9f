/** Schedules at three brokers, which are processes of their own, on one Redis. */
import { Redis } from "ioredis";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CatchUp, ScheduleService } from "../../gen/baton/v1/schedule_service_pb.js";
import { RawClient } from "../rpc/raw-client.ts";
import { ServiceClient } from "../rpc/service-client.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { type BrokerProcess, startBrokerProcess } from "./broker-process.ts";

type ScheduleClient = ServiceClient<typeof ScheduleService>;

const QUEUES = ["one", "two"];
const TICKS = 10;
const TIMINGS = {
  cron: { case: "cron", value: "* * * * * *" },
  zoned: { case: "cron", value: "*/2 * * * * *" },
  interval: { case: "every", value: { seconds: 1n } },
} as const;

describe("three brokers on one Redis", { timeout: 90_000 }, () => {
  let server: TestRedis;
  let redis: Redis;
  let brokers: BrokerProcess[];
  const clients: RawClient[] = [];

  beforeEach(async () => {
    server = await startRedis();
    redis = new Redis(server.socketPath);
    brokers = await Promise.all([1, 2, 3].map(() => start()));
  });

  afterEach(async () => {
    for (const client of clients.splice(0)) client.close();
    await Promise.all(brokers.map((broker) => broker.kill()));
    redis.disconnect();
    await server.stop();
  });

  const start = () => startBrokerProcess("--redis-url", server.url);

  function clientOf(broker: BrokerProcess | undefined): ScheduleClient {
    if (!broker) throw new Error("there is no such broker");
    const client = new RawClient(broker.address);
    clients.push(client);
    return new ServiceClient(client, ScheduleService);
  }

  const jobsOf = (queue: string) => redis.hkeys(`baton:{${queue}}:spec`);
  const putsOf = async (queue: string) =>
    Object.entries(await redis.hgetall(`baton:{${queue}}:stats`))
      .filter(([name]) => name.startsWith("put"))
      .reduce((sum, [, number]) => sum + Number(number), 0);
  const ticksOf = (ids: readonly string[], schedule: string) =>
    ids
      .filter((id) => id.startsWith(`${schedule}@`))
      .map((id) => Date.parse(id.slice(schedule.length + 1)))
      .sort((a, b) => a - b);

  /** Every schedule of TIMINGS in this queue has put one job for each of its ticks, from the first to the last. */
  async function expectEveryTickOnce(queue: string, client: ScheduleClient): Promise<void> {
    // A broker may be putting a job just now: once all are paused, the numbers stand.
    for (const id of Object.keys(TIMINGS)) await client.good("pauseSchedule", { queue, id });
    const ids = await jobsOf(queue);
    expect(await putsOf(queue)).toBe(ids.length);
    for (const id of Object.keys(TIMINGS)) {
      const stepMs = id === "zoned" ? 2_000 : 1_000;
      const ticks = ticksOf(ids, id);
      expect(ticks.length).toBeGreaterThanOrEqual(Math.floor((TICKS * 1_000) / stepMs) - 1);
      expect(ticks).toEqual(ticks.map((_, i) => (ticks[0] ?? 0) + i * stepMs));
      const { schedule } = await client.good("getSchedule", { queue, id });
      expect(schedule).toMatchObject({ runs: BigInt(ticks.length), skipped: 0n });
    }
  }

  it("put one job for every tick, also while one of them is killed and another one started", async () => {
    const [first, second] = brokers;
    const client = clientOf(first);
    for (const queue of QUEUES) {
      for (const [id, timing] of Object.entries(TIMINGS)) {
        const timeZone = id === "zoned" ? "America/New_York" : "";
        const schedule = { queue, id, timing, timeZone, catchUp: CatchUp.ALL, template: {} };
        await client.good("putSchedule", { schedule });
      }
    }
    const ticked = (count: number) =>
      until(async () => ticksOf(await jobsOf("one"), "cron").length >= count, {
        what: `${count} ticks`,
        withinMs: TICKS * 2_000,
      });

    await ticked(TICKS * 0.3);
    await first?.kill();
    await ticked(TICKS * 0.6);
    brokers.push(await start());
    await ticked(TICKS);

    const other = clientOf(second);
    for (const queue of QUEUES) await expectEveryTickOnce(queue, other);
  });

  it("change no schedule when they start", async () => {
    const timing = { case: "every", value: { seconds: 3_600n } } as const;
    const client = clientOf(brokers[0]);
    await client.good("putSchedule", { schedule: { queue: "one", id: "s", timing, template: {} } });
    const stored = () => redis.hgetallBuffer("baton:{one}:schedules");
    const ticks = () => redis.zrange("baton:{one}:ticks", "0", "-1", "WITHSCORES");
    const before = { stored: await stored(), ticks: await ticks() };
    expect(before.ticks).toHaveLength(2);

    await Promise.all(brokers.map((broker) => broker.kill()));
    await redis.hdel("baton:{one}:meta", "samples");
    brokers = [await start()];
    await until(async () => (await redis.hexists("baton:{one}:meta", "samples")) === 1, { what: "its first sweep" });
    expect({ stored: await stored(), ticks: await ticks() }).toEqual(before);
    expect(await jobsOf("one")).toEqual([]);
  });

  it("run a schedule on although those that took it are gone", async () => {
    const timing = { case: "every", value: { seconds: 1n } } as const;
    await clientOf(brokers[0]).good("putSchedule", { schedule: { queue: "one", id: "s", timing, template: {} } });
    await brokers[0]?.kill();
    await brokers[1]?.kill();
    await until(async () => (await jobsOf("one")).length >= 3, { what: "three jobs", withinMs: 15_000 });
  });
});
