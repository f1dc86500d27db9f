import fc from "fast-check";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DEFAULT_RETRY, type Progress } from "../../../src/model/job.ts";
import { type Place, TRANSITIONS } from "../../../src/model/states.ts";
import { Store } from "../../../src/store/store.ts";
import { startRedis, type TestRedis } from "../../support/redis.ts";
import { until } from "../../support/wait.ts";
import { commands, compareJob, type Real } from "./commands.ts";
import { expectConsistent } from "./consistency.ts";
import { LifeCycle } from "./model.ts";

const NAMESPACE = "model";
const SEQUENCES = 1_500;
/** About 12 s, where nobody else needs the machine. */
const WITHIN_MS = 120_000;
/** Shortly before midnight, so that counters are of two days. */
const START_MS = Date.UTC(2026, 10, 22) - 200;
const WATCH_MS = 1_000_000_000;
const DEFAULTS = {
  retentionMs: 1_000,
  // Shorter than a wait by the curve exq, which the broker's own longest wait does not bound.
  retry: { ...DEFAULT_RETRY, maxAttempts: 4, maxBackoffMs: 10_000 },
  deadLetterMax: 4,
  deadLetterAgeMs: 100_000,
};

describe("the life cycle, over random sequences of all verbs while time passes", () => {
  let server: TestRedis;
  let redis: Redis;
  let subscriber: Redis;

  beforeAll(async () => {
    server = await startRedis();
    redis = new Redis(server.socketPath);
    subscriber = new Redis(server.socketPath);
  });

  afterAll(async () => {
    redis.disconnect();
    subscriber.disconnect();
    await server.stop();
  });

  it(
    `answers as the model in memory does, and keeps its keys consistent (${SEQUENCES} sequences)`,
    async () => {
      const seed = Number(process.env.FAST_CHECK_SEED ?? Date.now() % 2 ** 31);
      process.stdout.write(`life cycle: seed ${seed} (repeat it with FAST_CHECK_SEED=${seed})\n`);
      /** By channel. */
      const published = new Map<string, string[]>();
      subscriber.on("pmessage", (_pattern: string, channel: string, text: string) => {
        const { id, state, reason, fence, holder } = JSON.parse(text) as Record<string, string>;
        const numbers = holder === undefined ? fence : `${fence} ${holder}`;
        const line = channel.endsWith(":events") ? `${state} ${id}` : `${reason} ${id} ${numbers}`;
        published.set(channel, [...(published.get(channel) ?? []), line]);
      });
      await subscriber.psubscribe(`${NAMESPACE}:*:events`, `${NAMESPACE}:*:leases`);
      let sequence = 0;
      let now = () => START_MS;
      const store = new Store({
        redis,
        namespace: NAMESPACE,
        defaultRetentionMs: DEFAULTS.retentionMs,
        defaultRetry: DEFAULTS.retry,
        deadLetterMax: DEFAULTS.deadLetterMax,
        deadLetterAgeMs: DEFAULTS.deadLetterAgeMs,
        clock: () => now(),
      });

      await fc.assert(
        fc.asyncProperty(fc.commands(commands, { maxCommands: 60, size: "max" }), async (sequenceOfCommands) => {
          const queue = `q${++sequence}`;
          const model = new LifeCycle(START_MS, DEFAULTS);
          now = () => model.now;
          const real: Real = { store, queue, leases: [], calls: 0 };
          const { last } = await store.watch(queue, undefined, 1, WATCH_MS);
          await fc.asyncModelRun(() => ({ model, real }), sequenceOfCommands);
          for (const id of [...model.jobs.keys()]) await compareJob(id, model, real);
          await expectConsistent(redis, NAMESPACE, queue, model);
          await expectLegalHistory(store, queue, last, model);
          for (const [channel, expected] of Object.entries({ events: model.events, leases: model.ends })) {
            const lines = () => published.get(`${NAMESPACE}:{${queue}}:${channel}`) ?? [];
            await until(() => lines().length >= expected.length, { what: `all messages on ${channel}` });
            expect(lines().sort()).toEqual([...expected].sort());
          }
        }),
        { numRuns: SEQUENCES, seed, endOnFailure: false },
      );
    },
    WITHIN_MS,
  );
});

/** What Watch tells: events without a hole, each a transition that there is, which lead to where the jobs are. */
async function expectLegalHistory(store: Store, queue: string, after: number, model: LifeCycle): Promise<void> {
  const { from, last, entries } = await store.watch(queue, after, 10_000, WATCH_MS);
  expect(from).toBe(after);
  expect(entries.map(({ number }) => number)).toEqual(entries.map((_, i) => after + 1 + i));
  expect(last).toBe(after + entries.length);
  const places = new Map<string, Place>();
  const progress = new Map<string, Progress>();
  for (const { id, transition, state: to = "GONE", progress: reported } of entries) {
    const before = places.get(id) ?? "GONE";
    const legal = TRANSITIONS.some(
      (it) => it.cause === transition && it.from.includes(before) && (it.to as readonly Place[]).includes(to),
    );
    expect(legal, `${transition}: ${before} → ${to}`).toBe(true);
    places.set(id, to);
    expect(reported !== undefined).toBe(transition === "report");
    if (reported) progress.set(id, reported);
    else progress.delete(id);
  }
  const left = [...places].filter(([, place]) => place !== "GONE");
  expect(Object.fromEntries(left)).toEqual(Object.fromEntries([...model.jobs].map(([id, { state }]) => [id, state])));
  const running = [...model.jobs].flatMap(([id, it]) => {
    const reported = model.view(it).progress;
    return reported ? [[id, { percent: reported.percent, note: reported.note }]] : [];
  });
  expect(Object.fromEntries(progress), "the last report is what is shown").toEqual(Object.fromEntries(running));
}
