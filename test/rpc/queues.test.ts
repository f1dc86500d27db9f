/** What the contract promises of QueueService's verbs on queues, sentence by sentence, over real gRPC. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BackoffCurve, JobState } from "../../gen/baton/v1/job_pb.js";
import { RevokedReason } from "../../gen/baton/v1/job_service_pb.js";
import { QueueMode } from "../../gen/baton/v1/queue_service_pb.js";
import {
  at,
  days,
  expectLeaseLost,
  type Fixture,
  hours,
  inMs,
  ms,
  putOneInEveryState,
  startFixture,
} from "./fixture.ts";
import { QueueClient } from "./queue-client.ts";
import type { Request } from "./raw-client.ts";

const COMPLETED: NonNullable<Request<"release">["outcome"]> = { case: "completed", value: {} };
const BURIED: NonNullable<Request<"release">["outcome"]> = { case: "failed", value: { permanent: true } };
const RETURNED: NonNullable<Request<"release">["outcome"]> = { case: "returned", value: {} };

let fixture: Fixture;
let queues: QueueClient;
let queue: string;
let count = 0;

beforeAll(async () => {
  fixture = await startFixture();
  queues = new QueueClient(fixture.client);
});

afterAll(() => fixture?.stop());

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

async function shown() {
  const { queue: message } = await queues.good("getQueue", { queue });
  if (!message) throw new Error("GetQueue answered without a queue");
  return message;
}

const putMany = (howMany: number, more: Request<"put"> = {}) =>
  fixture.client.good("putMany", { jobs: Array.from({ length: howMany }, (_, i) => ({ queue, id: `${i}`, ...more })) });

describe("GetQueue", () => {
  it("answers QUEUE_NOT_FOUND for a queue that there is not, and makes none by it", async () => {
    for (let i = 0; i < 2; i++) {
      expect(await queues.bad("getQueue", { queue })).toMatchObject({
        code: "NOT_FOUND",
        reason: "QUEUE_NOT_FOUND",
        domain: "baton",
        metadata: { queue },
      });
    }
    expect(await fixture.redis.keys(`*${queue}*`)).toEqual([]);
  });

  it("counts the jobs in each state, and says how long the oldest READY one has waited", async () => {
    const { client } = fixture;
    await putOneInEveryState(client, queue);
    const concurrency = { key: "one", limit: 1 };
    await client.good("put", { queue, id: "has the slot", priority: 9, concurrency });
    await client.reserveOne(queue, { leaseDuration: hours(1) });
    await client.good("put", { queue, id: "held", priority: 9, concurrency });
    await client.reserveOne(queue, { leaseDuration: hours(1) });
    const { counts, oldestReadyAge } = await shown();
    expect(counts).toMatchObject({
      scheduled: 1n,
      ready: 0n,
      held: 1n,
      reserved: 3n,
      retrying: 1n,
      completed: 1n,
      failed: 1n,
    });
    expect(oldestReadyAge).toBeUndefined();
    await client.good("put", { queue, id: "low" });
    const { job } = await client.good("get", { queue, id: "low" });
    await client.good("put", { queue, id: "high", priority: 9 });
    const before = await fixture.nowMs();
    const waited = inMs((await shown()).oldestReadyAge);
    expect(waited).toBeGreaterThanOrEqual(before - at(job?.putAt) - 1);
    expect(waited).toBeLessThanOrEqual((await fixture.nowMs()) - at(job?.putAt) + 1);
  });

  it("counts each job once over repeated and retried Releases, in total and for the day", async () => {
    const { client } = fixture;
    await putMany(4, { retry: { initialBackoff: {} } });
    const jobs = await client.reserveMany(queue, 4);
    const tokens = jobs.map(({ leaseToken }) => leaseToken);
    const release = (i: number, outcome: NonNullable<Request<"release">["outcome"]>) =>
      client.good("release", { leaseToken: tokens[i] ?? "", outcome });
    for (let i = 0; i < 3; i++) await release(0, COMPLETED);
    // The outcome of a repetition does not count.
    await release(0, BURIED);
    for (let i = 0; i < 3; i++) await release(1, BURIED);
    await release(2, { case: "failed", value: {} });
    await release(3, RETURNED);
    const today = new Date(await fixture.nowMs()).toISOString().slice(0, 10);
    const expected = { put: 4n, completed: 1n, failed: 1n, pulled: 0n };
    expect((await shown()).totals).toMatchObject(expected);
    const again = await client.reserveMany(queue, 2);
    const releases = again.map(({ leaseToken }) => ({ leaseToken, outcome: COMPLETED }));
    for (let i = 0; i < 2; i++) await client.good("releaseMany", { releases });
    const { totals, days: perDay } = await shown();
    expect(totals).toMatchObject({ ...expected, completed: 3n });
    expect(perDay.reduce((sum, { counters }) => sum + (counters?.completed ?? 0n), 0n)).toBe(3n);
    expect(perDay[0]?.date).toBe(today);
  });

  it("has rates of what has happened within the last minute", async () => {
    await fixture.client.good("put", { queue, id: "first" });
    const firstSample = () => fixture.redis.hexists(`baton:{${queue}}:meta`, "samples");
    await expect.poll(firstSample, { timeout: 10_000 }).toBe(1);
    await putMany(100);
    const { rates } = await shown();
    expect(rates?.put).toBeGreaterThan(1);
    expect([rates?.completed, rates?.failed]).toEqual([0, 0]);
  });
});

describe("ListQueues", () => {
  it("shows every queue once, in the order of their names, page by page, with totals and without days", async () => {
    const names = ["b", "a.1", "a", "c:2", "B", "c"].map((name) => `${queue}-${name}`);
    for (const name of names) await fixture.client.good("put", { queue: name, id: "job" });
    const seen: string[] = [];
    let pageToken = "";
    let pages = 0;
    do {
      const page = await queues.good("listQueues", { pageSize: 2, pageToken });
      expect(page.queues.length).toBeLessThanOrEqual(2);
      for (const { name, totals, days: perDay, effectiveSettings } of page.queues) {
        seen.push(name);
        expect(perDay).toEqual([]);
        expect(effectiveSettings?.mode).toBe(QueueMode.RELIABLE);
        if (names.includes(name)) expect(totals?.put).toBe(1n);
      }
      pageToken = page.nextPageToken;
      pages += 1;
    } while (pageToken !== "" && pages < 1_000);
    expect(seen).toEqual([...new Set(seen)].sort());
    expect(seen).toEqual(expect.arrayContaining(names));
    const whole = await queues.good("listQueues", {});
    expect(whole.queues.map(({ name }) => name)).toEqual(seen);
    expect(whole.nextPageToken).toBe("");
  });

  it("answers nothing where there is nothing, and does not see another namespace", async () => {
    const other = await startFixture({ redisUrl: fixture.broker.redisUrl, namespace: "other" });
    try {
      await fixture.client.good("put", { queue });
      const theirs = new QueueClient(other.client);
      expect(await theirs.good("listQueues", {})).toMatchObject({ queues: [], nextPageToken: "" });
      expect((await theirs.bad("getQueue", { queue })).reason).toBe("QUEUE_NOT_FOUND");
    } finally {
      await other.stop();
    }
  });
});

describe("UpdateQueue", () => {
  const everything = {
    paused: true,
    mode: QueueMode.RECOVERABLE,
    leaseDuration: ms(1_500),
    retention: {},
    retry: {
      maxAttempts: 3,
      initialBackoff: ms(7),
      maxBackoff: ms(9),
      multiplier: 1.5,
      jitter: 0,
      curve: BackoffCurve.EXQ,
    },
    deadLetterMax: 0,
    deadLetterAge: days(1),
    historyMaxEvents: 100,
  };

  it("makes the queue, and shows what it set and what is in force", async () => {
    const { queue: before } = await queues.good("updateQueue", { queue, settings: everything });
    expect(before?.settings).toMatchObject(everything);
    expect((await shown()).settings).toMatchObject(everything);
    expect((await shown()).effectiveSettings).toMatchObject(everything);
  });

  it("shows the broker's defaults where the queue has none of its own", async () => {
    await fixture.client.good("put", { queue });
    const { settings, effectiveSettings } = await shown();
    expect(settings).toEqual({ $typeName: "baton.v1.QueueSettings", paused: false, mode: 0 });
    expect(effectiveSettings).toMatchObject({
      paused: false,
      mode: QueueMode.RELIABLE,
      leaseDuration: ms(30_000),
      retention: ms(300_000),
      retry: {
        maxAttempts: 25,
        initialBackoff: ms(1_000),
        maxBackoff: hours(1),
        multiplier: 2,
        jitter: 0.2,
        curve: BackoffCurve.EXPONENTIAL,
      },
      deadLetterMax: 10_000,
      deadLetterAge: days(180),
      historyMaxEvents: 10_000,
    });
  });

  it("changes what the mask names and nothing else, and takes back what is named and not set", async () => {
    await queues.good("updateQueue", { queue, settings: everything });
    const settings = { retention: ms(5), deadLetterMax: 7, retry: { maxAttempts: 9, jitter: 1 } };
    const updateMask = { paths: ["retention", "mode", "paused", "retry.max_attempts", "retry.multiplier"] };
    const { queue: after } = await queues.good("updateQueue", { queue, settings, updateMask });
    expect(after?.settings).toMatchObject({
      ...everything,
      paused: false,
      mode: QueueMode.UNSPECIFIED,
      retention: ms(5),
      retry: { maxAttempts: 9, initialBackoff: ms(7), maxBackoff: ms(9), jitter: 0, curve: BackoffCurve.EXQ },
    });
    expect(after?.settings?.retry?.multiplier).toBeUndefined();
    expect(after?.effectiveSettings?.retry?.multiplier).toBe(2);
  });

  it('replaces the whole policy when the mask names "retry"', async () => {
    await queues.good("updateQueue", { queue, settings: everything });
    const updateMask = { paths: ["retry"] };
    const settings = { retry: { maxAttempts: 2 } };
    const { queue: after } = await queues.good("updateQueue", { queue, settings, updateMask });
    expect(after?.settings?.retry).toEqual({ $typeName: "baton.v1.RetryPolicy", maxAttempts: 2, curve: 0 });
    const { queue: bare } = await queues.good("updateQueue", { queue, updateMask });
    expect(bare?.settings?.retry).toBeUndefined();
    expect(bare?.settings?.deadLetterMax).toBe(0);
  });

  it("without a mask changes what is set, in retry field by field", async () => {
    await queues.good("updateQueue", { queue, settings: everything });
    const settings = { deadLetterMax: 5, retry: { maxAttempts: 2 } };
    const { queue: after } = await queues.good("updateQueue", { queue, settings });
    expect(after?.settings).toMatchObject({
      ...everything,
      deadLetterMax: 5,
      retry: { ...everything.retry, maxAttempts: 2 },
    });
  });

  it("has the same effect when it is repeated", async () => {
    const request = { queue, settings: { retention: ms(5), retry: { jitter: 0.5 } } };
    const { queue: first } = await queues.good("updateQueue", request);
    const { queue: second } = await queues.good("updateQueue", request);
    expect(second?.settings).toEqual(first?.settings);
  });

  it("holds a limit of the dead letter for jobs that are there already", async () => {
    const { client } = fixture;
    await putMany(3);
    for (const { leaseToken } of await client.reserveMany(queue, 3)) {
      await client.good("release", { leaseToken, outcome: BURIED });
    }
    await queues.good("updateQueue", { queue, settings: { deadLetterMax: 1 } });
    await expect.poll(async () => (await shown()).counts?.failed, { timeout: 8_000 }).toBe(1n);
    expect((await client.good("get", { queue, id: "2" })).job?.state).toBe(JobState.FAILED);
  });
});

describe("PauseQueue and ResumeQueue", () => {
  it("say whether they changed anything, also for a queue that there was not", async () => {
    expect((await queues.good("resumeQueue", { queue })).changed).toBe(false);
    expect((await queues.bad("getQueue", { queue })).reason).toBe("QUEUE_NOT_FOUND");
    expect((await queues.good("pauseQueue", { queue })).changed).toBe(true);
    expect((await queues.good("pauseQueue", { queue })).changed).toBe(false);
    expect((await shown()).settings?.paused).toBe(true);
    expect((await queues.good("resumeQueue", { queue })).changed).toBe(true);
    expect((await queues.good("resumeQueue", { queue })).changed).toBe(false);
    expect((await shown()).settings?.paused).toBe(false);
  });

  it("let what runs go on, take puts, and hand out nothing", async () => {
    const { client } = fixture;
    await putMany(2);
    const running = await client.reserveOne(queue);
    await queues.good("pauseQueue", { queue });
    expect(await client.reserve({ queues: [{ name: queue }], wait: ms(100) })).toEqual([]);
    expect((await client.good("put", { queue, id: "later", priority: 9 })).state).toBe(JobState.READY);
    const { leaseToken } = running;
    const { results } = await client.good("extend", { leaseTokens: [leaseToken] });
    expect(results[0]?.result.case).toBe("leaseExpiresAt");
    expect((await client.good("release", { leaseToken, outcome: COMPLETED })).state).toBe(JobState.COMPLETED);
    await queues.good("resumeQueue", { queue });
    expect((await client.reserveMany(queue, 2)).map(({ id }) => id)).toEqual(["later", "1"]);
  });
});

describe("PurgeQueue", () => {
  const STATES = [
    [JobState.SCHEDULED, "scheduled"],
    [JobState.READY, "ready"],
    [JobState.RESERVED, "reserved"],
    [JobState.RETRYING, "retrying"],
    [JobState.COMPLETED, "completed"],
    [JobState.FAILED, "failed"],
  ] as const;

  it.each(STATES)("of state %i removes the jobs in it and no others", async (state, id) => {
    const { client } = fixture;
    await putOneInEveryState(client, queue);
    expect((await queues.good("purgeQueue", { queue, states: [state] })).purged).toBe(1n);
    expect((await client.bad("get", { queue, id })).reason).toBe("JOB_NOT_FOUND");
    const { counts } = await shown();
    for (const [, other] of STATES) expect(counts?.[other]).toBe(other === id ? 0n : 1n);
    expect((await queues.good("purgeQueue", { queue, states: [state] })).purged).toBe(0n);
  });

  it("of HELD removes the jobs that wait for a slot", async () => {
    const { client } = fixture;
    const concurrency = { key: "one", limit: 1 };
    await putMany(5, { concurrency });
    const { leaseToken } = await client.reserveOne(queue);
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    expect((await shown()).counts?.held).toBe(4n);
    expect((await queues.good("purgeQueue", { queue, states: [JobState.HELD] })).purged).toBe(4n);
    await client.good("release", { leaseToken, outcome: COMPLETED });
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
  });

  it("of every state removes all, however many, and leaves the settings and the counters", async () => {
    const { client } = fixture;
    await queues.good("updateQueue", { queue, settings: { retention: hours(1) } });
    for (let i = 0; i < 3; i++) {
      await client.good("putMany", { jobs: Array.from({ length: 1_000 }, () => ({ queue })) });
    }
    await client.good("put", { queue, id: "later", start: { case: "delay", value: hours(1) } });
    await client.reserveMany(queue, 700);
    const states = [JobState.RESERVED, JobState.READY, JobState.SCHEDULED, JobState.READY];
    expect((await queues.good("purgeQueue", { queue, states })).purged).toBe(3_001n);
    const { counts, totals, settings } = await shown();
    expect([counts?.ready, counts?.reserved, counts?.scheduled]).toEqual([0n, 0n, 0n]);
    expect(totals?.put).toBe(3_001n);
    expect(inMs(settings?.retention)).toBe(3_600_000);
  });

  it("of RESERVED makes the tokens void and tells the workers on their streams", async () => {
    const { client } = fixture;
    await putMany(2);
    const stream = client.subscribe({ queues: [{ name: queue }], maxOutstanding: 2 });
    const jobs = await stream.got(2);
    await queues.good("purgeQueue", { queue, states: [JobState.RESERVED] });
    await stream.saw("revoked", 2);
    const revoked = stream.all("revoked");
    expect(revoked.every(({ reason }) => reason === RevokedReason.DELETED)).toBe(true);
    expect(revoked.flatMap(({ leaseTokens }) => leaseTokens).sort()).toEqual(
      jobs.map(({ leaseToken }) => leaseToken).sort(),
    );
    const leaseToken = jobs[0]?.leaseToken ?? "";
    expectLeaseLost(await client.bad("release", { leaseToken, outcome: COMPLETED }), queue, jobs[0]?.id ?? "");
    stream.cancel();
  });

  it("removes all that was there when it came, while workers move it and producers go on", async () => {
    const { client } = fixture;
    for (let i = 0; i < 4; i++) {
      await client.good("putMany", { jobs: Array.from({ length: 1_000 }, (_, n) => ({ queue, id: `old-${i}-${n}` })) });
    }
    let isPurging = true;
    const worker = (async () => {
      while (isPurging) {
        const jobs = await client.reserve({ queues: [{ name: queue }], maxJobs: 50 });
        const releases = jobs.map(({ leaseToken }) => ({ leaseToken, outcome: RETURNED }));
        if (releases.length > 0) await client.good("releaseMany", { releases });
      }
    })();
    let puts = 0;
    const producer = (async () => {
      while (isPurging) {
        await client.good("putMany", {
          jobs: Array.from({ length: 20 }, (_, n) => ({ queue, id: `new-${puts}-${n}`, priority: 9 })),
        });
        puts += 1;
      }
    })();
    const states = [JobState.READY, JobState.RESERVED];
    const { purged } = await queues.good("purgeQueue", { queue, states });
    isPurging = false;
    await Promise.all([worker, producer]);
    expect(purged).toBeGreaterThanOrEqual(4_000n);
    const left = [...(await fixture.redis.hkeys(`baton:{${queue}}:spec`))];
    expect(left.filter((id) => id.startsWith("old-"))).toEqual([]);
  });

  it("of a queue that there is not removes nothing, and makes none", async () => {
    expect((await queues.good("purgeQueue", { queue, states: [JobState.READY] })).purged).toBe(0n);
    expect((await queues.bad("getQueue", { queue })).reason).toBe("QUEUE_NOT_FOUND");
  });
});

describe("Requeue", () => {
  it("of a queue that there is not gives back nothing", async () => {
    expect((await queues.good("requeue", { queue })).requeued).toBe(0);
  });

  it("in mode RECOVERABLE gives back what is over, those first that ended first, at most so many", async () => {
    const { client } = fixture;
    await queues.good("updateQueue", { queue, settings: { mode: QueueMode.RECOVERABLE, retry: { maxAttempts: 2 } } });
    await putMany(5);
    for (let i = 0; i < 5; i++) await client.reserveOne(queue, { leaseDuration: ms(100 + 10 * i) });
    const { job: last } = await client.good("get", { queue, id: "4" });
    await expect.poll(() => fixture.nowMs()).toBeGreaterThan(at(last?.leaseExpiresAt));
    expect((await queues.good("requeue", { queue, limit: 2 })).requeued).toBe(2);
    expect((await client.reserveMany(queue, 2)).map(({ id, failures }) => [id, failures])).toEqual([
      ["0", 1],
      ["1", 1],
    ]);
    expect((await queues.good("requeue", { queue })).requeued).toBe(3);
    expect((await queues.good("requeue", { queue })).requeued).toBe(0);
    expect((await shown()).counts).toMatchObject({ ready: 3n, reserved: 2n });
  });

  it("makes a job FAILED when this was its last attempt", async () => {
    const { client } = fixture;
    await queues.good("updateQueue", { queue, settings: { mode: QueueMode.RECOVERABLE } });
    await client.good("put", { queue, id: "job", retry: { maxAttempts: 1 } });
    const { leaseExpiresAt } = await client.reserveOne(queue, { leaseDuration: ms(100) });
    await expect.poll(() => fixture.nowMs()).toBeGreaterThan(at(leaseExpiresAt));
    expect((await queues.good("requeue", { queue })).requeued).toBe(1);
    const { job } = await client.good("get", { queue, id: "job" });
    expect(job).toMatchObject({ state: JobState.FAILED, error: { type: "LEASE_EXPIRED" } });
  });
});
