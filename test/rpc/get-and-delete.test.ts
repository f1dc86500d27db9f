/** What Get shows of a job in each state, and what Delete does to it, over real gRPC. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Job, JobState } from "../../gen/baton/v1/job_pb.js";
import { until } from "../support/wait.ts";
import {
  at,
  expectLeaseLost,
  type Fixture,
  hours,
  ms,
  putOneInEveryState,
  startFixture,
  type Tokens,
} from "./fixture.ts";

let fixture: Fixture;
let queue: string;
let tokens: Tokens;
let count = 0;

beforeAll(async () => {
  fixture = await startFixture();
});

afterAll(() => fixture?.stop());

beforeEach(async () => {
  count += 1;
  queue = `queue-${count}`;
  tokens = await putOneInEveryState(fixture.client, queue);
});

const IDS = ["scheduled", "ready", "reserved", "retrying", "completed", "failed"] as const;
const stateOf = (id: string) => JobState[id.toUpperCase() as keyof typeof JobState];

async function shown(id: string, of = queue): Promise<Job> {
  const { job } = await fixture.client.good("get", { queue: of, id });
  if (!job) throw new Error(`there is no job ${id}`);
  return job;
}

describe("Get", () => {
  /** Besides put_at, which all have. */
  const TIMES: Readonly<Record<(typeof IDS)[number], readonly string[]>> = {
    scheduled: ["runAt"],
    ready: [],
    reserved: ["leaseExpiresAt", "reservedAt"],
    retrying: ["runAt", "reservedAt"],
    completed: ["reservedAt", "finishedAt", "retainedUntil"],
    failed: ["reservedAt", "finishedAt"],
  };

  it.each(IDS)("shows a job that is %s, with the times that it has, and no others", async (id) => {
    const { dump } = fixture;
    const before = await dump();
    const job = await shown(id);
    expect(job).toMatchObject({ queue, id, state: stateOf(id) });
    const { putAt, runAt, leaseExpiresAt, reservedAt, finishedAt, retainedUntil } = job;
    const times = { runAt, leaseExpiresAt, reservedAt, finishedAt, retainedUntil };
    const set = Object.entries(times).flatMap(([name, time]) => (time ? [name] : []));
    expect(set.sort()).toEqual([...TIMES[id]].sort());
    for (const time of [reservedAt, finishedAt, retainedUntil, leaseExpiresAt, runAt]) {
      if (time) expect(at(time)).toBeGreaterThanOrEqual(at(putAt));
    }
    expect(await dump()).toEqual(before);
  });

  it.each(IDS)("shows the attempts, the worker and the error of a job that is %s", async (id) => {
    const job = await shown(id);
    const reserved = id !== "scheduled" && id !== "ready";
    const failed = id === "retrying" || id === "failed";
    expect(job.attempt).toBe(reserved ? 1 : 0);
    expect(job.failures).toBe(failed ? 1 : 0);
    expect(job.workerId).toMatch(reserved ? /^127\.0\.0\.1:\d+$/ : /^$/);
    expect(job.error !== undefined).toBe(failed);
  });

  it("shows the last failure of a job that is being tried again", async () => {
    const { client } = fixture;
    const of = `${queue}-again`;
    await client.good("put", { queue: of, id: "job" });
    for (const message of ["first", "second"]) {
      const { leaseToken } = await client.reserveOne(of);
      const failed = { case: "failed", value: { message, retryAfter: {} } } as const;
      await client.good("release", { leaseToken, outcome: failed });
      expect(await shown("job", of)).toMatchObject({ state: JobState.READY, error: { message } });
    }
    await client.reserveOne(of);
    expect(await shown("job", of)).toMatchObject({
      state: JobState.RESERVED,
      failures: 2,
      error: { message: "second" },
    });
  });

  it("shows that the last failure was a lease that ran out, also while attempts are left", async () => {
    const { client } = fixture;
    const of = `${queue}-expired`;
    await client.good("put", { queue: of, id: "job" });
    const { leaseToken } = await client.reserveOne(of);
    const failed = { case: "failed", value: { message: "an older failure", retryAfter: {} } } as const;
    await client.good("release", { leaseToken, outcome: failed });
    await client.reserveOne(of, { leaseDuration: ms(100) });
    await until(async () => (await shown("job", of)).failures === 2, { what: "the lease to run out" });
    const job = await shown("job", of);
    expect(job).toMatchObject({ state: JobState.READY, attempt: 2 });
    expect(job.error).toMatchObject({ type: "LEASE_EXPIRED", permanent: false });
  });

  it("shows a job as it is at this moment: a lease that has run out is over, a time that has come is due", async () => {
    const { client, nowMs } = fixture;
    const of = `${queue}-now`;
    await client.good("put", { queue: of, id: "leased" });
    const { leaseExpiresAt } = await client.reserveOne(of, { leaseDuration: ms(100) });
    await client.good("put", { queue: of, id: "delayed", start: { case: "delay", value: ms(100) } });
    const dueMs = Math.max(at(leaseExpiresAt), at((await shown("delayed", of)).putAt) + 100);
    await until(async () => (await nowMs()) > dueMs, { what: "both times to pass" });
    expect(await shown("leased", of)).toMatchObject({ state: JobState.READY, failures: 1 });
    expect(await shown("delayed", of)).toMatchObject({ state: JobState.READY, attempt: 0 });
  });
});

describe("Delete", () => {
  it.each(IDS)("removes a job that is %s, says in which state it was, and leaves nothing of it", async (id) => {
    const { client, redis } = fixture;
    expect(await client.good("delete", { queue, id })).toMatchObject({ deleted: true, previousState: stateOf(id) });
    expect(await client.bad("get", { queue, id })).toMatchObject({
      code: "NOT_FOUND",
      reason: "JOB_NOT_FOUND",
      domain: "baton",
      metadata: { queue, id },
    });
    for (const part of ["spec", "state", "result"]) {
      expect(await redis.hexists(`baton:{${queue}}:${part}`, id)).toBe(0);
    }
    for (const part of ["ready", "scheduled", "retrying", "reserved", "completed", "failed"]) {
      const members = await redis.zrange(`baton:{${queue}}:${part}`, 0, "-1");
      expect(members.filter((member) => member.endsWith(id))).toEqual([]);
    }
  });

  it.each(IDS)("repeated on a job that was %s answers deleted=false, which is no error", async (id) => {
    const { client } = fixture;
    await client.good("delete", { queue, id });
    const again = await client.good("delete", { queue, id });
    expect(again).toMatchObject({ deleted: false, previousState: JobState.UNSPECIFIED });
  });

  it.each(["reserved", "retrying", "completed", "failed"] as const)(
    "voids the token of a job that is %s",
    async (id) => {
      const { client } = fixture;
      await client.good("delete", { queue, id });
      const leaseToken = tokens[id];
      const outcome = { case: "completed", value: {} } as const;
      expectLeaseLost(await client.bad("release", { leaseToken, outcome }), queue, id);
    },
  );

  it("leaves the other jobs alone", async () => {
    const { client } = fixture;
    await client.good("delete", { queue, id: "reserved" });
    for (const id of IDS) if (id !== "reserved") expect((await shown(id)).state).toBe(stateOf(id));
    expect(await client.reserveOne(queue, { leaseDuration: hours(1) })).toMatchObject({ id: "ready" });
  });
});
