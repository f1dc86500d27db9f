/** Very many streams at one queue: what they cost, and whether each gets its share. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Subscription } from "../../src/broker/subscription.ts";
import type { LeasedJob } from "../../src/model/job.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until, within } from "../support/wait.ts";
import { completeAll, type InnerBroker, numbered, putAll, startInnerBroker, streamAt } from "./inner-broker.ts";

/** As hub.ts has it: for so many is asked when a queue has been empty. */
const FIRST_WINDOW = 16;

type Worker = { readonly stream: Subscription; readonly jobs: LeasedJob[]; readonly ended: Promise<void> };

describe("a thousand streams at one queue", () => {
  let redis: TestRedis;
  let inner: InnerBroker;
  let queue: string;
  let count = 0;
  const workers: Worker[] = [];
  let delivered = 0;
  let onDelivery = () => {};

  beforeAll(async () => {
    redis = await startRedis();
    // What a lost bell would make good only late shows as a test that takes too long.
    inner = await startInnerBroker({ redis, fallbackIntervalMs: 30_000 });
  });

  afterAll(async () => {
    await inner?.stop();
    await redis?.stop();
  });

  beforeEach(() => {
    count += 1;
    queue = `crowd-${count}`;
    delivered = 0;
  });

  afterEach(async () => {
    for (const { stream } of workers) stream.close();
    await Promise.all(workers.splice(0).map(({ ended }) => ended));
  });

  function open(howMany: number, options: Parameters<typeof streamAt>[1] = {}): Worker[] {
    const opened = Array.from({ length: howMany }, (): Worker => {
      const stream = inner.broker.subscribe(streamAt(queue, options));
      const jobs: LeasedJob[] = [];
      const read = async () => {
        for (let event = await stream.next(); event; event = await stream.next()) {
          if (event.kind !== "jobs") continue;
          jobs.push(...event.jobs);
          delivered += event.jobs.length;
          onDelivery();
        }
      };
      return { stream, jobs, ended: read() };
    });
    workers.push(...opened);
    return opened;
  }

  /** Resolves when so many jobs have been delivered in all. */
  function deliveries(total: number, withinMs = 10_000): Promise<void> {
    const reached = new Promise<void>((resolve) => {
      onDelivery = () => {
        if (delivered >= total) resolve();
      };
      onDelivery();
    });
    return within(reached, { what: `${total} deliveries (${delivered} so far)`, withinMs });
  }

  async function putOneByOne(howMany: number): Promise<void> {
    const from = delivered;
    for (let i = 0; i < howMany; i++) {
      await putAll(inner.store, queue, [`single-${from + i}`]);
      await deliveries(from + i + 1);
    }
  }

  const reserve = (options: { maxJobs: number; waitMs: number }, signal = new AbortController().signal) =>
    inner.broker.reserve(
      {
        queues: [{ name: queue, weight: 1 }],
        policy: "strict",
        leaseMs: 30_000,
        workerId: "caller",
        mode: "lease",
        ...options,
      },
      { peer: "127.0.0.1:1", userAgent: "", signal },
    );

  it("costs a put no more than a look for a few of them, and each gets its turn", async () => {
    open(1_000);
    await putOneByOne(1);
    const before = inner.store.claims.length;
    await putOneByOne(99);
    const calls = inner.store.claims.slice(before);
    expect(Math.max(...calls)).toBeLessThanOrEqual(FIRST_WINDOW);
    expect(calls.length).toBeLessThanOrEqual(3 * 99);
    expect(Math.max(...workers.map(({ jobs }) => jobs.length))).toBe(1);
  });

  it("gives to who has had nothing before who has had one gets a second", async () => {
    open(50);
    for (let round = 1; round <= 4; round++) {
      await putOneByOne(50);
      expect(new Set(workers.map(({ jobs }) => jobs.length))).toEqual(new Set([round]));
    }
  });

  it("drains 5,000 jobs to 1,000 streams in a few calls", async () => {
    open(1_000);
    await putOneByOne(1);
    const before = inner.store.claims.length;
    await putAll(inner.store, queue, numbered(4_999));
    await deliveries(5_000);
    expect(new Set(workers.map(({ jobs }) => jobs.length))).toEqual(new Set([5]));
    expect(inner.store.claims.length - before).toBeLessThan(40);
  });

  it("is served again as it releases: everything that is put runs once", async () => {
    open(1_000, { credit: { maxOutstanding: 2, maxBytes: 0 } });
    const jobs = numbered(10_000);
    await putAll(inner.store, queue, jobs);
    const seen = new Set<string>();
    const isDone = async () => {
      const fresh = workers.flatMap((worker) => worker.jobs.splice(0));
      for (const { id, attempt } of fresh) {
        expect({ attempt, isNew: !seen.has(id) }).toEqual({ attempt: 1, isNew: true });
        seen.add(id);
      }
      await completeAll(inner.broker, fresh);
      return seen.size === jobs.length;
    };
    await until(isDone, { what: "all jobs", withinMs: 20_000 });
    expect((await inner.store.queues.get(queue)).counts.COMPLETED).toBe(jobs.length);
  }, 30_000);

  it("does not keep from an answer two Reserves that don't wait, ask for the most, and come at once", async () => {
    for (const howMany of [0, 1_000]) {
      open(howMany);
      const both = Promise.all([reserve({ maxJobs: 1_000, waitMs: 0 }), reserve({ maxJobs: 1_000, waitMs: 0 })]);
      expect(await within(both, { what: "both answers", withinMs: 1_000 })).toEqual([[], []]);
    }
    const many = Array.from({ length: 50 }, () => reserve({ maxJobs: 1_000, waitMs: 0 }));
    const answers = await within(Promise.all(many), { what: "fifty answers", withinMs: 2_000 });
    expect(answers.flat()).toEqual([]);
  });

  it("shares with Reserves that wait and that don't: each call is answered, and each job runs once", async () => {
    const total = 2_000;
    open(200, { credit: { maxOutstanding: 3, maxBytes: 0 } });
    open(100, { credit: { maxOutstanding: 3, maxBytes: 4_000_000 } });
    const taken: LeasedJob[] = [];
    const calling = { goes: true };
    const call = async (waitMs: number, maxJobs: number) => {
      while (calling.goes) {
        const jobs = await reserve({ waitMs, maxJobs });
        taken.push(...jobs);
        if (jobs.length > 0) await completeAll(inner.broker, jobs);
      }
    };
    const calls = [0, 0, 0, 50, 50, 200].map((waitMs, i) => call(waitMs, 1 + 50 * i));
    const seen: string[] = [];
    const finished = (async () => {
      for (let i = 0; i < total; i += 100) await putAll(inner.store, queue, numbered(100, `batch-${i}`));
      const isDone = async () => {
        const fresh = workers.flatMap((worker) => worker.jobs.splice(0));
        await completeAll(inner.broker, fresh);
        seen.push(...fresh.map(({ id }) => id));
        return seen.length + taken.length >= total;
      };
      await until(isDone, { what: "all jobs", withinMs: 20_000 });
    })();
    await finished.finally(() => {
      calling.goes = false;
    });
    await within(Promise.all(calls), { what: "the last answers" });
    expect(new Set([...seen, ...taken.map(({ id }) => id)]).size).toBe(total);
    expect(seen.length + taken.length).toBe(total);
    expect(taken.length).toBeGreaterThan(0);
  }, 30_000);

  it("lets a Reserve that waits have its turn behind those that came before it", async () => {
    open(30);
    const answer = reserve({ maxJobs: 1, waitMs: 10_000 });
    await putOneByOne(30);
    await putAll(inner.store, queue, ["for the caller"]);
    expect((await within(answer, { what: "the answer" })).map(({ id }) => id)).toEqual(["for the caller"]);
    expect(delivered).toBe(30);
  });
});
