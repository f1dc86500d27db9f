/** What wingman's users had: concurrency keys, a look at everything, and blocking calls that lose nothing. */
import { describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { subscribeAndNeverRead } from "../e2e/raw-client.ts";
import { at, hours, inMs, ms, untilState } from "../rpc/fixture.ts";
import type { RawStream } from "../rpc/raw-client.ts";
import { until } from "../support/wait.ts";
import { BURIED, COMPLETED, countCommands, idsOf, numbered, Room, text } from "./support.ts";

const room = new Room({ brokers: 3 });

const KEY = "customer 42";
const keyed = (limit: number) => ({ concurrency: { key: KEY, limit } });

/** So many jobs of the key can be taken at once, neither more nor fewer: no slot is leaked, or counted twice. */
async function expectSlots(limit: number): Promise<void> {
  const ids = numbered(limit + 2).map((n) => `probe ${n}`);
  await room.putMany(ids, { ...keyed(limit), priority: 9 });
  const jobs = await room.take();
  expect(idsOf(jobs)).toEqual(ids.slice(0, limit));
  expect(await room.take()).toEqual([]);
  for (const id of ids) await room.client.good("delete", { queue: room.queue, id });
}

describe("Concurrency keys: a job may name a key and a limit n", () => {
  it("never more than n leases of one key run, over all brokers", async () => {
    const [limit, keys] = [3, ["a", "b"]];
    const ids = numbered(120).map((n) => `${keys[Number(n) % 2]}-${n}`);
    const queue = room.queue;
    const jobs = ids.map((id) => ({ queue, id, concurrency: { key: id.slice(0, 1), limit } }));
    await room.client.good("putMany", { jobs });
    const streams: { stream: RawStream; seen: number; client: (typeof room.clients)[number] }[] = [];
    for (const client of [...room.clients, ...room.clients]) {
      streams.push({ stream: await room.opened({ maxOutstanding: 10 }, client), seen: 0, client });
    }
    const running = new Map(keys.map((key) => [key, 0]));
    const most = new Map(keys.map((key) => [key, 0]));
    let completed = 0;
    const count = (id: string, by: number) => {
      const key = id.slice(0, 1);
      running.set(key, (running.get(key) ?? 0) + by);
      most.set(key, Math.max(most.get(key) ?? 0, running.get(key) ?? 0));
    };
    await until(
      async () => {
        const fresh = streams.flatMap((one) => {
          const jobs = one.stream.jobs().slice(one.seen);
          one.seen += jobs.length;
          return jobs.map((job) => ({ job, client: one.client }));
        });
        for (const { job } of fresh) count(job.id, 1);
        for (const { job, client } of fresh) {
          // It runs no longer as soon as the broker may have heard of its end.
          count(job.id, -1);
          await client.good("release", { leaseToken: job.leaseToken, outcome: COMPLETED });
          completed += 1;
        }
        return completed === ids.length;
      },
      { what: "all jobs to be done", withinMs: 15_000 },
    );
    expect(idsOf(streams.flatMap(({ stream }) => stream.jobs())).sort()).toEqual([...ids].sort());
    expect([...most.values()]).toEqual([limit, limit]);
    expect(await room.fixture.redis.hgetall(`baton:{${queue}}:slots`)).toEqual({});
  });

  it("over the limit a job is HELD, in order; others are not held up", async () => {
    await room.putMany(["1", "2", "3", "4"], keyed(1));
    await room.put("plain");
    expect(idsOf(await room.take())).toEqual(["1", "plain"]);
    expect((await room.shown()).counts).toMatchObject({ held: 3n, reserved: 2n, ready: 0n });
    const { jobs } = await room.client.good("list", { queue: room.queue, state: JobState.HELD });
    expect(jobs.map(({ id, state }) => [id, state])).toEqual(["2", "3", "4"].map((id) => [id, JobState.HELD]));
    expect(jobs[0]?.concurrency).toMatchObject({ key: KEY, limit: 1 });
  });

  describe("whatever frees a slot brings the next one of that key back at its old place, ahead of later jobs", () => {
    const queueOf = () => ({ queue: room.queue, id: "first" });
    it.each<[string, (leaseToken: string) => Promise<unknown>]>([
      ["completed", (leaseToken) => room.client.good("release", { leaseToken, outcome: COMPLETED })],
      ["failed for good", (leaseToken) => room.client.good("release", { leaseToken, outcome: BURIED })],
      [
        "failed, to be tried again",
        (leaseToken) =>
          room.client.good("release", { leaseToken, outcome: { case: "failed", value: { retryAfter: hours(1) } } }),
      ],
      [
        "returned",
        (leaseToken) =>
          room.client.good("release", { leaseToken, outcome: { case: "returned", value: { delay: hours(1) } } }),
      ],
      ["expired", async () => untilState(room.client, room.queue, "held 1", JobState.READY)],
      ["deleted", () => room.client.good("delete", queueOf())],
      ["cancelled", () => room.client.good("cancel", queueOf())],
      ["purged", () => room.queues.good("purgeQueue", { queue: room.queue, states: [JobState.RESERVED] })],
    ])("%s", async (how, free) => {
      await room.put("first", { ...keyed(1), retry: { maxAttempts: 1 }, ...(how.includes("again") && { retry: {} }) });
      const [job] = await room.take(1, { leaseDuration: how === "expired" ? ms(100) : hours(1) });
      await room.putMany(["held 1", "held 2"], keyed(1));
      expect(await room.take()).toEqual([]);
      await room.putMany(["later, plain"]);
      await room.putMany(["later, of the key"], keyed(1));
      // At the broker that did not hold it, too.
      await free(job?.leaseToken ?? "");
      const [, other] = room.clients;
      const next = await other?.reserve({ queues: [{ name: room.queue }], maxJobs: 100 });
      expect(idsOf(next ?? [])).toEqual(["held 1", "later, plain"]);
      await room.release(next?.[0] ?? expect.fail("no job"));
      expect(idsOf(await room.take())).toEqual(["held 2"]);
      await room.queues.good("purgeQueue", { queue: room.queue, states: [JobState.RESERVED, JobState.HELD] });
      await room.client.good("delete", queueOf());
      await expectSlots(2);
    });

    it("a dead worker", async () => {
      await room.putMany(["first", "held"], { ...keyed(1), retry: { maxAttempts: 1 } });
      const dying = subscribeAndNeverRead(room.fixture.broker.address, {
        queues: [{ name: room.queue }],
        disconnectGrace: ms(100),
        maxOutstanding: 5,
      });
      await untilState(room.client, room.queue, "first", JobState.RESERVED);
      await untilState(room.client, room.queue, "held", JobState.HELD);
      await room.put("later");
      await until(async () => (await room.job("later")).state === JobState.RESERVED, {
        what: "it to have the other job",
      });
      dying.destroy();
      const jobs = await room.clients[1]?.reserve({ queues: [{ name: room.queue }], wait: ms(5_000), maxJobs: 5 });
      expect(idsOf(jobs ?? [])[0]).toBe("held");
      expect((await room.job("first")).error?.type).toBe("LEASE_EXPIRED");
    });

    it("a job that is returned at once comes back ahead of the later ones of its key", async () => {
      await room.putMany(["1", "2", "3"], keyed(1));
      const [first] = await room.take(1);
      expect(await room.take()).toEqual([]);
      await room.release(first ?? expect.fail("no job"), { case: "returned", value: {} });
      const order: string[] = [];
      for (let i = 0; i < 3; i++) {
        const [job] = await room.take();
        order.push(job?.id ?? "none");
        await room.release(job ?? expect.fail("no job"));
      }
      expect(order.slice().sort()).toEqual(["1", "2", "3"]);
      expect(order.indexOf("3")).toBe(2);
      await expectSlots(1);
    });
  });

  it("no slot is leaked, stranded or counted twice, whatever happens to the jobs at once", async () => {
    const limit = 4;
    const ids = numbered(150);
    await room.putMany(ids, { ...keyed(limit), retry: { maxAttempts: 3, initialBackoff: {} } });
    const end = async (client: (typeof room.clients)[number], leaseToken: string, id: string, turn: number) => {
      const request = { queue: room.queue, id };
      const release = (outcome: typeof COMPLETED) => client.call("release", { leaseToken, outcome });
      switch (turn % 7) {
        case 0:
          return release(COMPLETED);
        case 1:
          return release({ case: "failed", value: {} });
        case 2:
          return release({ case: "returned", value: {} });
        case 3:
          return client.good("delete", request);
        case 4:
          return client.good("cancel", request);
        case 5:
          // Both at once: one of them wins.
          return Promise.all([release(COMPLETED), client.good("delete", request)]);
        default:
          // Its lease runs out.
          return undefined;
      }
    };
    let turn = 0;
    const left = async () => {
      const { scheduled, ready, held, reserved, retrying } = (await room.shown()).counts;
      return scheduled + ready + held + reserved + retrying;
    };
    const worker = async (client: (typeof room.clients)[number]) => {
      while ((await left()) > 0n) {
        const jobs = await client.reserve({
          queues: [{ name: room.queue }],
          maxJobs: 2,
          leaseDuration: ms(200),
          wait: ms(300),
        });
        expect((await room.shown()).counts.reserved).toBeLessThanOrEqual(limit);
        for (const { leaseToken, id } of jobs) await end(client, leaseToken, id, turn++);
      }
    };
    await Promise.all([...room.clients, ...room.clients].map(worker));
    await expectSlots(limit);
    await room.queues.good("purgeQueue", { queue: room.queue, states: [JobState.RESERVED, JobState.READY] });
    expect(await room.fixture.redis.hgetall(`baton:{${room.queue}}:slots`)).toEqual({});
  });

  it("no spinning: workers that wait beside held jobs cost what idle ones cost", async () => {
    await room.putMany(numbered(500), keyed(1));
    const [running] = await room.take(1, { leaseDuration: hours(1) });
    for (const client of room.clients) await room.opened({ maxOutstanding: 10 }, client);
    await until(async () => (await room.shown()).counts.held === 499n, { what: "the others to be held" });
    const asked = await countCommands(room.fixture.broker.redis, room.queue, 2_000);
    // Three brokers, each with a look a second and a sweep every two.
    expect(asked).toBeLessThanOrEqual(3 * 2 * 2);
    await room.release(running ?? expect.fail("no job"));
    await untilState(room.client, room.queue, "1", JobState.RESERVED);
  });

  it("the limit of the job put last holds for all of the key", async () => {
    await room.putMany(["1", "2", "3", "4"], keyed(1));
    expect(await room.take()).toHaveLength(1);
    expect(await room.take()).toHaveLength(0);
    await room.put("5", keyed(3));
    expect(idsOf(await room.take())).toEqual(["2", "3"]);
  });
});

describe("Peek, sizes, records and counters", () => {
  it("Peek (the next jobs without touching them)", async () => {
    await room.putMany(["a", "b", "c"], { payload: text("look") });
    await room.put("urgent", { priority: 9 });
    const before = await room.fixture.dump();
    const peek = async (pageToken = "") =>
      room.client.good("list", { queue: room.queue, state: JobState.READY, pageSize: 2, pageToken });
    const first = await peek();
    expect(first.jobs).toMatchObject([{ id: "urgent" }, { id: "a", payload: text("look"), attempt: 0 }]);
    expect(idsOf((await peek(first.nextPageToken)).jobs)).toEqual(["b", "c"]);
    expect(await room.fixture.dump()).toEqual(before);
    expect(idsOf(await room.take())).toEqual(["urgent", "a", "b", "c"]);
  });

  it("sizes per state", async () => {
    const fails = async (id: string, permanent: boolean) => {
      await room.put(id, { priority: 9 });
      const [job] = await room.take(1);
      await room.release(job ?? expect.fail("no job"), { case: "failed", value: { permanent, retryAfter: hours(1) } });
    };
    await fails("failed", true);
    await fails("retrying", false);
    await room.put("completed");
    await room.release((await room.take(1))[0] ?? expect.fail("no job"));
    await room.putMany(["reserved", "held"], keyed(1));
    await room.take();
    await room.putMany(["ready 1", "ready 2"]);
    await room.put("scheduled", { start: { case: "delay", value: hours(1) } });
    expect((await room.shown()).counts).toMatchObject({
      scheduled: 1n,
      ready: 2n,
      held: 1n,
      reserved: 1n,
      retrying: 1n,
      completed: 1n,
      failed: 1n,
    });
    expect(inMs((await room.shown()).oldestReadyAge)).toBeLessThan(10_000);
  });

  it("processing and failed records readable with worker, times and error", async () => {
    const began = await room.fixture.nowMs();
    await room.putMany(["fails", "runs"], { payload: text("in") });
    const [fails] = await room.take(1, { workerId: "worker 1" });
    await room.release(fails ?? expect.fail("no job"), BURIED);
    await room.take(1, { workerId: "worker 2", leaseDuration: hours(1) });
    const list = async (state: JobState) => (await room.client.good("list", { queue: room.queue, state })).jobs;

    const [running, ...others] = await list(JobState.RESERVED);
    expect(others).toEqual([]);
    expect(running).toMatchObject({ id: "runs", workerId: "worker 2", attempt: 1, payload: text("in") });
    const now = await room.fixture.nowMs();
    for (const time of [running?.putAt, running?.reservedAt]) {
      expect(at(time)).toBeGreaterThanOrEqual(began);
      expect(at(time)).toBeLessThanOrEqual(now);
    }
    expect(at(running?.leaseExpiresAt) - at(running?.reservedAt)).toBe(3_600_000);

    const [failed] = await list(JobState.FAILED);
    const error = { message: "broken", type: "Bad", permanent: true };
    expect(failed).toMatchObject({ id: "fails", workerId: "worker 1", failures: 1, error });
    expect(at(failed?.finishedAt)).toBeGreaterThanOrEqual(at(failed?.reservedAt));
    expect(at(failed?.reservedAt)).toBeGreaterThanOrEqual(at(failed?.putAt));
  });

  it("success and failure counters, each job once, atomically with its transition, in total and per day", async () => {
    await room.putMany(["good", "bad", "retried"]);
    const [good, bad, retried] = await room.take();
    for (const [job, outcome] of [
      [good, COMPLETED],
      [bad, BURIED],
      [retried, { case: "failed", value: { retryAfter: {} } }],
    ] as const) {
      // Repeated, as a client does whose answer was lost.
      for (let i = 0; i < 3; i++) await room.release(job ?? expect.fail("no job"), outcome);
    }
    const expected = { put: 3n, completed: 1n, failed: 1n, pulled: 0n };
    expect((await room.shown()).totals).toMatchObject(expected);
    await room.release((await room.take(1))[0] ?? expect.fail("no job"));
    const { totals, days, counts } = await room.shown();
    expect(totals).toMatchObject({ ...expected, completed: 2n });
    expect(days.map(({ counters }) => counters)).toMatchObject([{ ...expected, completed: 2n }]);
    expect(days[0]?.date).toBe(new Date(await room.fixture.nowMs()).toISOString().slice(0, 10));
    expect(counts).toMatchObject({ completed: 2n, failed: 1n });
  });

  it("at no moment does a job count that has not finished, or has one finished that does not count", async () => {
    const ids = numbered(300);
    await room.putMany(ids);
    const jobs = await room.take(1_000);
    let done = false;
    const looking = (async () => {
      while (!done) {
        const { counts, totals } = await room.shown();
        expect([totals.completed, totals.failed]).toEqual([counts.completed, counts.failed]);
      }
    })();
    for (const [i, job] of jobs.entries()) await room.release(job, i % 3 === 0 ? BURIED : COMPLETED);
    done = true;
    await looking;
    expect((await room.shown()).totals).toMatchObject({ completed: 200n, failed: 100n });
  });

  it("counters per day reach back 180 days; what is older counts in the total", async () => {
    await room.put("today");
    const { redis } = room.fixture;
    const [stats, meta] = ["stats", "meta"].map((part) => `baton:{${room.queue}}:${part}`) as [string, string];
    const today = Math.floor((await room.fixture.nowMs()) / 86_400_000);
    await redis.hset(stats, `completed:${today - 179}`, 5, `completed:${today - 180}`, 7, `failed:${today - 400}`, 11);
    await redis.hdel(meta, "stats_day");
    await until(async () => !(await redis.hexists(stats, `failed:${today - 400}`)), { what: "the daily round" });
    const { days, totals } = await room.shown();
    expect(totals).toMatchObject({ put: 1n, completed: 12n, failed: 11n });
    const dateOf = (day: number) => new Date(day * 86_400_000).toISOString().slice(0, 10);
    expect(days.map(({ date }) => date)).toEqual([dateOf(today), dateOf(today - 179)]);
  });
});

describe("Blocking time-out and cancellation by the caller lose no job", () => {
  it("time-out: a wait that is over answers with nothing, and what comes then is for the next caller", async () => {
    const began = performance.now();
    expect(await room.take(1, { wait: ms(200) })).toEqual([]);
    expect(performance.now() - began).toBeGreaterThanOrEqual(195);
    await room.put("job");
    expect(await room.take()).toMatchObject([{ id: "job", attempt: 1 }]);
  });

  it("whenever a caller goes, by time-out, deadline or cancellation, every job is handed out", async () => {
    const rounds = 120;
    const got = new Map<string, number>();
    const note = (jobs: readonly { id: string; attempt: number }[]) => {
      for (const { id, attempt } of jobs) {
        // Nobody gets the same attempt twice.
        expect(attempt).toBeGreaterThan(got.get(id) ?? 0);
        got.set(id, attempt);
      }
    };
    for (let round = 0; round < rounds; round++) {
      const client = room.clients[round % 3] ?? room.client;
      // A lease that is on its way to nobody ends soon.
      const request = { queues: [{ name: room.queue }], maxJobs: 2, leaseDuration: ms(500) };
      const calls = [
        client.start("reserve", { ...request, wait: ms(1 + (round % 6)) }),
        client.start("reserve", { ...request, wait: hours(0.1) }, { deadline: Date.now() + 1 + (round % 5) }),
        client.start("reserve", { ...request, wait: hours(0.1) }),
      ];
      const putting = room.client.good("put", { queue: room.queue, id: `${round}` });
      // At any moment of the put, from before it is sent to after it was answered.
      if (round % 4 === 1) await putting;
      if (round % 4 === 2) await new Promise(setImmediate);
      calls[2]?.cancel();
      await putting;
      for (const { answer } of calls) {
        const it = await answer;
        if ("response" in it) note(it.response.jobs);
        else expect(["CANCELLED", "DEADLINE_EXCEEDED"]).toContain(it.error.code);
      }
    }
    const goOn = async () => {
      note(await room.take(100, { wait: ms(200), leaseDuration: hours(1) }));
      return got.size === rounds;
    };
    await until(goOn, { what: "every job to be handed out", withinMs: 10_000 });
  });
});
