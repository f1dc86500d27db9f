/** What exq's users had: scheduling, retries, a dead letter, unique jobs, bulk, several queues, and a look at workers. */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { BackoffCurve, JobState, type ReservedJob, UniqueUntil } from "../../gen/baton/v1/job_pb.js";
import { OnConflict, QueuePolicy, RevokedReason } from "../../gen/baton/v1/job_service_pb.js";
import { subscribeAndNeverRead } from "../e2e/raw-client.ts";
import { at, days, expectLeaseLost, hours, inMs, ms, untilState } from "../rpc/fixture.ts";
import { errorIn, RawClient, type RawStream, type Request } from "../rpc/raw-client.ts";
import { startBroker } from "../support/broker.ts";
import { until } from "../support/wait.ts";
import { BURIED, COMPLETED, idsOf, numbered, type Outcome, Room, runAt, text } from "./support.ts";

const room = new Room({ brokers: 3, settings: { sweepIntervalMs: 200 } });

const FAILED: Outcome = { case: "failed", value: { message: "not yet" } };

async function buried(ids: readonly string[], more: Request<"put"> = {}): Promise<void> {
  await room.putMany(ids, more);
  for (const job of await room.client.reserveMany(room.queue, ids.length)) await room.release(job, BURIED);
}

const failedIds = async () => {
  const { jobs } = await room.client.good("list", { queue: room.queue, state: JobState.FAILED, pageSize: 1_000 });
  return idsOf(jobs);
};

describe("Scheduled and retrying jobs move when due", () => {
  it("in pages, from any number of brokers, no loss and no double", async () => {
    const due = (await room.fixture.nowMs()) + 1_000;
    // Several pages of 100 each, all due in the same moment.
    const scheduled = numbered(700).map((n) => `scheduled ${n}`);
    const retrying = numbered(300).map((n) => `retrying ${n}`);
    await room.putMany(retrying, { retry: { maxAttempts: 5 } });
    const jobs = await room.client.reserveMany(room.queue, retrying.length);
    const retryAfter = ms(due - (await room.fixture.nowMs()));
    const releases = jobs.map(({ leaseToken }) => ({
      leaseToken,
      outcome: { case: "failed", value: { retryAfter } } as const,
    }));
    await room.client.good("releaseMany", { releases });
    await room.putMany(scheduled, { start: runAt(due) });
    const { counts } = await room.shown();
    expect([counts.scheduled, counts.retrying]).toEqual([700n, 300n]);
    const streams: RawStream[] = [];
    for (const client of room.clients) streams.push(await room.opened({ maxOutstanding: 1_000 }, client));
    const got = () => streams.flatMap((stream) => stream.jobs());
    await until(() => got().length >= 1_000, { what: "all jobs", withinMs: 10_000 });
    expect(await room.fixture.nowMs()).toBeGreaterThanOrEqual(due);
    expect((await room.shown()).counts).toMatchObject({ scheduled: 0n, retrying: 0n, ready: 0n, reserved: 1_000n });
    expect(idsOf(got()).sort()).toEqual([...scheduled, ...retrying].sort());
    for (const { id, attempt, failures } of got()) {
      expect([attempt, failures]).toEqual(id.startsWith("s") ? [1, 0] : [2, 1]);
    }
  });

  it("a record that cannot be read is set aside with a logged error and blocks nobody", async () => {
    const { redis } = room.fixture;
    const due = (await room.fixture.nowMs()) + 200;
    await room.putMany(["before", "broken", "after"], { start: runAt(due) });
    await redis.hset(`baton:{${room.queue}}:state`, "broken", "no record");
    const stream = await room.opened({ maxOutstanding: 10 });
    expect(idsOf(await stream.got(2))).toEqual(["before", "after"]);
    const lines = () =>
      room.brokers.flatMap(({ log }) =>
        log.filter(({ level, fields }) => level === "error" && "id" in fields && fields.id === "broken"),
      );
    await until(() => lines().length > 0, { what: "the log to tell of it" });
    expect(lines()).toMatchObject([{ fields: { queue: room.queue, id: "broken" } }]);
    expect((await room.shown()).setAside).toBe(1n);
  });
});

describe("Retry policy per job with queue and server defaults", () => {
  /** Fails the job as often as it may, without waiting; the waits that it was told, in ms. */
  async function waitsOf(retry: Request<"put">["retry"], times: number): Promise<number[]> {
    await room.put("job", { ...(retry && { retry }), leaseDuration: hours(1) });
    const waits: number[] = [];
    for (let n = 1; n <= times; n++) {
      const [job] = await room.take(1, { availableBy: timestampFromMs((await room.fixture.nowMs()) + 10 ** 9) });
      expect(job).toMatchObject({ attempt: n, failures: n - 1 });
      const now = await room.fixture.nowMs();
      const { state, runAt } = await room.release(job ?? expect.fail("no job"), FAILED);
      expect(state).toBe(JobState.RETRYING);
      waits.push(at(runAt) - now);
    }
    return waits;
  }

  const between = (value: number | undefined, from: number, to: number) => {
    expect(value).toBeGreaterThanOrEqual(from - 5);
    expect(value).toBeLessThanOrEqual(to + 500);
  };

  it("attempts (0 retries: straight to the dead letter)", async () => {
    await room.put("job", { retry: { maxAttempts: 1 } });
    const [job] = await room.take();
    expect((await room.release(job ?? expect.fail("no job"), FAILED)).state).toBe(JobState.FAILED);
    expect(await failedIds()).toEqual(["job"]);
  });

  it("what the job says, else its queue, else the server", async () => {
    const statesAfterEachFailure = async (id: string, more: Request<"put"> = {}) => {
      await room.put(id, { ...more });
      const states: JobState[] = [];
      do {
        const [job] = await room.take(1, { availableBy: timestampFromMs((await room.fixture.nowMs()) + 10 ** 9) });
        states.push((await room.release(job ?? expect.fail("no job"), FAILED)).state);
      } while (states.at(-1) === JobState.RETRYING);
      return states.length;
    };
    expect(await statesAfterEachFailure("server's")).toBe(25);
    await room.queues.good("updateQueue", { queue: room.queue, settings: { retry: { maxAttempts: 3 } } });
    expect(await statesAfterEachFailure("queue's")).toBe(3);
    expect(await statesAfterEachFailure("job's", { retry: { maxAttempts: 2 } })).toBe(2);
    // What the job does not say is still the queue's.
    expect(await statesAfterEachFailure("both", { retry: { initialBackoff: ms(5) } })).toBe(3);
    const { effectiveSettings } = await room.shown();
    expect(effectiveSettings?.retry).toMatchObject({ maxAttempts: 3, multiplier: 2, jitter: 0.2 });
    expect(inMs(effectiveSettings?.retry?.maxBackoff)).toBe(3_600_000);
  });

  it("the server's defaults are settings", async () => {
    const broker = await startBroker({
      defaultMaxAttempts: 7,
      defaultInitialBackoffMs: 9_000,
      redis: room.fixture.broker.redis,
    });
    try {
      const client = new RawClient(broker.address);
      const queue = room.queue;
      await client.good("put", { queue, id: "job", retry: { jitter: 0 } });
      const { leaseToken } = await client.reserveOne(queue);
      const now = await room.fixture.nowMs();
      const { runAt } = await client.good("release", { leaseToken, outcome: FAILED });
      between(at(runAt) - now, 9_000, 9_000);
      client.close();
    } finally {
      await broker.stop();
    }
  });

  it("backoff: exponential with jitter", async () => {
    const retry = { initialBackoff: ms(10_000), multiplier: 3, maxBackoff: ms(200_000), jitter: 0.5, maxAttempts: 9 };
    const waits = await waitsOf(retry, 5);
    for (const [i, whole] of [10_000, 30_000, 90_000, 200_000, 200_000].entries()) between(waits[i], whole / 2, whole);
    // Left to chance: jobs that failed together don't return together.
    const queue = room.queue;
    await room.putMany(numbered(20), { retry, priority: 9 });
    const jobs = await room.take(20);
    const releases = jobs.map(({ leaseToken }) => ({ leaseToken, outcome: FAILED }));
    const { results } = await room.client.good("releaseMany", { releases });
    const times = results.map(({ result }) => (result.case === "released" ? at(result.value.runAt) : 0));
    expect(new Set(times).size).toBeGreaterThan(15);
    expect(Math.max(...times) - Math.min(...times)).toBeGreaterThan(2_000);
    expect((await room.client.good("list", { queue, state: JobState.RETRYING })).jobs).toHaveLength(21);
  });

  it("backoff: exq's default curve (n⁴ + 15 + jitter) by name", async () => {
    const waits = await waitsOf({ curve: BackoffCurve.EXQ }, 6);
    for (const [i, wait] of waits.entries()) {
      const n = i + 1;
      between(wait, (n ** 4 + 15) * 1_000, (n ** 4 + 15 + 30 * (n + 1)) * 1_000);
    }
    await room.client.good("delete", { queue: room.queue, id: "job" });
    await room.queues.good("updateQueue", { queue: room.queue, settings: { retry: { curve: BackoffCurve.EXQ } } });
    const [ofQueue] = await waitsOf(undefined, 1);
    between(ofQueue, 16_000, 76_000);
  });

  it("`returned{delay}` is exq's snooze: no attempt charged", async () => {
    await room.put("job", { retry: { maxAttempts: 1 } });
    for (let n = 1; n <= 5; n++) {
      const [job] = await room.take(1, { availableBy: timestampFromMs((await room.fixture.nowMs()) + 10 ** 7) });
      expect(job).toMatchObject({ id: "job", failures: 0 });
      const now = await room.fixture.nowMs();
      const snooze = { case: "returned", value: { delay: ms(60_000) } } as const;
      const { state, runAt } = await room.release(job ?? expect.fail("no job"), snooze);
      expect(state).toBe(JobState.SCHEDULED);
      between(at(runAt) - now, 60_000, 60_000);
      expect(await room.take()).toEqual([]);
    }
    expect(await room.job("job")).toMatchObject({ state: JobState.SCHEDULED, failures: 0 });
  });
});

describe("Dead letter", () => {
  it("list, look at one, retry one or all, delete one or all", async () => {
    await buried(["a", "b", "c", "d", "e"], { payload: text("in") });
    expect(await failedIds()).toEqual(["a", "b", "c", "d", "e"]);
    const error = { message: "broken", type: "Bad", permanent: true };
    expect(await room.job("b")).toMatchObject({ state: JobState.FAILED, payload: text("in"), failures: 1, error });

    expect(await room.client.good("retry", { queue: room.queue, ids: ["b"] })).toMatchObject({ retried: 1 });
    expect(await failedIds()).toEqual(["a", "c", "d", "e"]);
    expect(await room.take()).toMatchObject([{ id: "b", attempt: 2, failures: 0 }]);

    expect(await room.client.good("delete", { queue: room.queue, id: "c" })).toMatchObject({ deleted: true });
    expect(await failedIds()).toEqual(["a", "d", "e"]);

    expect(await room.client.good("retry", { queue: room.queue, allFailed: true })).toMatchObject({ retried: 3 });
    const again = await room.take();
    expect(idsOf(again)).toEqual(["a", "d", "e"]);
    for (const job of again) await room.release(job, BURIED);

    const purged = await room.queues.good("purgeQueue", { queue: room.queue, states: [JobState.FAILED] });
    expect(purged.purged).toBe(3n);
    expect(await failedIds()).toEqual([]);
    // The one that was retried still runs.
    expect((await room.job("b")).state).toBe(JobState.RESERVED);
  });

  it("trimmed by count (10,000) and age (180 days), both settings: of the broker", async () => {
    await room.put("job");
    const { effectiveSettings } = await room.shown();
    expect(effectiveSettings?.deadLetterMax).toBe(10_000);
    expect(inMs(effectiveSettings?.deadLetterAge)).toBe(180 * 86_400_000);
    const broker = await startBroker({ deadLetterMax: 3, deadLetterAgeMs: 1_500, sweepIntervalMs: 100 });
    const client = new RawClient(broker.address);
    try {
      for (const id of numbered(6)) {
        await client.good("put", { queue: "mail", id, retry: { maxAttempts: 1 } });
        const { leaseToken } = await client.reserveOne("mail");
        await client.good("release", { leaseToken, outcome: FAILED });
      }
      const left = async () => idsOf((await client.good("list", { queue: "mail", state: JobState.FAILED })).jobs);
      await until(async () => (await left()).join() === "3,4,5", { what: "the oldest three to be trimmed" });
      await until(async () => (await left()).length === 0, { what: "those that are too old to be trimmed" });
    } finally {
      client.close();
      await broker.stop();
    }
  });

  it("trimmed by count and age, both settings: of the queue", async () => {
    await room.queues.good("updateQueue", { queue: room.queue, settings: { deadLetterMax: 2 } });
    await buried(["1", "2", "3", "4"]);
    await until(async () => (await failedIds()).join() === "3,4", { what: "the oldest to be trimmed" });
    await room.queues.good("updateQueue", { queue: room.queue, settings: { deadLetterAge: ms(1_000) } });
    await until(async () => (await failedIds()).length === 0, { what: "those that are too old to be trimmed" });
  });

  it("trimmed by age: 180 days later", async () => {
    await buried(["old", "young"]);
    const { redis, nowMs } = room.fixture;
    const failed = `baton:{${room.queue}}:failed`;
    const day = 86_400_000;
    const state = await redis.hgetBuffer(`baton:{${room.queue}}:state`, "old");
    expect(state).not.toBeNull();
    // Only its place in the dead letter is moved back: a record is never written by hand.
    await redis.zadd(failed, (await nowMs()) - 180 * day - 1_000, "old", (await nowMs()) - 179 * day, "young");
    await until(async () => (await failedIds()).join() === "young", { what: "the old one to be trimmed" });
  });
});

describe("Unique jobs: a unique key holds until start, success or a time", () => {
  const put = (id: string, until: UniqueUntil, expiresIn?: ReturnType<typeof ms>) =>
    room.client.call("put", {
      queue: room.queue,
      id,
      unique: { key: "one of a kind", until, ...(expiresIn && { expiresIn }) },
    });
  const isTaken = async (...args: Parameters<typeof put>) => {
    const answer = await put(...args);
    if ("response" in answer) return false;
    expect(answer.error).toMatchObject({ code: "ALREADY_EXISTS", reason: "UNIQUE_KEY_TAKEN" });
    return true;
  };

  it("until start", async () => {
    const { START } = UniqueUntil;
    expect(await isTaken("first", START)).toBe(false);
    expect(await isTaken("second", START)).toBe(true);
    await room.take();
    expect(await isTaken("second", START)).toBe(false);
  });

  it("until success", async () => {
    const { SUCCESS } = UniqueUntil;
    expect(await isTaken("first", SUCCESS)).toBe(false);
    const [job] = await room.take();
    expect(await isTaken("second", SUCCESS)).toBe(true);
    await room.release(job ?? expect.fail("no job"), { case: "failed", value: { retryAfter: {} } });
    expect(await isTaken("second", SUCCESS)).toBe(true);
    await room.release((await room.take())[0] ?? expect.fail("no job"));
    expect(await isTaken("second", SUCCESS)).toBe(false);
  });

  it("until a time", async () => {
    const { EXPIRY } = UniqueUntil;
    expect(await isTaken("first", EXPIRY, ms(700))).toBe(false);
    await room.release((await room.take())[0] ?? expect.fail("no job"));
    expect(await isTaken("second", EXPIRY, ms(700))).toBe(true);
    const since = at((await room.job("first")).putAt);
    await until(async () => !(await isTaken("second", EXPIRY, ms(700))), { what: "the key to be free" });
    expect(await room.fixture.nowMs()).toBeGreaterThanOrEqual(since + 700);
  });

  it("a conflict answers with the earlier job's id", async () => {
    const unique = { key: "one of a kind" };
    await room.put("first", { unique, start: { case: "delay", value: hours(1) } });
    const error = await room.client.bad("put", { queue: room.queue, id: "second", unique });
    expect(error.metadata).toMatchObject({ id: "first", state: "SCHEDULED" });
    const kept = await room.put("third", { unique, onConflict: OnConflict.KEEP });
    expect(kept).toMatchObject({ created: false, jobId: "first", state: JobState.SCHEDULED });
    const { results } = await room.client.good("putMany", {
      jobs: [
        { queue: room.queue, id: "fourth", unique },
        { queue: room.queue, id: "plain" },
      ],
    });
    expect(errorIn(results[0]?.result).metadata.id).toBe("first");
    expect((await room.shown()).totals.put).toBe(2n);
  });

  it.each<[string, () => Promise<unknown>]>([
    ["delete", () => room.client.good("delete", { queue: room.queue, id: "first" })],
    ["cancel", () => room.client.good("cancel", { queue: room.queue, id: "first" })],
    ["final failure", async () => room.release((await room.take())[0] ?? expect.fail("no job"), BURIED)],
    ["purge", () => room.queues.good("purgeQueue", { queue: room.queue, states: [JobState.READY] })],
    [
      "an expired last lease",
      async () => {
        await room.take(1, { leaseDuration: ms(100) });
        await untilState(room.client, room.queue, "first", JobState.FAILED);
      },
    ],
  ])("%s frees it", async (_how, free) => {
    for (const until of [UniqueUntil.START, UniqueUntil.SUCCESS, UniqueUntil.EXPIRY]) {
      const unique = { key: "one of a kind", until, expiresIn: days(1) };
      await room.put("first", { unique, retry: { maxAttempts: 1 } });
      await free();
      expect(await room.put("second", { unique }), UniqueUntil[until]).toMatchObject({ created: true });
      await room.client.good("delete", { queue: room.queue, id: "second" });
    }
  });

  it("of a hundred producers that put at the same moment, at all brokers, one wins", async () => {
    const puts = numbered(100).map((id) => {
      const client = room.clients[Number(id) % 3] ?? room.client;
      return client.good("put", {
        queue: room.queue,
        id,
        unique: { key: "one of a kind" },
        onConflict: OnConflict.KEEP,
      });
    });
    const answers = await Promise.all(puts);
    const [winner, ...others] = answers.filter(({ created }) => created);
    expect(others).toEqual([]);
    expect(new Set(answers.map(({ jobId }) => jobId))).toEqual(new Set([winner?.jobId]));
    expect(idsOf(await room.take())).toEqual([winner?.jobId]);
  });
});

describe("Bulk put: atomic per queue, a result per job", () => {
  it("others see all of a queue's jobs or none", async () => {
    const other = room.clients[1] ?? room.client;
    const seen = new Set<number>();
    let done = false;
    const looking = (async () => {
      while (!done) {
        const { jobs } = await other.good("list", { queue: room.queue, state: JobState.READY, pageSize: 1_000 });
        seen.add(jobs.length % 200);
      }
    })();
    for (let i = 0; i < 5; i++) {
      const jobs = numbered(200).map((n) => ({ queue: room.queue, id: `${i}-${n}` }));
      await room.client.good("putMany", { jobs });
    }
    done = true;
    await looking;
    expect([...seen]).toEqual([0]);
  });

  it("one result for each job, in their order; a job that cannot be put does not hinder the others", async () => {
    const { queue } = room;
    await room.put("taken");
    const { results } = await room.client.good("putMany", {
      jobs: [
        { queue, id: "a" },
        { queue, id: "taken" },
        { queue: "no such name!", id: "b" },
        { queue, id: "c", priority: 17 },
        { queue: `${queue}-2`, id: "d", start: { case: "delay", value: hours(1) } },
        { queue, id: "taken", onConflict: OnConflict.KEEP },
      ],
    });
    const shown = results.map(({ result }) =>
      result.case === "job" ? [result.value.jobId, result.value.created] : errorIn(result).reason,
    );
    expect(shown).toEqual([["a", true], "JOB_EXISTS", "BAD_REQUEST", "BAD_REQUEST", ["d", true], ["taken", false]]);
    expect((await room.shown()).counts.ready).toBe(2n);
  });
});

describe("Priorities and several queues: strict order or weights, per Reserve or stream", { timeout: 60_000 }, () => {
  const JOBS = 10_000;
  const WITHIN = 0.05;
  const SHARES = [
    ["low", 1],
    ["middle", 2],
    ["high", 5],
  ] as const;
  const selectors = () => SHARES.map(([name, weight]) => ({ name: `${room.queue}-${name}`, weight }));

  async function putInto(queue: string, howMany: number): Promise<void> {
    for (let i = 0; i < howMany; i += 1_000) {
      const ids = numbered(Math.min(1_000, howMany - i));
      await room.client.good("putMany", { jobs: ids.map((id) => ({ queue, id: `${i}-${id}` })) });
    }
  }

  function expectShares(jobs: readonly ReservedJob[]): void {
    expect(jobs).toHaveLength(JOBS);
    for (const { name, weight } of selectors()) {
      const share = (JOBS * weight) / 8;
      const count = jobs.filter(({ queue }) => queue === name).length;
      expect(Math.abs(count - share) / share, `${name}: ${count} of ${share}`).toBeLessThan(WITHIN);
    }
  }

  it("priorities: 9 first, 0 last, the earlier first within one", async () => {
    for (const priority of [0, 3, 9, 3, 0]) await room.put("", { priority });
    const jobs = await room.take();
    expect(jobs.map(({ priority }) => priority)).toEqual([9, 3, 3, 0, 0]);
    expect(at(jobs[1]?.putAt)).toBeLessThanOrEqual(at(jobs[2]?.putAt));
  });

  it("a lower queue is served only when the higher is empty (strict): Reserve", async () => {
    const [high, low] = [`${room.queue}-high`, `${room.queue}-low`];
    await putInto(low, 3);
    await putInto(high, 3);
    const got: string[] = [];
    for (let i = 0; i < 6; i++) {
      const [job] = await room.client.reserve({ queues: [{ name: high }, { name: low }], policy: QueuePolicy.STRICT });
      got.push(job?.queue ?? "none");
    }
    expect(got).toEqual([high, high, high, low, low, low]);
  });

  it("a lower queue is served only when the higher is empty (strict): Subscribe", async () => {
    const [high, low] = [`${room.queue}-high`, `${room.queue}-low`];
    await putInto(low, 20);
    await putInto(high, 20);
    const stream = await room.opened({ queues: [{ name: high }, { name: low }], maxOutstanding: 3 });
    for (let seen = 0; seen < 40; seen++) {
      const jobs = await stream.got(seen + 1);
      if (seen === 30) {
        // What comes into the higher one now goes ahead of what is left in the lower.
        await room.client.good("put", { queue: high, id: "urgent" });
      }
      await room.release(jobs[seen] ?? expect.fail("no job"));
    }
    const jobs = await stream.got(41);
    expect(jobs.slice(0, 20).every(({ queue }) => queue === high)).toBe(true);
    const place = idsOf(jobs).indexOf("urgent");
    expect(place).toBeGreaterThan(29);
    // Those that were handed out before it count as ahead: at most the stream's credit.
    expect(place).toBeLessThanOrEqual(30 + 3);
  });

  it("in proportion (weighted; measured within 5% over 10,000 jobs): Subscribe", async () => {
    for (const { name } of selectors()) await putInto(name, JOBS);
    const stream = await room.opened({ queues: selectors(), policy: QueuePolicy.WEIGHTED, maxOutstanding: 100 });
    let released = 0;
    await until(
      async () => {
        const fresh = stream.jobs().slice(released, released + 1_000);
        released += fresh.length;
        const releases = fresh.map(({ leaseToken }) => ({ leaseToken, outcome: COMPLETED }));
        if (releases.length > 0) await room.client.good("releaseMany", { releases });
        return stream.jobs().length >= JOBS;
      },
      { what: "10,000 jobs", withinMs: 30_000 },
    );
    expectShares(stream.jobs().slice(0, JOBS));
  });

  it("in proportion (weighted; measured within 5% over 10,000 jobs): Reserve", async () => {
    for (const { name } of selectors()) await putInto(name, JOBS);
    const got: ReservedJob[] = [];
    const worker = async () => {
      while (got.length < JOBS) {
        got.push(...(await room.client.reserve({ queues: selectors(), policy: QueuePolicy.WEIGHTED, maxJobs: 2 })));
      }
    };
    await Promise.all([1, 2, 3, 4].map(worker));
    expectShares(got.slice(0, JOBS));
  });

  it("a queue that is empty leaves its share to the others (weighted)", async () => {
    const [first, , last] = selectors();
    await putInto(first?.name ?? "", 50);
    const stream = await room.opened({ queues: selectors(), policy: QueuePolicy.WEIGHTED, maxOutstanding: 100 });
    expect(await stream.got(50)).toHaveLength(50);
    await putInto(last?.name ?? "", 20);
    expect((await stream.got(70)).slice(50).every(({ queue }) => queue === last?.name)).toBe(true);
  });
});

describe("Worker liveness", () => {
  const listed = async () => (await room.queues.good("listWorkers", { queue: room.queue })).workers;

  it("workers are listed (id, host, language, queues, jobs in hand, last seen)", async () => {
    const stream = await room.opened(
      { workerId: "worker 1", host: "machine 7", language: "elixir", maxOutstanding: 5 },
      room.clients[1],
    );
    await room.putMany(["a", "b"]);
    await stream.got(2);
    const worker = await until(async () => (await listed()).find(({ jobsInHand }) => jobsInHand === 2), {
      what: "its jobs to be listed",
      withinMs: 15_000,
    });
    expect(worker).toMatchObject({ workerId: "worker 1", host: "machine 7", language: "elixir", queues: [room.queue] });
    expect(worker).toMatchObject({ quiet: false, streaming: true });
    expect((await room.fixture.nowMs()) - at(worker.lastSeenAt)).toBeLessThan(30_000);
    stream.cancel();
    await until(async () => (await listed()).length === 0, { what: "it to be listed no longer" });
  });

  it("a dead worker's jobs come back once, a live one's never", async () => {
    const { queue } = room;
    await room.putMany(numbered(3));
    const dying = subscribeAndNeverRead(room.fixture.broker.address, {
      queues: [{ name: queue }],
      maxOutstanding: 3,
      disconnectGrace: ms(100),
    });
    await until(async () => (await room.shown()).counts.reserved === 3n, { what: "it to have its jobs" });
    const living: RawStream[] = [];
    for (const client of room.clients) {
      living.push(await room.opened({ maxOutstanding: 10, leaseDuration: ms(1_000) }, client));
    }
    await room.putMany(["x", "y", "z"]);
    const got = () => living.flatMap((stream) => stream.jobs());
    await until(() => got().length === 3, { what: "the other jobs" });
    const ends = Math.max(...got().map(({ leaseExpiresAt }) => at(leaseExpiresAt)));
    dying.destroy();
    await until(() => got().length === 6, { what: "the dead one's jobs to come back" });
    // Long after the live ones' leases would have ended, had nobody extended them.
    await until(async () => (await room.fixture.nowMs()) > ends + 1_000, { what: "time to pass" });
    expect(idsOf(got()).sort()).toEqual(["0", "1", "2", "x", "y", "z"]);
    for (const { id, attempt } of got()) expect([id, attempt]).toEqual([id, /\d/.test(id) ? 2 : 1]);
    const { leaseToken } = got()[0] ?? expect.fail("no job");
    expect((await room.client.good("release", { leaseToken, outcome: COMPLETED })).state).toBe(JobState.COMPLETED);
  });

  it("a reconnecting worker runs nothing twice", async () => {
    const request = { workerId: "worker 1", maxOutstanding: 3, disconnectGrace: ms(500), leaseDuration: ms(1_000) };
    await room.putMany(numbered(3));
    const before = await room.opened(request);
    const jobs = await before.got(3);
    await room.release(jobs[0] ?? expect.fail("no job"));
    await room.client.good("delete", { queue: room.queue, id: "1" });
    before.cancel();
    // To another broker, with the tokens that it has.
    const resumeLeaseTokens = jobs.map(({ leaseToken }) => leaseToken);
    const after = await room.opened({ ...request, resumeLeaseTokens }, room.clients[1]);
    const revoked = async () => {
      const lost = after.all("revoked").flatMap(({ leaseTokens }) => leaseTokens);
      return lost.length >= 2 && lost;
    };
    expect([...(await until(revoked, { what: "what it has lost" }))].sort()).toEqual(
      resumeLeaseTokens.slice(0, 2).sort(),
    );
    const since = await room.fixture.nowMs();
    await until(async () => (await room.fixture.nowMs()) > since + 1_500, { what: "grace and lease to be over" });
    expect(await room.job("2")).toMatchObject({ state: JobState.RESERVED, attempt: 1 });
    expect(after.jobs()).toEqual([]);
    expect((await room.release(jobs[2] ?? expect.fail("no job"))).state).toBe(JobState.COMPLETED);
  });

  it("quiet a worker from outside (no new jobs)", async () => {
    const own = [await room.opened({ workerId: "quiet one", maxOutstanding: 5 }, room.clients[1])];
    await room.put("in hand");
    const [inHand] = await (own[0]?.got(1) ?? expect.fail("no stream"));
    expect((await room.queues.good("quietWorker", { workerId: "quiet one" })).changed).toBe(true);
    await until(async () => (await listed()).every(({ quiet }) => quiet), { what: "it to be listed as quiet" });
    await room.putMany(numbered(5));
    own.push(await room.opened({ workerId: "quiet one", maxOutstanding: 5 }, room.clients[2]));
    const other = await room.opened({ workerId: "another", maxOutstanding: 10 });
    await other.got(5);
    expect(idsOf(own.flatMap((stream) => stream.jobs()))).toEqual(["in hand"]);
    // What it runs goes on.
    expect((await room.release(inHand ?? expect.fail("no job"))).state).toBe(JobState.COMPLETED);
    other.cancel();
    await room.queues.good("resumeWorker", { workerId: "quiet one" });
    await room.put("again");
    await until(() => own.some((stream) => idsOf(stream.jobs()).includes("again")), { what: "the next job" });
  });

  it("cancel a running job: it hears of it on its stream within 100 ms, and it ends in FAILED with reason cancelled", async () => {
    const took: number[] = [];
    // At the broker that the worker is connected to, and at another.
    for (const [i, client] of room.clients.entries()) {
      const stream = await room.opened({ maxOutstanding: 5 }, room.clients[1]);
      const id = `job ${i}`;
      await room.put(id);
      const [{ leaseToken } = expect.fail("no job")] = await stream.got(1);
      const began = performance.now();
      await client.good("cancel", { queue: room.queue, id, message: "the user has left" });
      const revoked = await stream.saw("revoked");
      took.push(performance.now() - began);
      expect(revoked).toMatchObject({ leaseTokens: [leaseToken], reason: RevokedReason.CANCELLED });
      expectLeaseLost(await room.client.bad("release", { leaseToken, outcome: COMPLETED }), room.queue, id);
      expect(await room.job(id)).toMatchObject({
        state: JobState.FAILED,
        error: { type: "CANCELLED", message: "the user has left" },
      });
      stream.cancel();
    }
    // Measured three times, because other tests share the machine.
    expect(Math.min(...took)).toBeLessThan(100);
    expect(Math.max(...took)).toBeLessThan(1_000);
  });
});
