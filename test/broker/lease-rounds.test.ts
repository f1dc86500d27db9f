/** What it costs to keep very many leases, and that none is forgotten. */
import { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import type { Subscription, SubscriptionEvent } from "../../src/broker/subscription.ts";
import type { LeasedJob } from "../../src/model/job.ts";
import { queueKey } from "../../src/store/keys.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { type ExtendCall, type InnerBroker, numbered, putAll, startInnerBroker, streamAt } from "./inner-broker.ts";

const LEASE_MS = 3_000;
/** Renewals are due after a third of the lease. */
const PERIOD_MS = LEASE_MS / 3;
/** As held-leases.ts has it. */
const TICK_MS = 250;
const CALL_LEASES = 1_000;
/** Sweeps and the like, which come by the clock, in a few seconds. */
const BACKGROUND = 60;

type Stream = { readonly subscription: Subscription; readonly jobs: LeasedJob[]; readonly events: SubscriptionEvent[] };

/** Two brokers on a Redis, and streams at them. */
class Scene implements AsyncDisposable {
  readonly redis: TestRedis;
  readonly inner: InnerBroker;
  readonly other: InnerBroker;
  readonly streams: Stream[] = [];
  readonly #admin: Redis;

  private constructor(redis: TestRedis, inner: InnerBroker, other: InnerBroker) {
    this.redis = redis;
    this.inner = inner;
    this.other = other;
    this.#admin = new Redis(redis.socketPath);
  }

  static async set(): Promise<Scene> {
    const redis = await startRedis();
    return new Scene(redis, await startInnerBroker({ redis, redisTimeoutMs: 300 }), await startInnerBroker({ redis }));
  }

  async open(at: InnerBroker, options: Parameters<typeof streamAt>[1] = {}, queue = "q"): Promise<Stream> {
    const credit = { maxOutstanding: 1_000, maxBytes: 0 };
    const subscription = at.broker.subscribe(streamAt(queue, { leaseMs: LEASE_MS, credit, ...options }));
    const stream: Stream = { subscription, jobs: [], events: [] };
    const read = async () => {
      for (let event = await subscription.next(); event; event = await subscription.next()) {
        stream.events.push(event);
        if (event.kind === "jobs") stream.jobs.push(...event.jobs);
      }
    };
    void read();
    this.streams.push(stream);
    await until(() => stream.events.length > 0, { what: "the stream to start" });
    return stream;
  }

  /** A stream with so many jobs of its own. */
  async withJobs(at: InnerBroker, howMany: number, prefix: string): Promise<Stream> {
    const stream = await this.open(at, { credit: { maxOutstanding: howMany, maxBytes: 0 } });
    await putAll(at.store, "q", numbered(howMany, prefix));
    await until(() => stream.jobs.length === howMany, { what: `${howMany} jobs` });
    return stream;
  }

  async scriptCalls(): Promise<number> {
    const [, calls] = /cmdstat_evalsha:calls=(\d+)/.exec(await this.#admin.info("commandstats")) ?? [];
    return Number(calls);
  }

  /** How much is left of the lease that ends next. */
  async leastLeftMs(): Promise<number> {
    const [, endsAtMs] = await this.#admin.zrange(queueKey("inner", "q", "reserved"), "0", "0", "WITHSCORES");
    const [seconds, microseconds] = await this.#admin.time();
    return Number(endsAtMs) - Number(seconds) * 1_000 - Math.floor(Number(microseconds) / 1_000);
  }

  /** Of each stream. */
  get inHand(): number[] {
    return this.streams.map(({ subscription }) => subscription.jobsInHand);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { subscription } of this.streams) subscription.close();
    await this.inner.stop();
    await this.other.stop();
    this.#admin.disconnect();
    await this.redis.stop();
  }
}

describe.concurrent("the leases of many jobs", { timeout: 40_000 }, () => {
  const renewals = ({ store }: InnerBroker, afterMs: number) =>
    store.extensions.filter(({ isTakeOver, atMs }) => !isTakeOver && atMs >= afterMs);

  /** Those of so many periods, after one in which what is under way comes to an end. */
  async function nextRenewals(at: InnerBroker, periods: number): Promise<readonly ExtendCall[]> {
    const fromMs = performance.now() + PERIOD_MS + TICK_MS;
    const untilMs = fromMs + periods * (PERIOD_MS + TICK_MS);
    const isOver = () => performance.now() >= untilMs && renewals(at, fromMs).length > 0;
    await until(isOver, { what: `${periods} periods with renewals`, withinMs: 15_000 });
    return renewals(at, fromMs);
  }

  const sizes = (calls: readonly ExtendCall[]) => calls.map(({ leases }) => leases);
  const isRevoked = ({ events }: Stream) => events.some(({ kind }) => kind === "revoked");

  it("cost one call for each 1,000 and period, also when they came at different times, and none runs low", async () => {
    await using scene = await Scene.set();
    const { inner, streams } = scene;
    for (let i = 0; i < 5; i++) await scene.withJobs(inner, CALL_LEASES, `early-${i}`);
    await nextRenewals(inner, 1);
    // In the middle of a round, one after the other.
    for (let i = 0; i < 5; i++) {
      const lastMs = inner.store.extensions.at(-1)?.atMs ?? 0;
      await until(() => performance.now() - lastMs > (i % 3) * 200, { what: "some time to pass" });
      await scene.withJobs(inner, CALL_LEASES, `late-${i}`);
    }
    let least = await scene.leastLeftMs();
    const watching = setInterval(() => {
      scene.leastLeftMs().then(
        (left) => {
          least = Math.min(least, left);
        },
        () => {},
      );
    }, 20);
    const before = await scene.scriptCalls();
    const fromMs = performance.now();
    const calls = await nextRenewals(inner, 3);
    const periods = Math.ceil((performance.now() - fromMs) / PERIOD_MS);
    clearInterval(watching);
    expect(sizes(calls)).toEqual(Array(calls.length).fill(CALL_LEASES));
    expect(calls.length).toBeGreaterThanOrEqual(20);
    expect((await scene.scriptCalls()) - before).toBeLessThan(10 * (periods + 1) + BACKGROUND);
    expect(least).toBeGreaterThan(LEASE_MS - PERIOD_MS - 2 * TICK_MS - 1_000);
    expect(streams.filter(isRevoked)).toEqual([]);
    expect(scene.inHand).toEqual(Array(10).fill(CALL_LEASES));
  });

  it("outlive a Redis that does not answer for a part of a round, and then go together again", async () => {
    await using scene = await Scene.set();
    const { inner, streams, redis } = scene;
    await scene.withJobs(inner, CALL_LEASES, "one");
    await scene.withJobs(inner, CALL_LEASES, "two");
    const failures = () => inner.log.filter(({ message }) => message === "leases not extended").length;
    redis.pause();
    try {
      await until(() => failures() > 0, { what: "a failure", withinMs: 2 * PERIOD_MS });
    } finally {
      redis.resume();
    }
    const calls = await nextRenewals(inner, 2);
    expect(sizes(calls)).toEqual(Array(calls.length).fill(CALL_LEASES));
    expect(streams.filter(isRevoked)).toEqual([]);
    expect((await inner.store.queues.get("q")).counts.RESERVED).toBe(2 * CALL_LEASES);
    expect(scene.inHand).toEqual([CALL_LEASES, CALL_LEASES]);
  });

  it("that are taken over join the rounds of those that are there, after a first renewal of their own", async () => {
    await using scene = await Scene.set();
    const { inner, other } = scene;
    const old = await scene.withJobs(inner, 400, "old");
    await scene.withJobs(other, 600, "own");
    const resumed = await other.broker.resume(old.jobs, LEASE_MS);
    expect(resumed.kept).toHaveLength(400);
    const taker = await scene.open(other, { resumed });
    await until(() => old.subscription.jobsInHand === 0, { what: "the old stream to let go" });
    await nextRenewals(other, 1);
    const calls = await nextRenewals(other, 2);
    expect(sizes(calls)).toEqual(Array(calls.length).fill(1_000));
    expect(taker.subscription.jobsInHand).toBe(400);
    expect(renewals(inner, performance.now() - PERIOD_MS), "the old broker renews them no more").toEqual([]);
  });

  it("belong to the stream that took them over last, also when that was opened first", async () => {
    await using scene = await Scene.set();
    const { inner, other } = scene;
    const streamsOf = async (queue: string) => {
      const stream = await scene.open(inner, {}, queue);
      await putAll(inner.store, queue, ["job"]);
      await until(() => stream.jobs.length === 1, { what: "the job" });
      return stream.jobs;
    };
    const [one, two] = [await streamsOf("one"), await streamsOf("two")];
    // The first has to ask for two queues, one after the other; so the second takes over later, and is done sooner.
    const slow = other.broker.resume([...one, ...two], LEASE_MS);
    const quick = other.broker.resume(one, LEASE_MS);
    const last = await scene.open(other, { resumed: await quick }, "one");
    const late = await scene.open(other, { resumed: await slow }, "two");
    await nextRenewals(other, 3);
    expect({ last: last.subscription.jobsInHand, late: late.subscription.jobsInHand }).toEqual({ last: 1, late: 1 });
    expect(await inner.store.get("one", "job")).toMatchObject({ state: "RESERVED", attempt: 1, failures: 0 });
    expect([...late.events, ...last.events].filter(({ kind }) => kind === "revoked")).toEqual([]);
  });
});
