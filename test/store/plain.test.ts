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
  | { readonly verb: "hand over"; readonly ids: readonly number[]; readonly counts: readonly number[] }
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
    fc.record({
      verb: fc.constant("hand over" as const),
      ids: fc.uniqueArray(fc.nat({ max: MOST_IDS }), { minLength: 1, maxLength: 12 }),
      counts: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 3 }),
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
  let handedOver = 0;

  /** What a queue was told and has got, so that another is told the same. */
  async function runner(queue: string): Promise<(call: Call, nonce: number) => Promise<unknown>> {
    const { store } = fixture;
    let taken: LeasedJob[] = [];
    let reserves = 0;
    let last: Parameters<typeof store.reserve>[3] = [];
    const nameless = (jobs: readonly Lease[]) => jobs.map((lease) => ({ ...lease, queue: "" }));

    async function reserve(claims: typeof last): Promise<unknown> {
      last = claims;
      const { jobs, ...rest } = await store.reserve(queue, "caller", ++reserves, last);
      taken = [...taken, ...jobs.flat()];
      return { jobs: jobs.map(nameless), ...rest };
    }

    /** One that may not is answered with a put and a reserve, and that is what it is compared with. */
    async function handOver(puts: readonly NewJob[], claims: typeof last, nonce: number): Promise<unknown> {
      const over = await store.handOver(queue, "caller", reserves + 1, claims, puts, nonce);
      if (over === "again") throw new Error("a number was used twice");
      if (!over) {
        await store.put(queue, puts, nonce);
        return await reserve(claims);
      }
      const { jobs, ...rest } = over;
      reserves++;
      last = claims;
      handedOver += jobs.flat().length;
      taken = [...taken, ...jobs.flat()];
      return { jobs: jobs.map(nameless), ...rest };
    }

    async function repeatReserve(): Promise<unknown> {
      if (reserves === 0) return undefined;
      const { jobs } = await store.reserve(queue, "caller", reserves, last);
      return jobs.map(nameless);
    }

    async function release(from: number, to: number, outcome: Outcome): Promise<unknown> {
      const some = taken.slice(Math.min(from, to), Math.max(from, to) + 1);
      if (some.length === 0) return undefined;
      return await store.release(
        queue,
        some.map((lease) => ({ lease, outcome })),
        { chance: 0.5 },
      );
    }

    return (call, nonce) => {
      switch (call.verb) {
        case "put":
          return store.put(
            queue,
            call.ids.map((id) => numbered(id, call.odd)),
            nonce,
          );
        case "reserve": {
          const bytes = call.bytes === undefined ? undefined : { most: call.bytes, takesAny: call.bytes % 2 === 0 };
          return reserve(claimsOf(call.counts).map((claim) => ({ ...claim, bytes })));
        }
        case "hand over":
          return handOver(
            call.ids.map((id) => numbered(id, false)),
            claimsOf(call.counts),
            nonce,
          );
        case "repeat reserve":
          return repeatReserve();
        case "release":
          return release(call.from, call.to, OUTCOMES[call.outcome] as Outcome);
        case "wait":
          return store.sweep(queue);
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
    expect(handedOver).toBeGreaterThan(RUNS);
  });

  /** Without what is there because somebody watches, and without the doorbell, which is rung for jobs that are left. */
  async function contentOf(queue: string): Promise<unknown> {
    const ownFields = ["watched_until", "events"];
    const entries = Object.entries(await dumpRedis(fixture.redis, queue)).filter(
      ([key]) => !/:(history|wake)$/.test(key),
    );
    return entries.flatMap(([key, value]) => {
      const { fields, ...rest } = value as { fields?: string[][] };
      const kept = fields?.filter(([field = ""]) => !ownFields.includes(field));
      return kept?.length === 0 ? [] : [[key.replace(queue, ""), { ...rest, fields: kept }]];
    });
  }
});

describe("handing over", () => {
  const fixture = timedStore();
  const claims = [
    { count: 2, leaseMs: 5_000, workerId: "a" },
    { count: 1, leaseMs: 0, workerId: "b" },
  ];
  const handOver = (queue: string, call: number, nonce: number, jobs = manyJobs(5)) =>
    fixture.store.handOver(queue, "hub", call, claims, jobs, nonce);

  it("gives its jobs to the claims in their order, and leaves the others READY, with a bell", async () => {
    const over = await handOver("order", 1, 7);
    if (!over || over === "again") throw new Error("it was not handed over");
    expect(over.jobs.map(ids)).toEqual([["job-0", "job-1"], ["job-2"]]);
    expect(over).toMatchObject({ remaining: true, nextDueMs: 5_000 });
    expect(await fixture.redis.llen(fixture.key("order", "wake"))).toBe(1);
    expect(ids(await fixture.reserve("order", 5))).toEqual(["job-3", "job-4"]);
    expect(await fixture.release(over.jobs.flat())).toEqual(["COMPLETED", "COMPLETED", "COMPLETED"]);
  });

  it("rings no bell when all jobs are handed out", async () => {
    await handOver("all", 1, 7, manyJobs(3));
    expect(await fixture.redis.exists(fixture.key("all", "wake"))).toBe(0);
  });

  it("that is repeated, since its answer was lost, changes nothing; reserve gives its jobs again", async () => {
    const over = await handOver("again", 1, 7);
    if (!over || over === "again") throw new Error("it was not handed over");
    expect(await handOver("again", 1, 7)).toBe("again");
    expect((await fixture.store.reserve("again", "hub", 1, claims)).jobs).toEqual(over.jobs);
    expect(ids(await fixture.reserve("again", 5))).toEqual(["job-3", "job-4"]);
  });

  it("does nothing where it would overtake a job, take an id twice, or is not wanted", async () => {
    const { store, redis } = fixture;
    await store.put("ready", [job("first")]);
    await store.put("due", [job("first", { delayMs: 1_000 })]);
    await store.put("expired", [job("first")]);
    await fixture.reserve("expired", 1, { leaseMs: 1_000 });
    await store.put("taken", [job("job-1")]);
    await fixture.reserve("taken", 1, { leaseMs: 100_000 });
    await store.put("paused", [job("first")]);
    await fixture.reserve("paused", 1, { leaseMs: 100_000 });
    await store.queues.update("paused", { paused: true });
    await store.queues.update("simple", { mode: "simple" });
    await store.watch("watched", undefined, 1, 3_600_000);
    fixture.nowMs += 1_000;
    for (const queue of ["ready", "due", "expired", "taken", "paused", "simple", "watched"]) {
      const before = await dumpRedis(redis, queue);
      expect(await handOver(queue, 1, 7), queue).toBeUndefined();
      expect(await dumpRedis(redis, queue), queue).toEqual(before);
    }
    expect(await handOver("twice", 1, 7, [job("one"), job("one")])).toBeUndefined();
  });
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
    const primary = await startRedis({ config: [`port ${port}`, "bind 127.0.0.1", "repl-diskless-sync-delay 0"] });
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

function claimsOf(counts: readonly number[]) {
  return counts.map((count, i) => ({ count, leaseMs: i * LEASE_MS, workerId: `worker-${i}` }));
}

function numbered(id: number, odd: boolean): NewJob {
  return job(`job-${id}`, { spec: Buffer.alloc(id, "x"), priority: odd && id % 5 === 0 ? 3 : 0 });
}
