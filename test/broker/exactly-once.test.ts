import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/client.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { openStream } from "./support.ts";

const JOBS = 10_000;
const BATCH = 500;

describe("concurrent workers at two brokers", () => {
  let redis: TestRedis;
  let brokers: TestBroker[];
  let clients: BatonClient[];

  beforeAll(async () => {
    redis = await startRedis();
    brokers = await Promise.all([startBroker({ redis }), startBroker({ redis })]);
    clients = brokers.map(({ address }) => new BatonClient({ address }));
  });

  afterAll(async () => {
    for (const client of clients) client.close();
    for (const broker of brokers) await broker.stop();
    await redis.stop();
  });

  it(`see each of ${JOBS} jobs exactly once when none fails`, async () => {
    const seen = new Map<string, number>();
    const releases: Promise<unknown>[] = [];
    let done = 0;
    const streams = await Promise.all(
      Array.from({ length: 8 }, (_, i) => {
        const client = clients[i % 2] as BatonClient;
        return openStream(client, { queues: ["jobs"], maxOutstanding: 50 }, ({ id, attempt, leaseToken }) => {
          seen.set(id, (seen.get(id) ?? 0) + 1);
          expect(attempt).toBe(1);
          releases.push(client.release(leaseToken, { outcome: "completed" }).then(() => done++));
        });
      }),
    );
    const reserving = Promise.all(
      Array.from({ length: 4 }, async (_, i) => {
        const client = clients[i % 2] as BatonClient;
        while (done < JOBS) {
          const jobs = await client.reserve({ queues: ["jobs"], maxJobs: 20, waitMs: 200 });
          for (const { id } of jobs) seen.set(id, (seen.get(id) ?? 0) + 1);
          if (jobs.length === 0) continue;
          const results = await client.releaseMany(
            jobs.map(({ leaseToken }) => ({ leaseToken, outcome: "completed" })),
          );
          expect(results.every(({ ok }) => ok)).toBe(true);
          done += jobs.length;
        }
      }),
    );
    for (let i = 0; i < JOBS; i += BATCH) {
      const batch = Array.from({ length: BATCH }, (_, n) => ({ queue: "jobs", id: `job-${i + n}` }));
      await (clients[(i / BATCH) % 2] as BatonClient).putMany(batch);
    }
    await until(() => done === JOBS, { what: "all jobs to be released", withinMs: 60_000 });
    await Promise.all([...releases, reserving]);
    expect(seen.size).toBe(JOBS);
    expect([...seen.values()].filter((times) => times !== 1)).toEqual([]);
    await Promise.all(streams.map((stream) => stream.cut()));
  }, 90_000);
});
