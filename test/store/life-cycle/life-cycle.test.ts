import fc from "fast-check";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Store } from "../../../src/store/store.ts";
import { startRedis, type TestRedis } from "../../support/redis.ts";
import { until } from "../../support/wait.ts";
import { commands, compareJob, type Real } from "./commands.ts";
import { expectConsistent } from "./consistency.ts";
import { LifeCycle } from "./model.ts";

const NAMESPACE = "model";
const RETENTION_MS = 1_000;
const SEQUENCES = 1_000;
const START_MS = Date.UTC(2026, 10, 21);

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

  it(`answers as the model in memory does, and keeps its keys consistent (${SEQUENCES} sequences)`, async () => {
    const seed = Number(process.env.FAST_CHECK_SEED ?? Date.now() % 2 ** 31);
    process.stdout.write(`life cycle: seed ${seed} (repeat it with FAST_CHECK_SEED=${seed})\n`);
    const events = new Map<string, string[]>();
    subscriber.on("pmessage", (_pattern: string, channel: string, text: string) => {
      const { queue, id, state } = JSON.parse(text) as { queue: string; id: string; state: string };
      expect(channel).toBe(`${NAMESPACE}:{${queue}}:events`);
      events.set(queue, [...(events.get(queue) ?? []), `${state} ${id}`]);
    });
    await subscriber.psubscribe(`${NAMESPACE}:*:events`);
    let sequence = 0;

    await fc.assert(
      fc.asyncProperty(fc.commands(commands, { maxCommands: 60, size: "max" }), async (sequenceOfCommands) => {
        const queue = `q${++sequence}`;
        const model = new LifeCycle(START_MS, RETENTION_MS);
        const store = new Store({
          redis,
          namespace: NAMESPACE,
          defaultRetentionMs: RETENTION_MS,
          deadLetterMax: 1_000,
          deadLetterAgeMs: 1_000_000,
          clock: () => model.now,
        });
        const real: Real = { store, queue, leases: [], calls: 0 };
        await fc.asyncModelRun(() => ({ model, real }), sequenceOfCommands);
        for (const id of [...model.jobs.keys()]) await compareJob(id, model, real);
        await expectConsistent(redis, NAMESPACE, queue);
        await until(() => (events.get(queue)?.length ?? 0) >= model.events.length, { what: "all events" });
        expect((events.get(queue) ?? []).sort()).toEqual([...model.events].sort());
      }),
      { numRuns: SEQUENCES, seed, endOnFailure: false },
    );
  });
});
