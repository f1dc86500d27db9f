/** What the contract promises of Reserve and Extend, sentence by sentence, over real gRPC. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { QueuePolicy } from "../../gen/baton/v1/job_service_pb.js";
import { until } from "../support/wait.ts";
import { at, expectLeaseLost, type Fixture, hours, ms, startFixture, untilState } from "./fixture.ts";
import { errorIn, RawClient } from "./raw-client.ts";

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

async function shown(id: string) {
  const { job } = await fixture.client.good("get", { queue, id });
  if (!job) throw new Error(`there is no job ${id}`);
  return job;
}

function putMany(howMany: number, of = queue) {
  return fixture.client.good("putMany", {
    jobs: Array.from({ length: howMany }, (_, i) => ({ queue: of, id: `${i}` })),
  });
}

describe("Reserve", () => {
  it("answers at once and with nothing when there is nothing, and leaves no trace", async () => {
    const { client, dump } = fixture;
    const before = await dump();
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    expect(await client.reserve({ queues: [{ name: queue }], wait: {} })).toEqual([]);
    expect(await dump()).toEqual(before);
  });

  it("takes one job when max_jobs is 0 or 1, else at most max_jobs, in the order in which they should run", async () => {
    const { client } = fixture;
    await putMany(6);
    const ids = async (maxJobs: number) =>
      (await client.reserve({ queues: [{ name: queue }], maxJobs })).map(({ id }) => id);
    expect(await ids(0)).toEqual(["0"]);
    expect(await ids(1)).toEqual(["1"]);
    expect(await ids(3)).toEqual(["2", "3", "4"]);
    expect(await ids(1_000)).toEqual(["5"]);
    expect(await ids(1_000)).toEqual([]);
  });

  it("fits into the 4 MiB that gRPC clients accept, also where the names of 1,000 jobs are as long as they may be", async () => {
    const name = queue.padEnd(128, "q");
    const client = new RawClient(fixture.broker.address, { "grpc.max_receive_message_length": 4 * 1024 * 1024 });
    const payload = { content: { case: "data", value: new Uint8Array(3_640) } } as const;
    const jobs = Array.from({ length: 1_000 }, (_, i) => ({ queue: name, id: `${i}`.padEnd(255, "i"), payload }));
    await client.good("putMany", { jobs });
    let taken = 0;
    while (taken < jobs.length) taken += (await client.reserve({ queues: [{ name }], maxJobs: 1_000 })).length;
    expect(taken).toBe(jobs.length);
    client.close();
  });

  it("hands out a job with its lease, its attempt, and a token of its own", async () => {
    const { client, nowMs } = fixture;
    await putMany(2);
    const before = await nowMs();
    const jobs = await client.reserve({ queues: [{ name: queue }], maxJobs: 2, leaseDuration: ms(90_500) });
    expect(jobs.map(({ attempt, failures }) => [attempt, failures])).toEqual([
      [1, 0],
      [1, 0],
    ]);
    expect(new Set(jobs.map(({ leaseToken }) => leaseToken)).size).toBe(2);
    for (const job of jobs) {
      expect(at(job.leaseExpiresAt)).toBeGreaterThanOrEqual(before + 90_500);
      expect(at(job.leaseExpiresAt)).toBeLessThanOrEqual((await nowMs()) + 90_500);
      const seen = await shown(job.id);
      expect(seen).toMatchObject({ state: JobState.RESERVED, attempt: 1, putAt: job.putAt });
      expect(seen.leaseExpiresAt).toEqual(job.leaseExpiresAt);
      expect(at(seen.reservedAt)).toBe(at(job.leaseExpiresAt) - 90_500);
    }
  });

  it("leases for what the worker says, else for what the job says, else for 30 s", async () => {
    const { client } = fixture;
    const leaseOf = async (id: string) => {
      const { leaseExpiresAt, reservedAt } = await shown(id);
      return at(leaseExpiresAt) - at(reservedAt);
    };
    await client.good("put", { queue, id: "plain" });
    await client.reserveOne(queue);
    expect(await leaseOf("plain")).toBe(30_000);
    await client.good("put", { queue, id: "own", leaseDuration: hours(1) });
    await client.reserveOne(queue);
    expect(await leaseOf("own")).toBe(3_600_000);
    await client.good("put", { queue, id: "worker's", leaseDuration: hours(1) });
    await client.reserveOne(queue, { leaseDuration: { seconds: 5n, nanos: 1 } });
    expect(await leaseOf("worker's")).toBe(5_001);
    await client.good("put", { queue, id: "bounded", leaseDuration: hours(1), runTimeout: ms(20_000) });
    await client.reserveOne(queue, { leaseDuration: hours(2) });
    expect(await leaseOf("bounded")).toBe(20_000);
  });

  it("notes who took the job: the worker_id, or the caller's address", async () => {
    const { client } = fixture;
    await putMany(2);
    const named = await client.reserveOne(queue, { workerId: "wörker 1" });
    expect((await shown(named.id)).workerId).toBe("wörker 1");
    const unnamed = await client.reserveOne(queue);
    expect((await shown(unnamed.id)).workerId).toMatch(/^127\.0\.0\.1:\d{4,5}$/);
  });

  it("waits for the first job, up to `wait`", async () => {
    const { client } = fixture;
    const began = performance.now();
    expect(await client.reserve({ queues: [{ name: queue }], wait: ms(300) })).toEqual([]);
    expect(performance.now() - began).toBeGreaterThanOrEqual(295);

    const waiting = client.reserve({ queues: [{ name: queue }], wait: hours(0.1), maxJobs: 10 });
    await client.good("put", { queue, id: "awaited" });
    expect((await waiting).map(({ id }) => id)).toEqual(["awaited"]);
  });

  it.each([
    { name: "whose deadline passes", code: "DEADLINE_EXCEEDED", deadlineMs: 200 },
    { name: "that cancels", code: "CANCELLED", deadlineMs: 60_000 },
  ])("reserves nothing for a caller $name", async ({ code, deadlineMs }) => {
    const { client } = fixture;
    const request = { queues: [{ name: queue }], wait: { seconds: 60n } };
    const call = client.start("reserve", request, { deadline: Date.now() + deadlineMs });
    // Calls on one connection reach the broker in their order: when this one is answered, that one waits.
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    if (code === "CANCELLED") call.cancel();
    expect(await call.answer).toMatchObject({ error: { code } });
    await client.good("put", { queue, id: "job" });
    expect(await client.reserveOne(queue)).toMatchObject({ id: "job", attempt: 1 });
  });

  it("looks into several queues: as listed, or by weight", async () => {
    const { client } = fixture;
    const [low, high] = [`${queue}-low`, `${queue}-high`];
    await putMany(2, low);
    await putMany(2, high);
    const queues = [{ name: high }, { name: low }];
    const taken = [];
    for (let i = 0; i < 4; i++) taken.push(...(await client.reserve({ queues, policy: QueuePolicy.STRICT })));
    expect(taken.map((job) => job.queue)).toEqual([high, high, low, low]);
    await putMany(1, queue);
    const weighted = await client.reserve({
      queues: [
        { name: high, weight: 3 },
        { name: queue, weight: 1_000 },
      ],
      policy: QueuePolicy.WEIGHTED,
      wait: ms(5_000),
    });
    expect(weighted.map((job) => job.queue)).toEqual([queue]);
  });

  it("gives a job whose lease ran out to the next, with its failure counted", async () => {
    const { client } = fixture;
    await putMany(1);
    const first = await client.reserveOne(queue, { leaseDuration: ms(100), workerId: "one" });
    const second = await client.reserveOne(queue, { workerId: "two" });
    expect(second).toMatchObject({ id: "0", attempt: 2, failures: 1 });
    expect(second.leaseToken).not.toBe(first.leaseToken);
    expect(await shown("0")).toMatchObject({ state: JobState.RESERVED, workerId: "two" });
    const outcome = { case: "completed", value: {} } as const;
    expectLeaseLost(await client.bad("release", { leaseToken: first.leaseToken, outcome }), queue, "0");
    expect((await client.good("release", { leaseToken: second.leaseToken, outcome })).state).toBe(JobState.COMPLETED);
  });

  it("makes a job FAILED whose last lease ran out, with the error LEASE_EXPIRED", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "job", retry: { maxAttempts: 1 } });
    await client.reserveOne(queue, { leaseDuration: ms(100) });
    await untilState(client, queue, "job", JobState.FAILED);
    expect(await shown("job")).toMatchObject({
      attempt: 1,
      failures: 1,
      error: { type: "LEASE_EXPIRED", message: "the lease ran out", permanent: false },
    });
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
  });
});

describe("expires_in", () => {
  it("makes a job FAILED with JOB_EXPIRED that found no worker in time, and others are handed out", async () => {
    const { client, nowMs } = fixture;
    const { jobId } = await client.good("put", { queue, priority: 9, expiresIn: ms(50) });
    await client.good("put", { queue, id: "later" });
    const endMs = at((await shown(jobId)).putAt) + 50;
    await until(async () => (await nowMs()) > endMs, { what: "the job to expire" });
    expect((await shown(jobId)).state).toBe(JobState.READY);
    expect(await client.reserveOne(queue)).toMatchObject({ id: "later" });
    const job = await shown(jobId);
    expect(job).toMatchObject({ state: JobState.FAILED, attempt: 0, failures: 0, workerId: "" });
    expect(job.error).toMatchObject({ type: "JOB_EXPIRED", permanent: false });
    expect(job.reservedAt).toBeUndefined();
    expect(job.finishedAt).toBeDefined();
  });

  it("counts from the time when the job may run", async () => {
    const { client, nowMs } = fixture;
    const start = { case: "delay", value: ms(300) } as const;
    await client.good("put", { queue, id: "job", start, expiresIn: ms(5_000) });
    const putMs = at((await shown("job")).putAt);
    expect(await client.reserveOne(queue)).toMatchObject({ id: "job" });
    expect(await nowMs()).toBeGreaterThanOrEqual(putMs + 300);

    const short = { queue, id: "short", start, expiresIn: ms(200) };
    await client.good("put", short);
    const endMs = at((await shown("short")).putAt) + 500;
    await until(async () => (await nowMs()) > endMs, { what: "the job to expire" });
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    expect((await shown("short")).error?.type).toBe("JOB_EXPIRED");
  });

  it("ends with the first worker: a job that comes back does not expire", async () => {
    const { client, nowMs } = fixture;
    await client.good("put", { queue, id: "job", expiresIn: ms(1_000) });
    const { leaseToken } = await client.reserveOne(queue);
    await client.good("release", { leaseToken, outcome: { case: "returned", value: {} } });
    const endMs = at((await shown("job")).putAt) + 1_000;
    await until(async () => (await nowMs()) > endMs, { what: "expires_in to pass" });
    expect(await client.reserveOne(queue)).toMatchObject({ id: "job", attempt: 2 });
  });
});

describe("Extend", () => {
  it("lets leases end that long from now, sooner or later than before, and says when", async () => {
    const { client, nowMs } = fixture;
    await putMany(1);
    const { leaseToken } = await client.reserveOne(queue);
    for (const duration of [600_000, 100, 60_000.5]) {
      const before = await nowMs();
      const { results } = await client.good("extend", { leaseTokens: [leaseToken], leaseDuration: ms(duration) });
      const result = results[0]?.result;
      const endMs = result?.case === "leaseExpiresAt" ? at(result.value) : 0;
      expect(endMs - before).toBeGreaterThanOrEqual(Math.ceil(duration));
      expect(endMs - (await nowMs())).toBeLessThanOrEqual(Math.ceil(duration));
      if (duration > 100) expect(at((await shown("0")).leaseExpiresAt)).toBe(endMs);
    }
  });

  it("takes 30 s when nothing is said", async () => {
    const { client, nowMs } = fixture;
    await putMany(1);
    const { leaseToken } = await client.reserveOne(queue, { leaseDuration: hours(1) });
    const before = await nowMs();
    await client.good("extend", { leaseTokens: [leaseToken] });
    const { leaseExpiresAt } = await shown("0");
    expect(at(leaseExpiresAt) - before).toBeGreaterThanOrEqual(30_000);
    expect(at(leaseExpiresAt) - (await nowMs())).toBeLessThanOrEqual(30_000);
  });

  it("never exceeds a job's run_timeout, after which the job fails", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "job", runTimeout: ms(600), retry: { maxAttempts: 1 } });
    const { leaseToken } = await client.reserveOne(queue, { leaseDuration: ms(500) });
    await client.good("extend", { leaseTokens: [leaseToken], leaseDuration: hours(1) });
    const { leaseExpiresAt, reservedAt } = await shown("job");
    expect(at(leaseExpiresAt)).toBe(at(reservedAt) + 600);
    await untilState(client, queue, "job", JobState.FAILED);
    expect((await shown("job")).error?.type).toBe("LEASE_EXPIRED");
  });

  it("answers each token by itself, in the order of the request, over several queues", async () => {
    const { client } = fixture;
    const other = `${queue}-other`;
    await putMany(1);
    await putMany(2, other);
    const [a, b, c] = [await client.reserveOne(queue), await client.reserveOne(other), await client.reserveOne(other)];
    await client.good("delete", { queue: other, id: c.id });
    const leaseTokens = [b.leaseToken, "garbage", a.leaseToken, c.leaseToken, b.leaseToken];
    const { results } = await client.good("extend", { leaseTokens, leaseDuration: hours(1) });
    expect(results.map(({ result }) => result.case)).toEqual([
      "leaseExpiresAt",
      "error",
      "leaseExpiresAt",
      "error",
      "leaseExpiresAt",
    ]);
    expect(errorIn(results[1]?.result).violations.map(({ field }) => field)).toEqual(["lease_tokens[1]"]);
    expectLeaseLost(errorIn(results[3]?.result), other, c.id);
  });

  it("does not bring back a lease that was released", async () => {
    const { client } = fixture;
    await putMany(1);
    const { leaseToken } = await client.reserveOne(queue);
    await client.good("release", { leaseToken, outcome: { case: "returned", value: {} } });
    const { results } = await client.good("extend", { leaseTokens: [leaseToken] });
    expectLeaseLost(errorIn(results[0]?.result), queue, "0");
    expect((await shown("0")).state).toBe(JobState.READY);
  });
});
