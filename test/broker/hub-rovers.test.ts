/** Streams with many queues each: what they ask of Redis, and in which order they are served. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Weights } from "../../src/broker/weights.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { completeAll, type InnerBroker, numbered, putAll, startInnerBroker, streamAt } from "./inner-broker.ts";

const QUEUES = 100;
const BATCH = 100;
const JOBS = 8_000;

describe("two streams with fifty queues each", () => {
  let redis: TestRedis;
  let inner: InnerBroker;

  beforeEach(async () => {
    redis = await startRedis();
    // So long that its looks don't count, and that a lost bell shows as a test that takes too long.
    inner = await startInnerBroker({ redis, fallbackIntervalMs: 30_000 });
  });

  afterEach(async () => {
    await inner?.stop();
    await redis?.stop();
  });

  // 80 calls find a whole batch, if none is shared out, and as many at worst find nothing left for the bell that they heard.
  it.each([
    ["strict", 4 * (JOBS / BATCH)],
    ["weighted", 8 * (JOBS / BATCH)],
  ] as const)(
    "take what is put into their queues in a few calls (%s)",
    async (policy, mostCalls) => {
      const names = numbered(QUEUES, "queue");
      let done = 0;
      const streams = [0, 1].map((n) => {
        const queues = names.filter((_, i) => i % 2 === n).map((name, i) => ({ name, weight: 1 + (i % 3) }));
        const stream = inner.broker.subscribe(
          streamAt("", { queues, policy, credit: { maxOutstanding: 1_000, maxBytes: 0 } }),
        );
        // As a transport reads: all that there is, and the next before what came is released.
        const read = async () => {
          const releasing: Promise<void>[] = [];
          for (let events = await stream.nextAll(); events; events = await stream.nextAll()) {
            const jobs = events.flatMap((event) => (event.kind === "jobs" ? event.jobs : []));
            if (jobs.length === 0) continue;
            const released = completeAll(inner.broker, jobs).then(() => {
              done += jobs.length;
            });
            releasing.push(released);
          }
          await Promise.all(releasing);
        };
        return { stream, ended: read() };
      });
      await until(() => inner.store.claims.length >= QUEUES, { what: "all queues to be looked into" });
      const before = inner.store.claims.length;
      const producer = async (first: number) => {
        for (let n = first; n < JOBS / BATCH; n += 4) {
          await putAll(inner.store, names[n] as string, numbered(BATCH));
        }
      };
      await Promise.all([0, 1, 2, 3].map(producer));
      await until(() => done === JOBS, { what: "all jobs", withinMs: 20_000 });
      expect(inner.store.claims.length - before).toBeLessThan(mostCalls);
      for (const { stream } of streams) stream.close();
      await Promise.all(streams.map(({ ended }) => ended));
    },
    40_000,
  );
});

describe("Weights", () => {
  const shares = ["a", "b", "c"].map((name) => ({ name, weight: 1 }));

  it("lets a queue lead by one round where there is little room, and by more where there is much", () => {
    const weights = new Weights([
      { name: "light", weight: 1 },
      { name: "heavy", weight: 3 },
    ]);
    expect(weights.allowance("light", ["heavy"], 1)).toBe(1);
    expect(weights.allowance("heavy", ["light"], 1)).toBe(3);
    expect(weights.allowance("light", ["heavy"], 80)).toBe(10);
    expect(weights.allowance("heavy", ["light"], 80)).toBe(30);
  });

  it("starts queues that were empty together beside the one that went on", () => {
    const weights = new Weights(shares);
    weights.took("a", 1_000);
    for (const name of ["b", "c"]) weights.foundEmpty(name);
    weights.allowance("b", ["a", "c"], 1);
    weights.allowance("c", ["a", "b"], 1);
    expect(weights.allowance("a", ["b", "c"], 1)).toBe(1);
    weights.took("a", 1);
    expect(weights.allowance("b", ["a", "c"], 1)).toBe(1);
  });

  it("gives no queue a start when all were empty", () => {
    const weights = new Weights(shares);
    weights.took("a", 1_000);
    for (const { name } of shares) weights.foundEmpty(name);
    expect(weights.allowance("b", ["a", "c"], 1)).toBe(1);
    weights.took("b", 1);
    expect(weights.allowance("a", ["b", "c"], 1)).toBe(1);
  });
});
