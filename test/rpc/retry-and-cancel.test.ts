/** What the contract promises of Retry and Cancel, sentence by sentence, over real gRPC. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState, UniqueUntil } from "../../gen/baton/v1/job_pb.js";
import { followEvents } from "../e2e/events.ts";
import { until } from "../support/wait.ts";
import { at, type Fixture, hours, ms, putOneInEveryState, startFixture } from "./fixture.ts";
import { QueueClient } from "./queue-client.ts";
import { errorIn, type Request } from "./raw-client.ts";

type Outcome = NonNullable<Request<"release">["outcome"]>;

const COMPLETED: Outcome = { case: "completed", value: {} };
const BURIED: Outcome = { case: "failed", value: { message: "broken", type: "Bad", permanent: true } };

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

const numbered = (howMany: number) => Array.from({ length: howMany }, (_, i) => `${i}`);

async function shown(id: string) {
  const { job } = await fixture.client.good("get", { queue, id });
  if (!job) throw new Error(`there is no job ${id}`);
  return job;
}

/** Puts jobs, takes them and ends them all alike. */
async function finished(ids: readonly string[], outcome: Outcome, more: Request<"put"> = {}): Promise<void> {
  const { client } = fixture;
  for (let i = 0; i < ids.length; i += 1_000) {
    await client.good("putMany", { jobs: ids.slice(i, i + 1_000).map((id) => ({ queue, id, ...more })) });
  }
  const jobs = await client.reserveMany(queue, ids.length);
  for (let i = 0; i < jobs.length; i += 1_000) {
    const releases = jobs.slice(i, i + 1_000).map(({ leaseToken }) => ({ leaseToken, outcome }));
    await client.good("releaseMany", { releases });
  }
}

describe("Retry", () => {
  it("lets a FAILED job run again, with no failures counted and no error shown", async () => {
    const { client } = fixture;
    await finished(["job"], BURIED);
    expect(await shown("job")).toMatchObject({ failures: 1, error: { type: "Bad", message: "broken" } });
    const { retried, results } = await client.good("retry", { queue, ids: ["job"] });
    expect([retried, results.map(({ result }) => result)]).toEqual([1, [{ case: "state", value: JobState.READY }]]);
    const job = await shown("job");
    expect(job).toMatchObject({ state: JobState.READY, failures: 0, attempt: 1 });
    expect([job.error, job.finishedAt]).toEqual([undefined, undefined]);
    expect(await client.reserveOne(queue)).toMatchObject({ id: "job", attempt: 2, failures: 0 });
  });

  it("lets a COMPLETED job run again, and its result is gone", async () => {
    const { client } = fixture;
    const result = { content: { case: "text", value: "done" } } as const;
    await finished(["job"], { case: "completed", value: { result } });
    expect((await client.good("retry", { queue, ids: ["job"] })).retried).toBe(1);
    const job = await shown("job");
    expect([job.state, job.result, job.retainedUntil]).toEqual([JobState.READY, undefined, undefined]);
  });

  it("puts jobs at their old places, ahead of those that were put later", async () => {
    const { client } = fixture;
    await finished(["old 1", "old 2"], BURIED);
    await client.good("put", { queue, id: "new" });
    await client.good("retry", { queue, ids: ["old 2", "old 1"] });
    expect((await client.reserveMany(queue, 3)).map(({ id }) => id)).toEqual(["old 1", "old 2", "new"]);
  });

  it("wakes a worker that waits", async () => {
    const { client } = fixture;
    await finished(["job"], BURIED);
    const waiting = client.start("reserve", { queues: [{ name: queue }], wait: ms(8_000) });
    await client.good("retry", { queue, ids: ["job"] });
    const answer = await waiting.answer;
    expect("response" in answer && answer.response.jobs.map(({ id }) => id)).toEqual(["job"]);
  });

  it("answers for each id in its place: what is not there, has not finished, or is named twice", async () => {
    const { client } = fixture;
    await putOneInEveryState(client, queue);
    const ids = ["none", "scheduled", "failed", "ready", "reserved", "retrying", "completed", "failed"];
    const { retried, results } = await client.good("retry", { queue, ids });
    expect(retried).toBe(2);
    const answers = results.map(({ result }) => {
      if (result.case === "state") return JobState[result.value];
      const { code, reason, metadata } = errorIn(result);
      return [code, reason, metadata];
    });
    const unfinished = (id: string, state: string) => ["FAILED_PRECONDITION", "JOB_NOT_FINISHED", { queue, id, state }];
    expect(answers).toEqual([
      ["NOT_FOUND", "JOB_NOT_FOUND", { queue, id: "none" }],
      unfinished("scheduled", "SCHEDULED"),
      "READY",
      unfinished("ready", "READY"),
      unfinished("reserved", "RESERVED"),
      unfinished("retrying", "RETRYING"),
      "READY",
      unfinished("failed", "READY"),
    ]);
  });

  it("is safe to repeat: the second time the job has not finished", async () => {
    await finished(["job"], BURIED);
    expect((await fixture.client.good("retry", { queue, ids: ["job"] })).retried).toBe(1);
    const { retried, results } = await fixture.client.good("retry", { queue, ids: ["job"] });
    expect([retried, errorIn(results[0]?.result).reason]).toEqual([0, "JOB_NOT_FINISHED"]);
    expect((await queues.good("getQueue", { queue })).queue?.counts?.ready).toBe(1n);
  });

  it("leaves a job whose unique key another has taken meanwhile, and names that one", async () => {
    const { client } = fixture;
    const unique = { key: "one of a kind", until: UniqueUntil.SUCCESS };
    await finished(["old"], BURIED, { unique });
    await client.good("put", { queue, id: "new", unique });
    const { retried, results } = await client.good("retry", { queue, ids: ["old"] });
    expect(retried).toBe(0);
    expect(errorIn(results[0]?.result)).toMatchObject({
      code: "ALREADY_EXISTS",
      reason: "UNIQUE_KEY_TAKEN",
      metadata: { id: "new", state: "READY" },
    });
    expect((await shown("old")).state).toBe(JobState.FAILED);
  });

  it("takes the unique key again", async () => {
    const { client } = fixture;
    const unique = { key: "one of a kind" };
    await finished(["old"], BURIED, { unique });
    await client.good("retry", { queue, ids: ["old"] });
    expect(await client.bad("put", { queue, id: "new", unique })).toMatchObject({
      reason: "UNIQUE_KEY_TAKEN",
      metadata: { id: "old" },
    });
  });

  it("of a job that nobody came for in time lets it wait anew", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "lapsed", expiresIn: ms(300) });
    const { putAt } = await shown("lapsed");
    await expect.poll(() => fixture.nowMs()).toBeGreaterThan(at(putAt) + 300);
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    expect((await shown("lapsed")).error?.type).toBe("JOB_EXPIRED");
    await client.good("retry", { queue, ids: ["lapsed"] });
    expect((await client.reserveOne(queue)).id).toBe("lapsed");
  });

  it("with all_failed retries thousands, leaves what cannot be retried, and lists nothing", async () => {
    const { client } = fixture;
    const unique = { key: "taken" };
    await finished(["stuck"], BURIED, { unique });
    await client.good("put", { queue, id: "keeper", unique, start: { case: "delay", value: hours(1) } });
    await finished(numbered(2_500), BURIED);
    await finished(["done"], COMPLETED);
    const answer = await client.good("retry", { queue, allFailed: true });
    expect(answer).toMatchObject({ retried: 2_500, results: [] });
    const { queue: message } = await queues.good("getQueue", { queue });
    expect(message?.counts).toMatchObject({ ready: 2_500n, failed: 1n, completed: 1n, scheduled: 1n });
    expect((await shown("stuck")).state).toBe(JobState.FAILED);
    expect(await client.good("retry", { queue, allFailed: true })).toMatchObject({ retried: 0 });
  });

  it("with all_failed ends, although a worker fails the jobs again as fast as they come", async () => {
    const { client } = fixture;
    await finished(numbered(2_000), BURIED);
    let isRetrying = true;
    const worker = (async () => {
      while (isRetrying) {
        const jobs = await client.reserve({ queues: [{ name: queue }], maxJobs: 500 });
        const releases = jobs.map(({ leaseToken }) => ({ leaseToken, outcome: BURIED }));
        if (releases.length > 0) await client.good("releaseMany", { releases });
      }
    })();
    const { retried } = await client.good("retry", { queue, allFailed: true });
    isRetrying = false;
    await worker;
    expect(retried).toBe(2_000);
  });

  it("of a queue that there is not retries nothing", async () => {
    expect(await fixture.client.good("retry", { queue, allFailed: true })).toMatchObject({ retried: 0 });
    expect(await fixture.redis.keys(`*${queue}*`)).toEqual([]);
  });
});

describe("Cancel", () => {
  it.each([
    ["scheduled", JobState.SCHEDULED],
    ["ready", JobState.READY],
    ["reserved", JobState.RESERVED],
    ["retrying", JobState.RETRYING],
  ] as const)("ends a job that is %s, and keeps it as FAILED with the type CANCELLED", async (id, previousState) => {
    const { client } = fixture;
    await putOneInEveryState(client, queue);
    expect(await client.good("cancel", { queue, id })).toMatchObject({ cancelled: true, previousState });
    const job = await shown(id);
    expect(job).toMatchObject({
      state: JobState.FAILED,
      error: { type: "CANCELLED", message: "cancelled", permanent: false },
    });
    expect(at(job.finishedAt)).toBeGreaterThanOrEqual(at(job.putAt));
    expect(await client.good("cancel", { queue, id })).toMatchObject({
      cancelled: false,
      previousState: JobState.FAILED,
    });
    const { jobs } = await client.good("list", { queue, state: JobState.FAILED });
    expect(jobs.map((failed) => failed.id).sort()).toEqual(["failed", id].sort());
  });

  it("ends a HELD job, and frees the slot of one that runs", async () => {
    const { client } = fixture;
    const concurrency = { key: "one", limit: 1 };
    await client.good("putMany", { jobs: numbered(3).map((id) => ({ queue, id, concurrency })) });
    await client.reserveOne(queue);
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    const answer = await client.good("cancel", { queue, id: "1" });
    expect(answer).toMatchObject({ cancelled: true, previousState: JobState.HELD });
    await client.good("cancel", { queue, id: "0" });
    expect((await client.reserveOne(queue)).id).toBe("2");
  });

  it.each(["completed", "failed", "none"])("leaves a job that is %s as it is", async (id) => {
    const { client } = fixture;
    await putOneInEveryState(client, queue);
    const before = await client.call("get", { queue, id });
    const previousState = { completed: JobState.COMPLETED, failed: JobState.FAILED, none: 0 }[id] ?? 0;
    expect(await client.good("cancel", { queue, id })).toMatchObject({ cancelled: false, previousState });
    expect(await client.call("get", { queue, id })).toEqual(before);
  });

  it("frees the job's unique key, counts it as failed, and lets it be retried", async () => {
    const { client } = fixture;
    const unique = { key: "one of a kind", until: UniqueUntil.EXPIRY, expiresIn: hours(1) };
    await client.good("put", { queue, id: "job", unique });
    await client.good("cancel", { queue, id: "job" });
    expect((await queues.good("getQueue", { queue })).queue?.totals).toMatchObject({ put: 1n, failed: 1n });
    expect((await client.good("put", { queue, id: "next", unique })).created).toBe(true);
    await client.good("delete", { queue, id: "next" });
    expect((await client.good("retry", { queue, ids: ["job"] })).retried).toBe(1);
  });

  it("publishes the completion event, with the error", async () => {
    const { client, broker } = fixture;
    const events = await followEvents(broker.redis.socketPath, queue);
    try {
      await client.good("put", { queue, id: "job" });
      await client.good("cancel", { queue, id: "job", message: 'said "no"' });
      await until(() => events.seen.length > 0, { what: "the completion event" });
      expect(events.seen).toMatchObject([
        { id: "job", state: "FAILED", error: { type: "CANCELLED", message: 'said "no"', permanent: false } },
      ]);
    } finally {
      events.stop();
    }
  });
});
