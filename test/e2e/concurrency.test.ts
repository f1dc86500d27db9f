/**
 * Concurrency keys over three brokers on one Redis, one of which is killed in the middle: never more than `limit` leases
 * of one key run, and no slot is lost with the broker that knew of it.
 */
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient, type ReservedJob } from "../../src/client/index.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { type BrokerProcess, startBrokerProcess } from "./broker-process.ts";

const QUEUE = "customers";
const KEYS = ["ada", "grace", "edsger", "barbara"];
const LIMIT = 3;
const JOBS_PER_KEY = 75;
/** A dead broker's leases run out after this. */
const LEASE_MS = 1_000;

describe("three brokers on one Redis, with concurrency keys", { timeout: 90_000 }, () => {
  let redis: TestRedis;
  let brokers: BrokerProcess[];
  let clients: BatonClient[];
  const streams = new AbortController();

  beforeAll(async () => {
    redis = await startRedis();
    brokers = await Promise.all([1, 2, 3].map(() => startBrokerProcess("--redis-url", redis.url)));
    clients = brokers.map(({ address }) => new BatonClient({ address }));
  });

  afterAll(async () => {
    streams.abort();
    for (const client of clients) client.close();
    for (const broker of brokers) broker.terminate();
    await Promise.all(brokers.map((broker) => broker.waitForEnd()));
    await redis.stop();
  });

  it("never run more jobs of a key than its limit, and run all of them, though one is killed with -9", async () => {
    const [victim, survivor] = [0, 1] as const;
    const keyOf = (id: string) => id.slice(0, id.indexOf("-"));
    const ids = Array.from({ length: JOBS_PER_KEY }, (_, n) => KEYS.map((key) => `${key}-${n}`)).flat();
    const puts = ids.map((id) => ({ queue: QUEUE, id, concurrency: { key: keyOf(id), limit: LIMIT } }));
    expect((await clients[survivor]?.putMany(puts))?.every(({ ok }) => ok)).toBe(true);

    /** Per key, the leases that run: delivered, and neither released nor lost with the victim. */
    const running = new Map<string, Map<string, number>>(KEYS.map((key) => [key, new Map()]));
    const most = new Map<string, number>();
    const completed: string[] = [];
    const deliveries = new Map<string, number[]>();
    let killed = false;

    const run = async (job: ReservedJob, broker: number) => {
      const key = keyOf(job.id);
      const leases = running.get(key) ?? new Map<string, number>();
      leases.set(job.leaseToken, broker);
      most.set(key, Math.max(most.get(key) ?? 0, leases.size));
      deliveries.set(job.id, [...(deliveries.get(job.id) ?? []), job.attempt]);
      const via = clients[broker === victim && killed ? survivor : broker];
      // Its work, so that others are delivered meanwhile.
      await via?.get(QUEUE, job.id, { repeatForMs: 500 }).catch(() => undefined);
      // It runs no longer as soon as the broker may have heard of its end.
      leases.delete(job.leaseToken);
      // A release that the victim no longer answered may have taken effect: asking again tells.
      const releaseAt = (client: BatonClient | undefined) =>
        client?.release(job.leaseToken, { outcome: "completed" }, { repeatForMs: 500 });
      await Promise.resolve(releaseAt(via))
        .catch(() => releaseAt(clients[survivor]))
        .then(
          () => completed.push(job.id),
          () => undefined,
        );
    };
    const worker = async (broker: number) => {
      const input = { queues: [QUEUE], maxOutstanding: 4, leaseMs: LEASE_MS, disconnectGraceMs: 200 };
      try {
        for await (const event of clients[broker]?.subscribe(input, { signal: streams.signal }) ?? []) {
          if (event.type === "jobs") for (const job of event.jobs) void run(job, broker);
        }
      } catch {
        // The victim's streams break.
      }
    };
    const workers = [0, 0, 1, 1, 2, 2].map(worker);

    await until(() => completed.length >= ids.length / 3, { what: "a third of the jobs to be done", withinMs: 30_000 });
    await brokers[victim]?.kill();
    killed = true;
    for (const leases of running.values()) {
      for (const [token, broker] of leases) if (broker === victim) leases.delete(token);
    }
    const allDone = async () => {
      const missing = ids.find((id) => !completed.includes(id));
      if (missing !== undefined)
        throw new Error(`${missing} is ${(await clients[survivor]?.get(QUEUE, missing))?.state}`);
      return true;
    };
    await until(allDone, { what: "all jobs to be done", withinMs: 40_000 });
    streams.abort();
    await Promise.all(workers);

    expect([...completed].sort()).toEqual([...ids].sort());
    expect([...most].filter(([, count]) => count > LIMIT)).toEqual([]);
    for (const [id, attempts] of deliveries) {
      expect(attempts, `attempts of ${id}`).toEqual([...new Set(attempts)].sort((a, b) => a - b));
    }
    const store = new Redis(redis.socketPath);
    try {
      expect(await store.hgetall(`baton:{${QUEUE}}:slots`)).toEqual({});
      expect(await store.zcard(`baton:{${QUEUE}}:held`)).toBe(0);
    } finally {
      store.disconnect();
    }
  });
});
