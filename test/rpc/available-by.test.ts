/** Reserve with available_by: also jobs that are due only later, up to and including a time. */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { DeliveryMode } from "../../gen/baton/v1/job_service_pb.js";
import { at, type Fixture, hours, ms, startFixture } from "./fixture.ts";
import type { Request } from "./raw-client.ts";

let fixture: Fixture;
let queue: string;
/** An hour from now, so that nothing becomes due while a test runs. */
let laterMs: number;
let count = 0;

beforeAll(async () => {
  fixture = await startFixture();
});

afterAll(() => fixture?.stop());

beforeEach(async () => {
  count += 1;
  queue = `queue-${count}`;
  laterMs = (await fixture.nowMs()) + 3_600_000;
});

const putAt = (id: string, runAtMs: number, more: Request<"put"> = {}) =>
  fixture.client.good("put", { queue, id, start: { case: "runAt", value: timestampFromMs(runAtMs) }, ...more });

const take = (availableByMs: number, more: Request<"reserve"> = {}) =>
  fixture.client.reserve({
    queues: [{ name: queue }],
    maxJobs: 100,
    availableBy: timestampFromMs(availableByMs),
    ...more,
  });

const ids = (jobs: readonly { readonly id: string }[]) => jobs.map(({ id }) => id);

describe("Reserve with available_by", () => {
  it("takes what is due up to that time, inclusive, the earliest first, then by insertion", async () => {
    await putAt("third", laterMs + 5);
    await putAt("first", laterMs);
    await putAt("second", laterMs);
    await putAt("too late", laterMs + 6);
    expect(ids(await take(laterMs - 1))).toEqual([]);
    expect(ids(await take(laterMs + 5))).toEqual(["first", "second", "third"]);
    expect((await fixture.client.good("get", { queue, id: "too late" })).job?.state).toBe(JobState.SCHEDULED);
  });

  it("takes READY jobs first, and among those that are due only later goes by time, not by priority", async () => {
    await putAt("later, urgent", laterMs + 1, { priority: 9 });
    await putAt("later", laterMs);
    await fixture.client.good("put", { queue, id: "ready" });
    await fixture.client.good("put", { queue, id: "ready, urgent", priority: 9 });
    expect(ids(await take(laterMs + 1))).toEqual(["ready, urgent", "ready", "later", "later, urgent"]);
  });

  it("takes jobs that wait for their next attempt as it takes scheduled ones", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "retrying" });
    const { leaseToken } = await client.reserveOne(queue);
    const failed = { case: "failed", value: { retryAfter: hours(2) } } as const;
    const { runAt } = await client.good("release", { leaseToken, outcome: failed });
    await putAt("before", at(runAt) - 1);
    await putAt("after", at(runAt) + 1);
    expect(ids(await take(at(runAt) - 1))).toEqual(["before"]);
    const jobs = await take(at(runAt) + 1);
    expect(ids(jobs)).toEqual(["retrying", "after"]);
    expect(jobs[0]).toMatchObject({ attempt: 2, failures: 1 });
  });

  it("leaves what is due only later to itself without it, or with a time that is past", async () => {
    await putAt("later", laterMs);
    expect(await fixture.client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    expect(await take(1_000)).toEqual([]);
    expect(await take(await fixture.nowMs())).toEqual([]);
  });

  it("takes no more than max_jobs, and leaves the others as they were", async () => {
    for (let i = 0; i < 5; i++) await putAt(`${i}`, laterMs + i);
    expect(ids(await take(laterMs + 10, { maxJobs: 2 }))).toEqual(["0", "1"]);
    const { job } = await fixture.client.good("get", { queue, id: "2" });
    expect(job?.state).toBe(JobState.SCHEDULED);
    expect(at(job?.runAt)).toBe(laterMs + 2);
  });

  it("takes nothing ahead for callers beside it that do not ask for it", async () => {
    await putAt("0", laterMs);
    await putAt("1", laterMs + 1);
    const plain = Array.from({ length: 5 }, () => fixture.client.reserve({ queues: [{ name: queue }], wait: ms(400) }));
    expect(ids(await take(laterMs))).toEqual(["0"]);
    expect((await Promise.all(plain)).flat()).toEqual([]);
    expect((await fixture.client.good("get", { queue, id: "1" })).job?.state).toBe(JobState.SCHEDULED);
  });

  it("gives bodies back byte by byte: spaces, NUL, and what is no UTF-8", async () => {
    const bodies = ["  two  spaces  ", "\0a\0", "\xff\xfe\xc3\x28", "\r\n\t", ""].map((body) =>
      Buffer.from(body, "latin1"),
    );
    for (const [i, value] of bodies.entries()) {
      await putAt(`${i}`, laterMs + i, { payload: { content: { case: "data", value } } });
    }
    const jobs = await take(laterMs + 10);
    expect(jobs.map(({ payload }) => Buffer.from((payload?.content.value as Uint8Array | undefined) ?? []))).toEqual(
      bodies,
    );
  });

  it("can be combined with mode PULL", async () => {
    await putAt("later", laterMs);
    expect(ids(await take(laterMs, { mode: DeliveryMode.PULL }))).toEqual(["later"]);
    expect((await fixture.client.bad("get", { queue, id: "later" })).reason).toBe("JOB_NOT_FOUND");
  });
});
