/** What the contract promises of Await, sentence by sentence, over real gRPC, on two brokers with one Redis. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until } from "../support/wait.ts";
import { at, expectBadRequest, type Fixture, hours, ms, startFixture } from "./fixture.ts";
import { type Answer, type OpenCall, RawClient, type Request, type Response } from "./raw-client.ts";

type Outcome = NonNullable<Request<"release">["outcome"]>;

const BURIED: Outcome = { case: "failed", value: { message: "no", type: "Never", permanent: true } };
const RESULT = { content: { case: "text", value: "42" }, contentType: "text/plain" } as const;
const WITH_RESULT: Outcome = { case: "completed", value: { result: RESULT } };

let fixture: Fixture;
let second: TestBroker;
let client: RawClient;
let elsewhere: RawClient;
let queue: string;
let count = 0;

beforeAll(async () => {
  fixture = await startFixture({ maxAwaitMs: 3_600_000 });
  second = await startBroker({ redis: fixture.broker.redis });
  client = fixture.client;
  elsewhere = new RawClient(second.address);
});

afterAll(async () => {
  elsewhere?.close();
  await second?.stop();
  await fixture?.stop();
});

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

/** An Await whose broker listens already. */
async function awaiting(
  request: { readonly id?: string; readonly expect?: boolean } = {},
  of = client,
): Promise<OpenCall<Response<"await">>> {
  const call = of.start("await", { queue, id: "job", timeout: ms(8_000), ...request });
  const channels = [`baton:{${queue}}:events`, `baton:{${queue}}:leases`];
  const listened = async () => {
    const numbers = await fixture.redis.pubsub("NUMSUB", ...channels);
    return [1, 3].every((i) => Number(numbers[i]) > 0);
  };
  await until(listened, { what: "the broker to listen" });
  return call;
}

async function job(call: { readonly answer: Promise<Answer<Response<"await">>> }) {
  const answer = await call.answer;
  if ("error" in answer) throw new Error(`await failed: ${JSON.stringify(answer.error)}`);
  if (!answer.response.job) throw new Error("await answered without a job");
  return answer.response.job;
}

async function error(call: { readonly answer: Promise<Answer<Response<"await">>> }) {
  const answer = await call.answer;
  if ("error" in answer) return answer.error;
  throw new Error("await should have failed");
}

const put = (request: Request<"put"> = {}) => client.good("put", { queue, id: "job", ...request });

async function run(outcome: Outcome): Promise<void> {
  const { leaseToken } = await client.reserveOne(queue, { workerId: "w1" });
  await client.good("release", { leaseToken, outcome });
}

describe("Await", () => {
  it("answers when the job completes: called before it ran", async () => {
    await put({ payload: { content: { case: "text", value: "6×7" } }, headers: { a: "b" } });
    const call = await awaiting();
    await run(WITH_RESULT);
    expect(await job(call)).toMatchObject({
      queue,
      id: "job",
      state: JobState.COMPLETED,
      result: RESULT,
      payload: { content: { case: "text", value: "6×7" } },
      headers: { a: "b" },
      workerId: "w1",
      attempt: 1,
    });
  });

  it("answers when the job completes: called while it runs, at another broker than the one that releases it", async () => {
    await put();
    const { leaseToken } = await client.reserveOne(queue);
    const call = await awaiting({}, elsewhere);
    await client.good("release", { leaseToken, outcome: WITH_RESULT });
    expect(await job(call)).toMatchObject({ state: JobState.COMPLETED, result: RESULT });
  });

  it("answers at once when the job completed long before, at any broker, as often as it is called", async () => {
    await put();
    await run(WITH_RESULT);
    for (const one of [client, elsewhere, client]) {
      const answer = await one.good("await", { queue, id: "job", timeout: {} });
      expect(answer.job).toMatchObject({ state: JobState.COMPLETED, result: RESULT });
      expect((await one.good("await", { queue, id: "job" })).job).toEqual(answer.job);
    }
  });

  it("answers with the error of a job that failed for good, and not while attempts are left", async () => {
    await put({ retry: { maxAttempts: 3, initialBackoff: {} } });
    const call = await awaiting();
    await run({ case: "failed", value: { message: "first" } });
    await run({ case: "failed", value: { message: "second" } });
    await run({ case: "failed", value: { message: "third", type: "T" } });
    expect(await job(call)).toMatchObject({
      state: JobState.FAILED,
      failures: 3,
      error: { message: "third", type: "T", permanent: false },
    });
  });

  it("answers when the job's last lease runs out, and when nobody came for it in time", async () => {
    await put({ retry: { maxAttempts: 1 } });
    await client.reserveOne(queue, { leaseDuration: ms(100) });
    expect((await job(await awaiting())).error?.type).toBe("LEASE_EXPIRED");
    await put({ id: "late", expiresIn: ms(1) });
    const call = await awaiting({ id: "late" });
    await until(async () => (await client.reserve({ queues: [{ name: queue }] })).length === 0, { what: "a Reserve" });
    expect((await job(call)).error?.type).toBe("JOB_EXPIRED");
  });

  it("answers when the job is cancelled", async () => {
    await put({ start: { case: "delay", value: hours(1) } });
    const call = await awaiting();
    await elsewhere.good("cancel", { queue, id: "job", message: "not needed" });
    expect(await job(call)).toMatchObject({
      state: JobState.FAILED,
      error: { type: "CANCELLED", message: "not needed" },
    });
  });

  it("answers with the first final state, also when the job runs again at once", async () => {
    await put();
    const call = await awaiting();
    await run(BURIED);
    await client.good("retry", { queue, ids: ["job"] });
    expect(await job(call)).toMatchObject({ state: JobState.FAILED, error: { type: "Never" } });
  });

  it("does not take what an earlier job with this id ended with for its own end", async () => {
    for (let round = 0; round < 50; round++) {
      await put({ retention: {} });
      const call = client.start("await", { queue, id: "job", timeout: ms(8_000) });
      // A few of them are still on their way when the job of the next round is put and awaited.
      await run({ case: "completed", value: { result: { content: { case: "text", value: `${round}` } } } });
      expect((await job(call)).result?.content.value).toBe(`${round}`);
    }
  });

  it("follows a job that another takes the place of", async () => {
    await put();
    const call = await awaiting();
    await put({ onConflict: 3, priority: 5 });
    await run(WITH_RESULT);
    expect(await job(call)).toMatchObject({ priority: 5, result: RESULT });
  });
});

describe("an Await of a job that is not kept", () => {
  it("answers those who wait from its completion event, and nobody later", async () => {
    await put({ retention: {}, payload: { content: { case: "text", value: "in" } } });
    const calls = [await awaiting(), await awaiting({}, elsewhere)];
    const putAt = (await client.good("get", { queue, id: "job" })).job?.putAt;
    await run({ case: "completed", value: { result: { content: { case: "data", value: new Uint8Array([0, 255]) } } } });
    for (const call of calls) {
      const answered = await job(call);
      expect(answered).toMatchObject({
        queue,
        id: "job",
        state: JobState.COMPLETED,
        workerId: "w1",
        attempt: 1,
        putAt,
      });
      const { content } = answered.result ?? {};
      expect(content?.case).toBe("data");
      expect(Buffer.from(content?.value ?? "").toString("hex")).toBe("00ff");
      expect(at(answered.finishedAt)).toBeGreaterThanOrEqual(at(answered.reservedAt));
      expect(answered.payload).toBeUndefined();
    }
    expect(await client.bad("await", { queue, id: "job" })).toMatchObject({
      code: "NOT_FOUND",
      reason: "JOB_NOT_FOUND",
      metadata: { queue, id: "job" },
    });
  });

  it("has no result that is larger than 64 KiB, which a kept job has", async () => {
    const large: Outcome = {
      case: "completed",
      value: { result: { content: { case: "text", value: "x".repeat(65_537) } } },
    };
    await put({ retention: {} });
    await put({ id: "kept" });
    const [gone, kept] = [await awaiting(), await awaiting({ id: "kept" })];
    await run(large);
    await run(large);
    expect((await job(gone)).result).toBeUndefined();
    expect((await job(kept)).result?.content.value).toHaveLength(65_537);
  });

  it("answers late calls within the retention, and not after it", async () => {
    await put({ retention: ms(1_500) });
    await run(WITH_RESULT);
    const { retainedUntil } = await job(client.start("await", { queue, id: "job" }));
    await until(async () => (await fixture.nowMs()) > at(retainedUntil), { what: "the retention to end" });
    expect(await client.bad("await", { queue, id: "job" })).toMatchObject({ reason: "JOB_NOT_FOUND" });
  });

  it("waits for the outcome of a job that was pulled meanwhile", async () => {
    await put();
    const call = await awaiting();
    const [pulled] = await client.reserve({ queues: [{ name: queue }], mode: 2 });
    await client.good("release", { leaseToken: pulled?.leaseToken ?? "", outcome: WITH_RESULT });
    const answered = await job(call);
    expect(answered).toMatchObject({ id: "job", state: JobState.COMPLETED, result: RESULT });
    expect(answered.putAt).toBeUndefined();
  });
});

describe("an Await that cannot answer", () => {
  it("says at once that a job never existed", async () => {
    expect(await client.bad("await", { queue, id: "never" })).toMatchObject({
      code: "NOT_FOUND",
      reason: "JOB_NOT_FOUND",
      metadata: { queue, id: "never" },
    });
  });

  it("says so when the job is deleted meanwhile, in any state, by any broker", async () => {
    await put({ id: "waiting", start: { case: "delay", value: hours(1) } });
    await put({ id: "running" });
    await client.reserveOne(queue);
    for (const id of ["waiting", "running"]) {
      const call = await awaiting({ id });
      await elsewhere.good("delete", { queue, id });
      expect(await error(call)).toMatchObject({ code: "NOT_FOUND", reason: "JOB_NOT_FOUND", metadata: { queue, id } });
    }
  });

  it("says after the timeout in which state the job is, which goes on", async () => {
    await put();
    const timedOut = { code: "DEADLINE_EXCEEDED", reason: "AWAIT_TIMEOUT" };
    const startedAt = performance.now();
    expect(await client.bad("await", { queue, id: "job", timeout: ms(300) })).toMatchObject({
      ...timedOut,
      metadata: { queue, id: "job", state: "READY" },
    });
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(295);
    await client.reserveOne(queue);
    expect(await client.bad("await", { queue, id: "job", timeout: {} })).toMatchObject({
      ...timedOut,
      metadata: { state: "RESERVED" },
    });
    expect(await client.bad("await", { queue, id: "new", timeout: ms(100), expect: true })).toMatchObject({
      ...timedOut,
      metadata: { state: "GONE" },
    });
    expect(await client.bad("await", { queue, id: "new", timeout: {} })).toMatchObject({ reason: "JOB_NOT_FOUND" });
  });

  it("ends with the caller's deadline and cancellation, and keeps nothing of it", async () => {
    await put();
    expect(await client.bad("await", { queue, id: "job" }, { deadline: Date.now() + 200 })).toMatchObject({
      code: "DEADLINE_EXCEEDED",
    });
    const call = await awaiting();
    call.cancel();
    expect(await error(call)).toMatchObject({ code: "CANCELLED" });
    await run(WITH_RESULT);
    expect((await client.good("await", { queue, id: "job" })).job?.state).toBe(JobState.COMPLETED);
  });

  it.each([
    ["queue", { queue: "no queue" }],
    ["queue", { queue: "" }],
    ["id", { id: "" }],
    ["id", { id: "x".repeat(256) }],
    ["timeout", { timeout: ms(3_600_001) }],
    ["timeout", { timeout: { seconds: -1n } }],
  ])("names the bad field: %s", async (field, bad: Request<"await">) => {
    expectBadRequest(await client.bad("await", { queue: "q", id: "job", ...bad }), field);
  });

  it("tells its callers to call another broker when it shuts down", async () => {
    const third = await startBroker({ redis: fixture.broker.redis });
    const its = new RawClient(third.address);
    try {
      await put();
      const call = await awaiting({}, its);
      const drained = third.server.drain();
      expect(await error(call)).toMatchObject({ code: "UNAVAILABLE", reason: "DRAINING" });
      await drained;
      await run(WITH_RESULT);
      expect((await client.good("await", { queue, id: "job" })).job?.result).toMatchObject(RESULT);
    } finally {
      its.close();
      await third.stop();
    }
  });
});

describe("an Await with expect", () => {
  it("answers for a job that is put only now, kept or not", async () => {
    const calls = [await awaiting({ id: "kept", expect: true }), await awaiting({ id: "gone", expect: true })];
    await put({ id: "kept" });
    await put({ id: "gone", retention: {} });
    await run(WITH_RESULT);
    await run(WITH_RESULT);
    expect(await job(calls[0] as (typeof calls)[0])).toMatchObject({ id: "kept", result: RESULT });
    expect(await job(calls[1] as (typeof calls)[1])).toMatchObject({ id: "gone", result: RESULT });
  });

  it("answers for a job that was pulled before", async () => {
    await put();
    const [pulled] = await client.reserve({ queues: [{ name: queue }], mode: 2 });
    expect(await client.bad("await", { queue, id: "job", timeout: ms(100) })).toMatchObject({
      reason: "JOB_NOT_FOUND",
    });
    const call = await awaiting({ expect: true });
    await client.good("release", { leaseToken: pulled?.leaseToken ?? "", outcome: BURIED });
    expect(await job(call)).toMatchObject({ id: "job", state: JobState.FAILED, error: { type: "Never" } });
  });

  it("says when the job that it waits for is deleted", async () => {
    const call = await awaiting({ expect: true });
    await put({ start: { case: "delay", value: hours(1) } });
    await client.good("delete", { queue, id: "job" });
    expect(await error(call)).toMatchObject({ reason: "JOB_NOT_FOUND" });
  });
});

describe("many Awaits", () => {
  const ids = Array.from({ length: 1_000 }, (_, i) => `${i}`);

  async function commands(): Promise<number> {
    const info = await fixture.redis.info("commandstats");
    return [...info.matchAll(/^cmdstat_eval(?:sha)?:calls=(\d+)/gm)].reduce((sum, [, calls]) => sum + Number(calls), 0);
  }

  it("are answered each with its own job, 1,000 at once at two brokers", async () => {
    await client.good("putMany", { jobs: ids.map((id) => ({ queue, id, retention: Number(id) % 2 ? {} : hours(1) })) });
    const calls = ids.map((id) =>
      (Number(id) % 3 ? client : elsewhere).start("await", { queue, id, timeout: ms(9_000) }),
    );
    const jobs = await client.reserveMany(queue, ids.length);
    const releases = jobs.map(({ id, leaseToken }) => {
      const result = { content: { case: "text", value: `result of ${id}` } } as const;
      return { leaseToken, outcome: { case: "completed", value: { result } } as const };
    });
    await client.good("releaseMany", { releases });
    const answered = await Promise.all(calls.map(job));
    expect(answered.map(({ id, result }) => [id, result?.content.value])).toEqual(
      ids.map((id) => [id, `result of ${id}`]),
    );
  });

  it("of one job share one look, and of one queue their first looks", async () => {
    await put();
    const before = await commands();
    const calls = ids.map(() => client.start("await", { queue, id: "job", timeout: ms(9_000) }));
    const channel = `baton:{${queue}}:events`;
    await until(async () => Number((await fixture.redis.pubsub("NUMSUB", channel))[1]) > 0, { what: "them to listen" });
    await run(WITH_RESULT);
    for (const { result } of await Promise.all(calls.map(job))) expect(result).toMatchObject(RESULT);
    // First looks go in hundreds; sweeps, the worker and other brokers' looks are among these, too.
    expect((await commands()) - before).toBeLessThan(150);
  });
});
