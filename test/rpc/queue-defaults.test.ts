/**
 * What holds for a job: what it says itself, else what its queue says, else the broker; and the three modes of a queue,
 * by name. Over real gRPC.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { QueueMode, type QueueSettingsSchema } from "../../gen/baton/v1/queue_service_pb.js";
import { followEvents } from "../e2e/events.ts";
import { until } from "../support/wait.ts";
import { at, type DurationInit, expectLeaseLost, type Fixture, hours, inMs, ms, startFixture } from "./fixture.ts";
import { QueueClient } from "./queue-client.ts";
import { errorIn, type Request } from "./raw-client.ts";

type Outcome = NonNullable<Request<"release">["outcome"]>;
type PutInit = Request<"put">;

const COMPLETED: Outcome = { case: "completed", value: {} };
const FAILED: Outcome = { case: "failed", value: {} };

/** What the broker itself has for defaults: none of them the contract's. */
const BROKER = {
  defaultLeaseDurationMs: 50_000,
  defaultRetentionMs: 60_000,
  defaultMaxAttempts: 4,
  defaultInitialBackoffMs: 7_000,
  defaultMaxBackoffMs: 20_000,
};

let fixture: Fixture;
let queues: QueueClient;
let queue: string;
let count = 0;

beforeAll(async () => {
  fixture = await startFixture(BROKER);
  queues = new QueueClient(fixture.client);
});

afterAll(() => fixture?.stop());

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

const set = (settings: MessageInitShape<typeof QueueSettingsSchema>) => queues.good("updateQueue", { queue, settings });

async function shown(id = "job") {
  const { job } = await fixture.client.good("get", { queue, id });
  if (!job) throw new Error(`there is no job ${id}`);
  return job;
}

async function taken(put: PutInit = {}, leaseDuration?: DurationInit): Promise<string> {
  const { client } = fixture;
  await client.good("put", { queue, id: "job", ...put });
  return (await client.reserveOne(queue, { ...(leaseDuration && { leaseDuration }) })).leaseToken;
}

const release = (leaseToken: string, outcome: Outcome) => fixture.client.good("release", { leaseToken, outcome });

type Case = {
  readonly whose: string;
  readonly expectedMs: number;
  readonly ofQueue?: DurationInit;
  readonly ofJob?: DurationInit;
};

describe("the length of a lease", () => {
  const CASES: readonly (Case & { readonly ofWorker?: DurationInit })[] = [
    { whose: "the broker's", expectedMs: 50_000 },
    { whose: "the queue's", expectedMs: 40_000, ofQueue: ms(40_000) },
    { whose: "the job's, whatever the queue says", expectedMs: 30_000, ofQueue: ms(40_000), ofJob: ms(30_000) },
    {
      whose: "the worker's, whatever the others say",
      expectedMs: 20_000,
      ofQueue: ms(40_000),
      ofJob: ms(30_000),
      ofWorker: ms(20_000),
    },
  ];

  it.each(CASES)("is $whose", async ({ expectedMs, ofQueue, ofJob, ofWorker }) => {
    if (ofQueue) await set({ leaseDuration: ofQueue });
    await taken(ofJob ? { leaseDuration: ofJob } : {}, ofWorker);
    const { leaseExpiresAt, reservedAt } = await shown();
    expect(at(leaseExpiresAt) - at(reservedAt)).toBe(expectedMs);
  });
});

describe("the retention of a completed job", () => {
  const CASES: readonly Case[] = [
    { whose: "the broker's", expectedMs: 60_000 },
    { whose: "the queue's", expectedMs: 40_000, ofQueue: ms(40_000) },
    { whose: "the job's, whatever the queue says", expectedMs: 30_000, ofQueue: ms(40_000), ofJob: ms(30_000) },
    { whose: "the job's also where the queue keeps nothing", expectedMs: 30_000, ofQueue: {}, ofJob: ms(30_000) },
  ];

  it.each(CASES)("is $whose", async ({ expectedMs, ofQueue, ofJob }) => {
    if (ofQueue) await set({ retention: ofQueue });
    await release(await taken(ofJob ? { retention: ofJob } : {}), COMPLETED);
    const { retainedUntil, finishedAt } = await shown();
    expect(at(retainedUntil) - at(finishedAt)).toBe(expectedMs);
  });

  it("may be zero: of the queue's, where the job does not say, and of the job's", async () => {
    await release(await taken({ retention: {} }), COMPLETED);
    expect((await fixture.client.bad("get", { queue, id: "job" })).reason).toBe("JOB_NOT_FOUND");
    await set({ retention: {} });
    await release(await taken(), COMPLETED);
    expect((await fixture.client.bad("get", { queue, id: "job" })).reason).toBe("JOB_NOT_FOUND");
  });
});

describe("the retry policy", () => {
  /** How long each failure is made to wait, until the job is FAILED: "failed". */
  async function waits(most: number): Promise<(number | "failed")[]> {
    const seen: (number | "failed")[] = [];
    for (let i = 0; i < most; i++) {
      const { leaseToken } = await fixture.client.reserveOne(queue);
      const before = await fixture.nowMs();
      const { state, runAt } = await release(leaseToken, FAILED);
      seen.push(state === JobState.FAILED ? "failed" : Math.round((at(runAt) - before) / 1_000) * 1_000);
      if (state === JobState.FAILED) break;
      await makeDue();
    }
    return seen;
  }

  /** Moves a retrying job's time to now, as if the wait were over. */
  async function makeDue(): Promise<void> {
    const nowMs = await fixture.nowMs();
    await fixture.redis.zadd(`baton:{${queue}}:retrying`, nowMs - 1, "job");
  }

  it("is the broker's where neither job nor queue says: attempts, first wait and longest wait", async () => {
    await fixture.client.good("put", { queue, id: "job", retry: { jitter: 0 } });
    expect(await waits(9)).toEqual([7_000, 14_000, 20_000, "failed"]);
  });

  it("is the queue's where the job does not say, also for a job that was there before", async () => {
    await fixture.client.good("put", { queue, id: "job" });
    await set({ retry: { maxAttempts: 3, initialBackoff: ms(5_000), multiplier: 1, jitter: 0 } });
    expect(await waits(9)).toEqual([5_000, 5_000, "failed"]);
  });

  it("is put together field by field: the job's, else the queue's, else the broker's", async () => {
    await set({ retry: { maxAttempts: 3, initialBackoff: ms(5_000), jitter: 0 } });
    await fixture.client.good("put", { queue, id: "job", retry: { initialBackoff: ms(9_000), multiplier: 10 } });
    expect(await waits(9)).toEqual([9_000, 20_000, "failed"]);
  });

  it("lets the job's own attempts win over the queue's", async () => {
    await set({ retry: { maxAttempts: 3, jitter: 0 } });
    await fixture.client.good("put", { queue, id: "job", retry: { maxAttempts: 1 } });
    expect(await waits(9)).toEqual(["failed"]);
  });
});

describe("mode reliable: a job is leased, and comes back by itself", () => {
  it("with the lease's end as a failed attempt, and the old token void", async () => {
    await set({ mode: QueueMode.RELIABLE });
    const old = await taken({}, ms(100));
    const again = await fixture.client.reserveOne(queue);
    expect(again).toMatchObject({ id: "job", attempt: 2, failures: 1 });
    const late = await fixture.client.bad("release", { leaseToken: old, outcome: COMPLETED });
    expectLeaseLost(late, queue, "job");
    expect((await release(again.leaseToken, COMPLETED)).state).toBe(JobState.COMPLETED);
  });
});

describe("mode recoverable: a job and its result are stored, and leases are not watched", () => {
  const overdue = async (leaseMs = 100) => {
    await set({ mode: QueueMode.RECOVERABLE });
    const leaseToken = await taken({}, ms(leaseMs));
    const { leaseExpiresAt } = await shown();
    await expect.poll(() => fixture.nowMs()).toBeGreaterThan(at(leaseExpiresAt));
    return leaseToken;
  };

  it("so the job stays with its worker after its lease has ended, through every sweep, until it is released", async () => {
    const leaseToken = await overdue();
    // Longer than a sweep's interval: a worker that waits so long gets nothing.
    expect(await fixture.client.reserve({ queues: [{ name: queue }], wait: ms(2_500) })).toEqual([]);
    expect((await shown()).state).toBe(JobState.RESERVED);
    const result = { content: { case: "text", value: "done" } } as const;
    const events = await followEvents(fixture.broker.redis.socketPath, queue);
    try {
      await release(leaseToken, { case: "completed", value: { result } });
      expect((await shown()).result?.content).toMatchObject(result.content);
      await until(() => events.seen.length > 0, { what: "the completion event" });
      expect(events.seen).toMatchObject([{ id: "job", state: "COMPLETED", result: { text: "done" } }]);
    } finally {
      events.stop();
    }
  });

  it("so a worker may extend its lease also after that", async () => {
    const leaseToken = await overdue();
    const { results } = await fixture.client.good("extend", { leaseTokens: [leaseToken], leaseDuration: hours(1) });
    expect(results[0]?.result.case).toBe("leaseExpiresAt");
    expect((await queues.good("requeue", { queue })).requeued).toBe(0);
  });

  it("and Requeue gives it back, as a failed attempt, after which the old token is void", async () => {
    const leaseToken = await overdue();
    expect((await queues.good("requeue", { queue })).requeued).toBe(1);
    expectLeaseLost(await fixture.client.bad("release", { leaseToken, outcome: COMPLETED }), queue, "job");
    expect(await fixture.client.reserveOne(queue)).toMatchObject({ id: "job", attempt: 2, failures: 1 });
  });

  it("and when the queue is made reliable again, what is over comes back by itself", async () => {
    await overdue();
    await set({ mode: QueueMode.RELIABLE });
    expect(await fixture.client.reserveOne(queue)).toMatchObject({ id: "job", attempt: 2, failures: 1 });
  });
});

describe("mode simple: a job is forgotten as it is handed out", () => {
  it("to a Reserve in mode LEASE too, and its result is only published", async () => {
    const { client, broker } = fixture;
    await set({ mode: QueueMode.SIMPLE });
    const payload = { content: { case: "text", value: "hello" } } as const;
    await client.good("put", { queue, id: "job", payload });
    const job = await client.reserveOne(queue);
    expect(job.payload?.content).toMatchObject(payload.content);
    expect(job.leaseExpiresAt).toBeUndefined();
    expect((await client.bad("get", { queue, id: "job" })).reason).toBe("JOB_NOT_FOUND");
    const { queue: message } = await queues.good("getQueue", { queue });
    expect(message?.totals).toMatchObject({ put: 1n, pulled: 1n, completed: 0n, failed: 0n });
    expect(message?.counts).toMatchObject({ ready: 0n, reserved: 0n, completed: 0n });
    const events = await followEvents(broker.redis.socketPath, queue);
    try {
      const result = { content: { case: "text", value: "bye" } } as const;
      const { state } = await release(job.leaseToken, { case: "completed", value: { result } });
      expect(state).toBe(JobState.COMPLETED);
      await until(() => events.seen.length > 0, { what: "the completion event" });
      expect(events.seen).toMatchObject([{ id: "job", state: "COMPLETED", result: { text: "bye" } }]);
    } finally {
      events.stop();
    }
    expect((await client.bad("get", { queue, id: "job" })).reason).toBe("JOB_NOT_FOUND");
  });

  it("to a stream, and it never comes back", async () => {
    const { client } = fixture;
    await set({ mode: QueueMode.SIMPLE });
    const stream = client.subscribe({ queues: [{ name: queue }], disconnectGrace: {} });
    await stream.saw("started");
    await client.good("putMany", { jobs: ["a", "b", "c"].map((id) => ({ queue, id })) });
    expect((await stream.got(3)).map(({ id }) => id)).toEqual(["a", "b", "c"]);
    stream.cancel();
    await stream.ended;
    expect(await client.reserve({ queues: [{ name: queue }], wait: ms(200) })).toEqual([]);
    const { queue: message } = await queues.good("getQueue", { queue });
    expect(message?.totals).toMatchObject({ put: 3n, pulled: 3n });
  });

  it("and its token cannot be extended", async () => {
    const { client } = fixture;
    await set({ mode: QueueMode.SIMPLE });
    const leaseToken = await taken();
    const { results } = await client.good("extend", { leaseTokens: [leaseToken] });
    expect(errorIn(results[0]?.result).reason).toBe("LEASE_LOST");
  });
});

describe("the dead letter", () => {
  it("has the queue's limit, and age", async () => {
    await set({ deadLetterMax: 2, deadLetterAge: hours(1) });
    const { queue: message } = await queues.good("getQueue", { queue });
    expect(message?.effectiveSettings?.deadLetterMax).toBe(2);
    expect(inMs(message?.effectiveSettings?.deadLetterAge)).toBe(3_600_000);
    const { client } = fixture;
    for (const id of ["1", "2", "3"]) {
      const leaseToken = await taken({ id });
      await release(leaseToken, { case: "failed", value: { permanent: true } });
    }
    await until(
      async () => {
        const { jobs } = await client.good("list", { queue, state: JobState.FAILED });
        return jobs.map(({ id }) => id).join() === "2,3";
      },
      { what: "the oldest to be trimmed", withinMs: 10_000 },
    );
  });
});
