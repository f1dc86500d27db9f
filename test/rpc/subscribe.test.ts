/** What the contract promises of Subscribe, sentence by sentence, over real gRPC. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { RevokedReason } from "../../gen/baton/v1/job_service_pb.js";
import { subscribeAndNeverRead } from "../e2e/raw-client.ts";
import { until } from "../support/wait.ts";
import { at, expectLeaseLost, type Fixture, hours, inMs, ms, startFixture, untilState } from "./fixture.ts";
import type { RawClient, RawStream, Request } from "./raw-client.ts";

type SubscribeInit = Exclude<Parameters<RawClient["subscribe"]>[0], Uint8Array>;

const COMPLETED: NonNullable<Request<"release">["outcome"]> = { case: "completed", value: {} };

let fixture: Fixture;
let queue: string;
let count = 0;
const streams: RawStream[] = [];

beforeAll(async () => {
  fixture = await startFixture();
});

afterAll(() => fixture?.stop());

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

afterEach(() => {
  for (const stream of streams.splice(0)) stream.cancel();
});

/** A stream of this test's queue that has started. */
async function opened(request: SubscribeInit = {}): Promise<RawStream> {
  const stream = fixture.client.subscribe({ queues: [{ name: queue }], ...request });
  streams.push(stream);
  await stream.saw("started");
  return stream;
}

async function shown(id: string) {
  const { job } = await fixture.client.good("get", { queue, id });
  if (!job) throw new Error(`there is no job ${id}`);
  return job;
}

function putMany(howMany: number) {
  return fixture.client.good("putMany", { jobs: Array.from({ length: howMany }, (_, i) => ({ queue, id: `${i}` })) });
}

describe("a stream that opens", () => {
  it("says first that it has started, also when jobs are there, and what is in force", async () => {
    await putMany(1);
    const stream = await opened({ workerId: "w1", leaseDuration: ms(5_500), disconnectGrace: {} });
    await stream.got(1);
    expect(stream.events.map((event) => event.case)).toEqual(["started", "jobs"]);
    const [started] = stream.all("started");
    expect(started?.workerId).toBe("w1");
    expect(inMs(started?.leaseDuration)).toBe(5_500);
    expect(inMs(started?.disconnectGrace)).toBe(0);
  });

  it("has the defaults that the contract gives: the caller's address, 30 s, a grace of 2 s, one job", async () => {
    await putMany(2);
    const stream = await opened();
    const [started] = stream.all("started");
    expect(started?.workerId).toMatch(/^127\.0\.0\.1:\d{4,5}$/);
    expect(inMs(started?.leaseDuration)).toBe(30_000);
    expect(inMs(started?.disconnectGrace)).toBe(2_000);
    const [job] = await stream.got(1);
    expect(await shown("0")).toMatchObject({ state: JobState.RESERVED, workerId: started?.workerId });
    expect((await shown("0")).leaseExpiresAt).toEqual(job?.leaseExpiresAt);
    expect((await shown("1")).state).toBe(JobState.READY);
  });
});

describe("the credit of a stream", () => {
  it("is never exceeded, and what is released is followed by the next", async () => {
    const { client, redis } = fixture;
    await putMany(12);
    const stream = await opened({ maxOutstanding: 3 });
    const released = new Set<string>();
    for (let done = 0; done < 12; done++) {
      const jobs = await stream.got(Math.min(12, done + 3));
      const outstanding = jobs.filter(({ id }) => !released.has(id));
      expect(outstanding.length).toBeLessThanOrEqual(3);
      expect(await redis.zcard(`baton:{${queue}}:reserved`)).toBeLessThanOrEqual(3);
      const [job] = outstanding;
      if (!job) throw new Error("no job is outstanding");
      await client.good("release", { leaseToken: job.leaseToken, outcome: COMPLETED });
      released.add(job.id);
    }
    expect(stream.jobs().map(({ id }) => id)).toEqual(Array.from({ length: 12 }, (_, i) => `${i}`));
  });

  it("comes back with a job that was returned, failed, deleted or whose run_timeout was over", async () => {
    const { client } = fixture;
    const stream = await opened({ maxOutstanding: 1, leaseDuration: ms(1_000) });
    const ends: readonly ((leaseToken: string, id: string) => Promise<unknown>)[] = [
      (leaseToken) => client.good("release", { leaseToken, outcome: { case: "returned", value: { delay: hours(1) } } }),
      (leaseToken) => client.good("release", { leaseToken, outcome: { case: "failed", value: { permanent: true } } }),
      (_, id) => client.good("delete", { queue, id }),
      () => stream.saw("revoked", 2),
      (leaseToken) => client.good("release", { leaseToken, outcome: COMPLETED }),
    ];
    for (const [i, end] of ends.entries()) {
      await client.good("put", {
        queue,
        id: `${i}`,
        retry: { maxAttempts: 1 },
        ...(i === 3 && { runTimeout: ms(200) }),
      });
      const job = (await stream.got(i + 1))[i];
      expect(job?.id).toBe(`${i}`);
      await end(job?.leaseToken ?? "", `${i}`);
    }
    expect(stream.all("revoked")).toHaveLength(2);
  });
});

describe("a lease that was handed out on a stream", () => {
  it("is revoked when the job is deleted: the worker is told its token, which ends nothing any more", async () => {
    const { client } = fixture;
    await putMany(1);
    const stream = await opened();
    const [job] = await stream.got(1);
    await client.good("delete", { queue, id: "0" });
    const revoked = await stream.saw("revoked");
    expect(revoked).toMatchObject({ leaseTokens: [job?.leaseToken], reason: RevokedReason.DELETED });
    const release: Request<"release"> = { leaseToken: job?.leaseToken ?? "", outcome: COMPLETED };
    expectLeaseLost(await client.bad("release", release), queue, "0");
  });

  it("is extended by the broker for as long as the stream lives", async () => {
    await putMany(1);
    const stream = await opened({ leaseDuration: ms(1_000) });
    const [job] = await stream.got(1);
    const first = at(job?.leaseExpiresAt);
    await until(async () => at((await shown("0")).leaseExpiresAt) > first + 1_000, { what: "two renewals" });
    expect(await shown("0")).toMatchObject({ state: JobState.RESERVED, attempt: 1, failures: 0 });
    expect(stream.all("revoked")).toEqual([]);
  });

  it("is not extended beyond the job's run_timeout, and the worker is told why", async () => {
    const { client } = fixture;
    const stream = await opened({ leaseDuration: ms(1_000) });
    await client.good("put", { queue, id: "job", runTimeout: ms(1_500), retry: { maxAttempts: 1 } });
    const [job] = await stream.got(1);
    const revoked = await stream.saw("revoked");
    expect(revoked).toMatchObject({ leaseTokens: [job?.leaseToken], reason: RevokedReason.RUN_TIMEOUT });
    const { state, finishedAt, reservedAt } = await shown("job");
    expect(state).toBe(JobState.FAILED);
    expect(at(finishedAt) - at(reservedAt)).toBeGreaterThanOrEqual(1_500);
  });

  it("ends at a run_timeout shorter than the time between two renewals, and for that reason", async () => {
    const { client } = fixture;
    const stream = await opened({ leaseDuration: ms(1_000) });
    await client.good("put", { queue, id: "job", runTimeout: ms(200), retry: { maxAttempts: 1 } });
    await stream.got(1);
    expect(await stream.saw("revoked")).toMatchObject({ reason: RevokedReason.RUN_TIMEOUT });
    await untilState(client, queue, "job", JobState.FAILED);
  });

  it("says nothing of a lease that the worker itself released", async () => {
    const { client } = fixture;
    const stream = await opened();
    await putMany(2);
    for (const i of [0, 1]) {
      const job = (await stream.got(i + 1))[i];
      await client.good("release", { leaseToken: job?.leaseToken ?? "", outcome: COMPLETED });
    }
    await client.good("put", { queue, id: "sentinel" });
    await stream.got(3);
    expect(stream.all("revoked")).toEqual([]);
  });
});

describe("a stream that is cut", () => {
  it("gives back what was not released after disconnect_grace, as a failed attempt", async () => {
    const { client, nowMs } = fixture;
    await putMany(2);
    const stream = await opened({ maxOutstanding: 2, disconnectGrace: ms(700), leaseDuration: hours(1) });
    const [first] = await stream.got(2);
    await client.good("release", { leaseToken: first?.leaseToken ?? "", outcome: COMPLETED });
    const cutMs = await nowMs();
    stream.cancel();
    const again = await client.reserveOne(queue);
    expect(again).toMatchObject({ id: "1", attempt: 2, failures: 1 });
    const waitedMs = (await nowMs()) - cutMs;
    expect(waitedMs).toBeGreaterThanOrEqual(700);
    expect(waitedMs).toBeLessThan(5_000);
    expect((await shown("0")).state).toBe(JobState.COMPLETED);
  });

  it("still lets its worker release within the grace", async () => {
    const { client } = fixture;
    await putMany(1);
    const stream = await opened({ disconnectGrace: hours(0.01) });
    const [job] = await stream.got(1);
    const before = at((await shown("0")).leaseExpiresAt);
    stream.cancel();
    await until(async () => at((await shown("0")).leaseExpiresAt) !== before, { what: "the grace to begin" });
    const release: Request<"release"> = { leaseToken: job?.leaseToken ?? "", outcome: COMPLETED };
    expect((await client.good("release", release)).state).toBe(JobState.COMPLETED);
  });

  it("with a grace of zero gives its jobs back at once, and its tokens are void", async () => {
    const { client } = fixture;
    await putMany(1);
    const stream = await opened({ disconnectGrace: {} });
    const [job] = await stream.got(1);
    stream.cancel();
    expect(await client.reserveOne(queue)).toMatchObject({ id: "0", attempt: 2, failures: 1 });
    const release: Request<"release"> = { leaseToken: job?.leaseToken ?? "", outcome: COMPLETED };
    expectLeaseLost(await client.bad("release", release), queue, "0");
  });

  it("makes a job FAILED that had no attempt left", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "job", retry: { maxAttempts: 1 } });
    const stream = await opened({ disconnectGrace: {} });
    await stream.got(1);
    stream.cancel();
    await untilState(client, queue, "job", JobState.FAILED);
    expect((await shown("job")).error?.type).toBe("LEASE_EXPIRED");
  });

  it("charges nothing for jobs that its worker has not seen", async () => {
    const { client } = fixture;
    const session = subscribeAndNeverRead(fixture.broker.address, {
      queues: [{ name: queue }],
      maxOutstanding: 10,
      disconnectGrace: {},
    });
    try {
      // The first, which is larger than what the connection takes unread, holds the second up in the broker.
      const data = new Uint8Array(3 * 1024 * 1024);
      await client.good("put", { queue, id: "large", payload: { content: { case: "data", value: data } } });
      await untilState(client, queue, "large", JobState.RESERVED);
      await client.good("put", { queue, id: "unseen" });
      await untilState(client, queue, "unseen", JobState.RESERVED);
    } finally {
      session.destroy();
    }
    const jobs = [await client.reserveOne(queue), await client.reserveOne(queue)];
    const unseen = jobs.find(({ id }) => id === "unseen");
    expect(unseen).toMatchObject({ attempt: 1, failures: 0 });
  });

  it("takes no time from the expires_in of jobs that its worker has not seen", async () => {
    const { client } = fixture;
    const session = subscribeAndNeverRead(fixture.broker.address, {
      queues: [{ name: queue }],
      maxOutstanding: 10,
      disconnectGrace: {},
    });
    try {
      const data = new Uint8Array(3 * 1024 * 1024);
      await client.good("put", { queue, id: "large", payload: { content: { case: "data", value: data } } });
      await untilState(client, queue, "large", JobState.RESERVED);
      // Due after 2 s, from which it may wait for 1.9 s: when it comes back, that is long after its put.
      const start = { case: "delay", value: ms(2_000) } as const;
      await client.good("put", { queue, id: "unseen", priority: 9, start, expiresIn: ms(1_900) });
      await untilState(client, queue, "unseen", JobState.RESERVED);
    } finally {
      session.destroy();
    }
    await until(async () => (await shown("unseen")).state !== JobState.RESERVED, { what: "the job to come back" });
    await client.reserveOne(queue);
    expect(await shown("unseen")).toMatchObject({ state: JobState.RESERVED, attempt: 1 });
  });
});
