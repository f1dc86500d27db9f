/**
 * Jobs that ask for nothing go through put, reserve and release as bytes (lua/lib/record.lua), but not while somebody
 * watches their queue. So two queues are given the same calls, one of them is watched, and they must hold the same.
 */
import fc from "fast-check";
import { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import type { Lease, LeasedJob, NewJob, Outcome } from "../../src/model/job.ts";
import { queueChannel } from "../../src/store/keys.ts";
import { Store } from "../../src/store/store.ts";
import { freeAddress } from "../support/ports.ts";
import { startRedis } from "../support/redis.ts";
import { dumpRedis } from "../support/redis-dump.ts";
import { until } from "../support/wait.ts";
import { ids, job, manyJobs, timedStore } from "./timed-store.ts";

const RUNS = 60;
const MOST_IDS = 25;
const LEASE_MS = 1_000;

type Call =
  | { readonly verb: "put"; readonly ids: readonly number[]; readonly odd: boolean }
  | { readonly verb: "reserve"; readonly counts: readonly number[]; readonly bytes: number | undefined }
  | { readonly verb: "repeat reserve" }
  | { readonly verb: "release"; readonly from: number; readonly to: number; readonly outcome: number }
  | { readonly verb: "wait"; readonly ms: number };

const OUTCOMES: readonly Outcome[] = [
  { kind: "completed" },
  { kind: "completed" },
  { kind: "completed", result: Buffer.from("result"), eventDetail: ',"result":{}' },
  { kind: "returned", delayMs: 0 },
  { kind: "undelivered" },
  { kind: "failed", error: Buffer.from("error"), permanent: false, eventDetail: "" },
];

const place = fc.nat({ max: 12 });
const calls: fc.Arbitrary<Call[]> = fc.array(
  fc.oneof(
    fc.record({
      verb: fc.constant("put" as const),
      ids: fc.array(fc.nat({ max: MOST_IDS }), { minLength: 1, maxLength: 12 }),
      odd: fc.boolean(),
    }),
    fc.record({
      verb: fc.constant("reserve" as const),
      counts: fc.array(fc.nat({ max: 9 }), { minLength: 1, maxLength: 3 }),
      bytes: fc.option(fc.nat({ max: 40 }), { nil: undefined }),
    }),
    fc.record({ verb: fc.constant("repeat reserve" as const) }),
    fc.record({ verb: fc.constant("release" as const), from: place, to: place, outcome: fc.nat({ max: 5 }) }),
    fc.record({ verb: fc.constant("wait" as const), ms: fc.nat({ max: 1_200 }) }),
  ),
  { minLength: 5, maxLength: 30 },
);

describe.each([0, 60_000])("plain jobs, kept for %d ms, are as any other", (retentionMs) => {
  const fixture = timedStore({ defaultRetentionMs: retentionMs });
  let queues = 0;

  /** What a queue was told and has got, so that another is told the same. */
  async function runner(queue: string): Promise<(call: Call, nonce: number) => Promise<unknown>> {
    const { store } = fixture;
    let taken: LeasedJob[] = [];
    let reserves = 0;
    let last: Parameters<typeof store.reserve>[3] = [];
    const nameless = (jobs: readonly Lease[]) => jobs.map((lease) => ({ ...lease, queue: "" }));
    return async (call, nonce) => {
      switch (call.verb) {
        case "put":
          return await store.put(
            queue,
            call.ids.map((id) => numbered(id, call.odd)),
            nonce,
          );
        case "reserve": {
          const bytes = call.bytes === undefined ? undefined : { most: call.bytes, takesAny: call.bytes % 2 === 0 };
          last = call.counts.map((count, i) => ({ count, leaseMs: i * LEASE_MS, workerId: `worker-${i}`, bytes }));
          const { jobs, ...rest } = await store.reserve(queue, "caller", ++reserves, last);
          taken = [...taken, ...jobs.flat()];
          return { jobs: jobs.map(nameless), ...rest };
        }
        case "repeat reserve": {
          if (reserves === 0) return undefined;
          const { jobs } = await store.reserve(queue, "caller", reserves, last);
          return jobs.map(nameless);
        }
        case "release": {
          const outcome = OUTCOMES[call.outcome] as Outcome;
          const some = taken.slice(Math.min(call.from, call.to), Math.max(call.from, call.to) + 1);
          if (some.length === 0) return undefined;
          return await store.release(
            queue,
            some.map((lease) => ({ lease, outcome })),
            { chance: 0.5 },
          );
        }
        case "wait":
          return await store.sweep(queue);
      }
    };
  }

  it("in what is answered and in what is stored", async () => {
    await fc.assert(
      fc.asyncProperty(calls, async (all) => {
        queues++;
        const [plain, watched] = [`plain-${queues}`, `watched-${queues}`];
        await fixture.store.watch(watched, undefined, 1, 3_600_000);
        const [runPlain, runWatched] = [await runner(plain), await runner(watched)];
        for (const [i, call] of all.entries()) {
          if (call.verb === "wait") fixture.nowMs += call.ms;
          expect(await runPlain(call, i * 100)).toEqual(await runWatched(call, i * 100));
          expect(await contentOf(plain)).toEqual(await contentOf(watched));
        }
      }),
      { numRuns: RUNS },
    );
  });

  /** Without what is there because somebody watches. */
  async function contentOf(queue: string): Promise<unknown> {
    const ownFields = ["watched_until", "events"];
    const entries = Object.entries(await dumpRedis(fixture.redis, queue)).filter(([key]) => !key.endsWith(":history"));
    return entries.flatMap(([key, value]) => {
      const { fields, ...rest } = value as { fields?: string[][] };
      const kept = fields?.filter(([field = ""]) => !ownFields.includes(field));
      return kept?.length === 0 ? [] : [[key.replace(queue, ""), { ...rest, fields: kept }]];
    });
  }
});

describe("completions of plain jobs", () => {
  const fixture = timedStore();
  const { reserve, release } = fixture;

  it.each([
    { name: "a queue", listen: (listener: Redis, channel: string) => listener.subscribe(channel) },
    { name: "a pattern", listen: (listener: Redis) => listener.psubscribe("timed:*:events") },
  ])("are published to one who listens to $name", async ({ name, listen }) => {
    const queue = name.replaceAll(" ", "-");
    const listener = fixture.redis.duplicate();
    try {
      const texts = textsOf(listener);
      await listen(listener, queueChannel("timed", queue, "events"));
      await fixture.store.put(queue, manyJobs(10));
      await release(await reserve(queue, 10));
      await until(() => texts.length >= 10, { what: "ten events" });
      expect(texts.map(idOf)).toEqual(ids(manyJobs(10)));
    } finally {
      listener.disconnect();
    }
  });

  it("are published to one who listens at a replica", async () => {
    const [, port] = (await freeAddress()).split(":");
    const primary = await startRedis({ config: [`port ${port}`, "bind 127.0.0.1"] });
    const replica = await startRedis({ config: [`replicaof 127.0.0.1 ${port}`] });
    const [redis, listener] = [new Redis(primary.socketPath), new Redis(replica.socketPath)];
    try {
      const texts = textsOf(listener);
      await listener.subscribe(queueChannel("replicated", "queue", "events"));
      const limits = { defaultRetentionMs: 1_000, deadLetterMax: 1, deadLetterAgeMs: 1_000 };
      const store = new Store({ redis, namespace: "replicated", ...limits });
      await until(async () => (await redis.info("replication")).includes("state=online"), { what: "the replica" });
      await store.put("queue", manyJobs(10));
      const claims = [{ count: 10, leaseMs: 60_000, workerId: "worker" }];
      const { jobs } = await store.reserve("queue", "caller", 1, claims);
      await store.release(
        "queue",
        jobs.flat().map((lease) => ({ lease, outcome: { kind: "completed" } as const })),
      );
      await until(() => texts.length >= 10, { what: "ten events" });
      expect(texts.map(idOf)).toEqual(ids(manyJobs(10)));
    } finally {
      redis.disconnect();
      listener.disconnect();
      await replica.stop();
      await primary.stop();
    }
  });
});

function textsOf(listener: Redis): string[] {
  const texts: string[] = [];
  listener.on("message", (_, text: string) => texts.push(text));
  listener.on("pmessage", (_, __, text: string) => texts.push(text));
  return texts;
}

function idOf(text: string): string {
  return (JSON.parse(text) as { id: string }).id;
}

function numbered(id: number, odd: boolean): NewJob {
  return job(`job-${id}`, { spec: Buffer.alloc(id, "x"), priority: odd && id % 5 === 0 ? 3 : 0 });
}
