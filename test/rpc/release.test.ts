/** What the contract promises of Release and ReleaseMany, sentence by sentence, over real gRPC. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { until } from "../support/wait.ts";
import { at, expectLeaseLost, type Fixture, hours, ms, startFixture, untilState } from "./fixture.ts";
import { errorIn, type Request } from "./raw-client.ts";

type ReleaseInit = Request<"release">;
type Outcome = NonNullable<ReleaseInit["outcome"]>;

let fixture: Fixture;
let queue: string;
let count = 0;

beforeAll(async () => {
  fixture = await startFixture();
});

afterAll(() => fixture?.stop());

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

const COMPLETED: Outcome = { case: "completed", value: {} };
const FAILED: Outcome = { case: "failed", value: {} };
const FAILED_LATER: Outcome = { case: "failed", value: { retryAfter: hours(1) } };
const BURIED: Outcome = { case: "failed", value: { permanent: true } };
const RETURNED: Outcome = { case: "returned", value: {} };
const RETURNED_LATER: Outcome = { case: "returned", value: { delay: hours(1) } };

async function reservedJob(put: Request<"put"> = {}): Promise<string> {
  await fixture.client.good("put", { queue, id: "job", ...put });
  return (await fixture.client.reserveOne(queue)).leaseToken;
}

async function shown(id = "job") {
  const { job } = await fixture.client.good("get", { queue, id });
  if (!job) throw new Error(`there is no job ${id}`);
  return job;
}

function release(leaseToken: string, outcome: Outcome) {
  return fixture.client.good("release", { leaseToken, outcome });
}

describe("completed", () => {
  it("makes the job COMPLETED, with its result, for its retention", async () => {
    const { client, nowMs } = fixture;
    const leaseToken = await reservedJob({ retention: hours(3) });
    const result = { content: { case: "text", value: "42" }, contentType: "text/plain" } as const;
    const before = await nowMs();
    const answer = await release(leaseToken, { case: "completed", value: { result } });
    expect(answer).toMatchObject({ state: JobState.COMPLETED });
    expect(answer.runAt).toBeUndefined();
    const job = await shown();
    expect(job).toMatchObject({ state: JobState.COMPLETED, result, attempt: 1, failures: 0 });
    expect(at(job.finishedAt)).toBeGreaterThanOrEqual(before);
    expect(at(job.finishedAt)).toBeLessThanOrEqual(await nowMs());
    expect(at(job.retainedUntil)).toBe(at(job.finishedAt) + 3 * 3_600_000);
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
  });

  it("keeps the job for --default-retention when its producer did not say", async () => {
    await release(await reservedJob(), COMPLETED);
    const { finishedAt, retainedUntil } = await shown();
    expect(at(retainedUntil)).toBe(at(finishedAt) + 5 * 60_000);
  });

  it("forgets the job at once with a retention of zero, and a repetition is LEASE_LOST", async () => {
    const { client } = fixture;
    const leaseToken = await reservedJob({ retention: {} });
    expect(await release(leaseToken, COMPLETED)).toMatchObject({ state: JobState.COMPLETED });
    expect((await client.bad("get", { queue, id: "job" })).reason).toBe("JOB_NOT_FOUND");
    expectLeaseLost(await client.bad("release", { leaseToken, outcome: COMPLETED }), queue, "job");
    expect(await client.good("put", { queue, id: "job" })).toMatchObject({ created: true });
  });

  it("is gone when its retention has ended: Get, a repeated Release and Delete find nothing", async () => {
    const { client, nowMs } = fixture;
    const leaseToken = await reservedJob({ retention: ms(500) });
    await release(leaseToken, COMPLETED);
    const endMs = at((await shown()).retainedUntil);
    await until(async () => (await nowMs()) > endMs, { what: "the retention to end" });
    expectLeaseLost(await client.bad("release", { leaseToken, outcome: COMPLETED }), queue, "job");
    expect((await client.bad("get", { queue, id: "job" })).reason).toBe("JOB_NOT_FOUND");
    expect(await client.good("delete", { queue, id: "job" })).toMatchObject({ deleted: false });
  });

  it("shows no error of the attempts before", async () => {
    await reservedJob();
    const { client } = fixture;
    await client.good("delete", { queue, id: "job" });
    const first = await reservedJob();
    await release(first, { case: "failed", value: { message: "not yet", retryAfter: {} } });
    expect((await shown()).error).toMatchObject({ message: "not yet" });
    const second = await client.reserveOne(queue);
    expect(second).toMatchObject({ attempt: 2, failures: 1 });
    await release(second.leaseToken, COMPLETED);
    const job = await shown();
    expect(job).toMatchObject({ state: JobState.COMPLETED, attempt: 2, failures: 1 });
    expect([job.error, job.result]).toEqual([undefined, undefined]);
  });
});

describe("failed", () => {
  it("makes the job RETRYING, with its error, until the retry policy's wait is over", async () => {
    const retry = { initialBackoff: ms(60_000), multiplier: 3, jitter: 0 };
    const leaseToken = await reservedJob({ retry });
    const error = { message: "no route\nto host", type: "EHOSTUNREACH" };
    const { state, runAt } = await release(leaseToken, { case: "failed", value: error });
    expect(state).toBe(JobState.RETRYING);
    const job = await shown();
    expect(job).toMatchObject({
      state: JobState.RETRYING,
      attempt: 1,
      failures: 1,
      error: { ...error, permanent: false },
    });
    expect(job.runAt).toEqual(runAt);
    expect([job.finishedAt, job.leaseExpiresAt, job.retainedUntil]).toEqual([undefined, undefined, undefined]);
    expect(at(runAt) - at(job.reservedAt)).toBeGreaterThanOrEqual(60_000);
    expect(at(runAt) - (await fixture.nowMs())).toBeLessThanOrEqual(60_000);
  });

  it("waits initial_backoff × multiplier^(n − 1), at most max_backoff", async () => {
    const { client, nowMs } = fixture;
    // Each wait is far longer than the test, so the job is brought back by a retry_after of its own in between.
    const retry = { initialBackoff: hours(1), multiplier: 3, jitter: 0, maxBackoff: hours(20) };
    for (const [failures, expected] of [1, 3, 9, 20, 20].entries()) {
      const id = `job-${failures}`;
      await client.good("put", { queue, id, retry, priority: 9 });
      for (let i = 0; i < failures; i++) {
        const { leaseToken } = await client.reserveOne(queue);
        await release(leaseToken, { case: "failed", value: { retryAfter: {} } });
      }
      const { leaseToken } = await client.reserveOne(queue);
      const before = await nowMs();
      const { runAt } = await release(leaseToken, FAILED);
      expect(at(runAt) - before).toBeGreaterThanOrEqual(expected * 3_600_000);
      expect(at(runAt) - (await nowMs())).toBeLessThanOrEqual(expected * 3_600_000);
    }
  });

  it("leaves at most `jitter` of the wait to chance", async () => {
    const { client, nowMs } = fixture;
    const retry = { initialBackoff: hours(10), jitter: 0.5, maxBackoff: hours(10) };
    await client.good("putMany", { jobs: Array.from({ length: 20 }, () => ({ queue, retry })) });
    const jobs = await client.reserve({ queues: [{ name: queue }], maxJobs: 20 });
    const before = await nowMs();
    const waits = [];
    for (const { leaseToken } of jobs) waits.push(at((await release(leaseToken, FAILED)).runAt) - before);
    const most = 10 * 3_600_000 + ((await nowMs()) - before);
    for (const wait of waits) {
      expect(wait).toBeGreaterThan(5 * 3_600_000);
      expect(wait).toBeLessThanOrEqual(most);
    }
    expect(new Set(waits).size).toBeGreaterThan(10);
  });

  it("leaves each wait of a batch to its own chance, so that jobs that failed together don't return together", async () => {
    const { client } = fixture;
    const retry = { initialBackoff: hours(10), jitter: 1, maxBackoff: hours(10) };
    await client.good("putMany", { jobs: Array.from({ length: 20 }, () => ({ queue, retry })) });
    const jobs = await client.reserve({ queues: [{ name: queue }], maxJobs: 20 });
    const releases = jobs.map(({ leaseToken }) => ({ leaseToken, outcome: FAILED }));
    const { results } = await client.good("releaseMany", { releases });
    const times = results.map(({ result }) => result.case === "released" && at(result.value.runAt));
    expect(new Set(times).size).toBeGreaterThan(10);
  });

  it("is run again at once with a backoff of zero, also after as many failures as there may be", async () => {
    const { client } = fixture;
    const retry = { maxAttempts: 1_000, initialBackoff: {}, multiplier: 100 };
    await client.good("put", { queue, id: "job", retry });
    for (let failures = 1; failures <= 200; failures++) {
      const { leaseToken } = await client.reserveOne(queue);
      const { runAt } = await release(leaseToken, FAILED);
      expect(at(runAt), `after failure ${failures}`).toBeLessThanOrEqual(await fixture.nowMs());
    }
  });

  it("runs again after retry_after, whatever the policy says; zero: at once", async () => {
    const { client, nowMs } = fixture;
    const leaseToken = await reservedJob({ retry: { initialBackoff: hours(10) } });
    const { state } = await release(leaseToken, { case: "failed", value: { retryAfter: {} } });
    expect(state).toBe(JobState.RETRYING);
    const again = await client.reserveOne(queue);
    expect(again).toMatchObject({ attempt: 2, failures: 1 });
    const before = await nowMs();
    const { runAt } = await release(again.leaseToken, {
      case: "failed",
      value: { retryAfter: { seconds: 90n, nanos: 1 } },
    });
    expect(at(runAt) - before).toBeGreaterThanOrEqual(90_001);
    expect(at(runAt) - (await nowMs())).toBeLessThanOrEqual(90_001);
  });

  it("for good makes the job FAILED at once, and it is handed out no more", async () => {
    const leaseToken = await reservedJob();
    const error = { message: "bad address", type: "TypeError", permanent: true };
    const answer = await release(leaseToken, { case: "failed", value: { ...error, retryAfter: {} } });
    expect(answer.state).toBe(JobState.FAILED);
    expect(answer.runAt).toBeUndefined();
    const job = await shown();
    expect(job).toMatchObject({ state: JobState.FAILED, error, attempt: 1, failures: 1 });
    expect(job.finishedAt).toBeDefined();
    expect([job.runAt, job.leaseExpiresAt, job.retainedUntil]).toEqual([undefined, undefined, undefined]);
    expect(await fixture.client.reserve({ queues: [{ name: queue }] })).toEqual([]);
  });

  it("for the last time makes the job FAILED, also with a retry_after", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "job", retry: { maxAttempts: 2, initialBackoff: {} } });
    const first = await client.reserveOne(queue);
    expect((await release(first.leaseToken, FAILED)).state).toBe(JobState.RETRYING);
    const second = await client.reserveOne(queue);
    const last = await release(second.leaseToken, {
      case: "failed",
      value: { message: "again", retryAfter: hours(1) },
    });
    expect(last.state).toBe(JobState.FAILED);
    expect(last.runAt).toBeUndefined();
    expect(await shown()).toMatchObject({ attempt: 2, failures: 2, error: { message: "again", permanent: false } });
  });

  it("with max_attempts 1 is not retried; with none said, 24 failures are", async () => {
    const { client } = fixture;
    const once = await reservedJob({ id: "once", retry: { maxAttempts: 1 } });
    expect((await release(once, FAILED)).state).toBe(JobState.FAILED);
    await client.good("put", { queue, id: "default" });
    for (let failures = 1; failures <= 25; failures++) {
      const { leaseToken } = await client.reserveOne(queue);
      const { state } = await release(leaseToken, { case: "failed", value: { retryAfter: {} } });
      expect(state).toBe(failures < 25 ? JobState.RETRYING : JobState.FAILED);
    }
  });
});

describe("returned", () => {
  it("makes the job READY at its old place, ahead of later ones, and counts as no failure", async () => {
    const { client } = fixture;
    await client.good("putMany", { jobs: ["first", "second", "third"].map((id) => ({ queue, id })) });
    const { leaseToken } = await client.reserveOne(queue);
    const answer = await release(leaseToken, RETURNED);
    expect(answer.state).toBe(JobState.READY);
    expect(answer.runAt).toBeUndefined();
    const job = await shown("first");
    expect(job).toMatchObject({ state: JobState.READY, attempt: 1, failures: 0 });
    expect([job.error, job.runAt, job.leaseExpiresAt]).toEqual([undefined, undefined, undefined]);
    const jobs = await client.reserve({ queues: [{ name: queue }], maxJobs: 3 });
    expect(jobs.map(({ id, attempt, failures }) => [id, attempt, failures])).toEqual([
      ["first", 2, 0],
      ["second", 1, 0],
      ["third", 1, 0],
    ]);
  });

  it("with a delay makes the job SCHEDULED until then, and counts as no failure", async () => {
    const { client, nowMs } = fixture;
    const leaseToken = await reservedJob({ retry: { maxAttempts: 1 } });
    const before = await nowMs();
    const { state, runAt } = await release(leaseToken, { case: "returned", value: { delay: ms(300) } });
    expect(state).toBe(JobState.SCHEDULED);
    expect(at(runAt) - before).toBeGreaterThanOrEqual(300);
    expect(at(runAt) - (await nowMs())).toBeLessThanOrEqual(300);
    expect(await shown()).toMatchObject({ state: JobState.SCHEDULED, attempt: 1, failures: 0, runAt });
    const again = await client.reserveOne(queue);
    expect(again).toMatchObject({ attempt: 2, failures: 0 });
    expect(await nowMs()).toBeGreaterThanOrEqual(at(runAt));
    expect((await release(again.leaseToken, FAILED)).state).toBe(JobState.FAILED);
  });

  it("may be done for ever", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "job", retry: { maxAttempts: 1 } });
    for (let i = 0; i < 30; i++) await release((await client.reserveOne(queue)).leaseToken, RETURNED);
    expect(await client.reserveOne(queue)).toMatchObject({ attempt: 31, failures: 0 });
  });
});

describe("a repeated Release", () => {
  const OUTCOMES: readonly { readonly name: string; readonly outcome: Outcome; readonly state: JobState }[] = [
    { name: "completed", outcome: COMPLETED, state: JobState.COMPLETED },
    { name: "failed", outcome: FAILED_LATER, state: JobState.RETRYING },
    { name: "failed for good", outcome: BURIED, state: JobState.FAILED },
    { name: "returned", outcome: RETURNED, state: JobState.READY },
    { name: "returned with a delay", outcome: RETURNED_LATER, state: JobState.SCHEDULED },
  ];

  describe.each(OUTCOMES)("after $name", ({ outcome, state }) => {
    it.each(OUTCOMES)("with $name answers the same, and changes nothing", async ({ outcome: other }) => {
      const { client, dump } = fixture;
      const leaseToken = await reservedJob();
      const first = await release(leaseToken, outcome);
      expect(first.state).toBe(state);
      // Of this queue alone: jobs that other tests left may become due.
      const before = await dump(queue);
      expect(await release(leaseToken, other)).toEqual(first);
      const { results } = await client.good("releaseMany", { releases: [{ leaseToken, outcome: other }] });
      expect(results[0]?.result).toMatchObject({ case: "released", value: first });
      expect(await dump(queue)).toEqual(before);
    });

    it("is LEASE_LOST when the job was deleted in between", async () => {
      const { client } = fixture;
      const leaseToken = await reservedJob();
      await release(leaseToken, outcome);
      await client.good("delete", { queue, id: "job" });
      expectLeaseLost(await client.bad("release", { leaseToken, outcome }), queue, "job");
    });
  });

  it.each([
    { name: "returned", outcome: RETURNED },
    { name: "retried", outcome: { case: "failed", value: { retryAfter: {} } } as Outcome },
  ])("is LEASE_LOST once the job was reserved again: $name", async ({ outcome }) => {
    const { client } = fixture;
    const leaseToken = await reservedJob();
    await release(leaseToken, outcome);
    const again = await client.reserveOne(queue, { leaseDuration: hours(1) });
    expectLeaseLost(await client.bad("release", { leaseToken, outcome }), queue, "job");
    expect(await release(again.leaseToken, COMPLETED)).toMatchObject({ state: JobState.COMPLETED });
  });

  it("of a retry that has become due, but is not reserved yet, answers as before", async () => {
    const { client } = fixture;
    const leaseToken = await reservedJob();
    const first = await release(leaseToken, { case: "failed", value: { retryAfter: ms(1) } });
    await untilState(client, queue, "job", JobState.READY);
    expect(await release(leaseToken, COMPLETED)).toEqual(first);
    expect((await shown()).runAt).toBeUndefined();
  });
});

describe("ReleaseMany", () => {
  it("ends reservations of several queues, each with its own outcome, in the order of the request", async () => {
    const { client } = fixture;
    const other = `${queue}-other`;
    const jobs = Array.from({ length: 6 }, (_, i) => ({ queue: i % 2 ? other : queue, id: `${i}` }));
    await client.good("putMany", { jobs });
    const reserved = [
      ...(await client.reserve({ queues: [{ name: queue }], maxJobs: 3 })),
      ...(await client.reserve({ queues: [{ name: other }], maxJobs: 3 })),
    ];
    const tokenOf = (id: string) => reserved.find((job) => job.id === id)?.leaseToken ?? "";
    const { results } = await client.good("releaseMany", {
      releases: [
        { leaseToken: tokenOf("5"), outcome: COMPLETED },
        { leaseToken: tokenOf("0"), outcome: BURIED },
        { leaseToken: "garbage", outcome: COMPLETED },
        { leaseToken: tokenOf("3"), outcome: RETURNED },
        { leaseToken: tokenOf("2") },
        { leaseToken: tokenOf("4"), outcome: FAILED_LATER },
        { leaseToken: `baton/${other}/1/nobody`, outcome: COMPLETED },
        { leaseToken: tokenOf("1"), outcome: RETURNED_LATER },
      ],
    });
    const states = results.map(({ result }) => (result.case === "released" ? result.value.state : "error"));
    const { COMPLETED: completed, FAILED: failed, READY, RETRYING, SCHEDULED } = JobState;
    expect(states).toEqual([completed, failed, "error", READY, "error", RETRYING, "error", SCHEDULED]);
    expect(errorIn(results[2]?.result).violations.map(({ field }) => field)).toEqual(["releases[2].lease_token"]);
    expect(errorIn(results[4]?.result).violations.map(({ field }) => field)).toEqual(["releases[4].outcome"]);
    expectLeaseLost(errorIn(results[6]?.result), other, "nobody");
    expect((await shown("2")).state).toBe(JobState.RESERVED);
  });

  it.each<{ name: string; outcome: Outcome; other: Outcome }>([
    { name: "completed, then failed", outcome: COMPLETED, other: BURIED },
    { name: "failed, then completed", outcome: FAILED_LATER, other: COMPLETED },
    { name: "returned, then completed", outcome: RETURNED, other: COMPLETED },
  ])("takes the first of two releases of one token, and answers both alike: $name", async ({ outcome, other }) => {
    const { client } = fixture;
    const leaseToken = await reservedJob();
    const releases = [
      { leaseToken, outcome },
      { leaseToken, outcome: other },
    ];
    const { results } = await client.good("releaseMany", { releases });
    expect(results[0]?.result.case).toBe("released");
    expect(results[1]).toEqual(results[0]);
    const first = results[0]?.result;
    expect((await shown()).state).toBe(first?.case === "released" ? first.value.state : undefined);
  });

  it("takes a thousand at once", async () => {
    const { client } = fixture;
    await client.good("putMany", { jobs: Array.from({ length: 1_000 }, () => ({ queue })) });
    const jobs = await client.reserveMany(queue, 1_000);
    const releases = jobs.map(({ leaseToken }) => ({ leaseToken, outcome: COMPLETED }));
    const { results } = await client.good("releaseMany", { releases });
    expect(results.filter(({ result }) => result.case === "released")).toHaveLength(1_000);
  });
});
