/** What the contract promises of Put and PutMany, sentence by sentence, over real gRPC. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { OnConflict } from "../../gen/baton/v1/job_service_pb.js";
import { until } from "../support/wait.ts";
import { at, type Fixture, hours, ms, putOneInEveryState, startFixture } from "./fixture.ts";
import { errorIn, type Request } from "./raw-client.ts";

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

describe("an id", () => {
  it("is a UUIDv7 of the broker's own when the caller gives none, and another one each time", async () => {
    const { client } = fixture;
    const one = await client.good("put", { queue });
    const other = await client.good("put", { queue });
    expect(one).toMatchObject({ created: true, state: JobState.READY });
    for (const { jobId } of [one, other]) {
      expect(jobId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      expect(Number.parseInt(jobId.replace("-", "").slice(0, 12), 16)).toBeGreaterThan(Date.now() - 60_000);
    }
    expect(one.jobId).not.toBe(other.jobId);
  });

  it("is the caller's, and belongs to its queue alone", async () => {
    const { client } = fixture;
    expect(await client.good("put", { queue, id: "mine" })).toMatchObject({ jobId: "mine", created: true });
    expect(await client.good("put", { queue: `${queue}-other`, id: "mine" })).toMatchObject({ created: true });
  });

  it("differs from another by a single character, and by case", async () => {
    const { client } = fixture;
    const ids = ["a", "A", "a ", " a", "ä", "a\u0308", "a/", "a:", "__proto__", "constructor", "{a}", "%s"];
    const { results } = await client.good("putMany", { jobs: ids.map((id) => ({ queue, id })) });
    expect(results.map(({ result }) => result.case === "job" && result.value.created)).toEqual(ids.map(() => true));
    const jobs = await client.reserve({ queues: [{ name: queue }], maxJobs: 100 });
    expect(jobs.map(({ id }) => id)).toEqual(ids);
    for (const job of jobs) {
      await client.good("release", { leaseToken: job.leaseToken, outcome: { case: "completed", value: {} } });
      expect((await shown(job.id)).state).toBe(JobState.COMPLETED);
    }
  });
});

describe("a Put of an id that is taken", () => {
  const STATES = ["SCHEDULED", "READY", "RESERVED", "RETRYING", "COMPLETED", "FAILED"] as const;
  const OPEN = new Set<string>(["SCHEDULED", "READY", "RESERVED", "RETRYING"]);
  const idOf = (state: string) => state.toLowerCase();

  beforeEach(() => putOneInEveryState(fixture.client, queue));

  describe.each([
    { mode: OnConflict.UNSPECIFIED, name: "no on_conflict" },
    { mode: OnConflict.REJECT, name: "REJECT" },
  ])("with $name", ({ mode }) => {
    it.each(STATES.filter((state) => OPEN.has(state)))("is JOB_EXISTS when the job is %s", async (state) => {
      const { client, dump } = fixture;
      const before = await dump();
      const error = await client.bad("put", { queue, id: idOf(state), onConflict: mode });
      const metadata = { queue, id: idOf(state), state };
      expect(error).toMatchObject({ code: "ALREADY_EXISTS", reason: "JOB_EXISTS", domain: "baton", metadata });
      expect(error.retryAfterMs).toBeUndefined();
      expect(await dump()).toEqual(before);
    });

    it.each(STATES.filter((state) => !OPEN.has(state)))("takes the place of a job that is %s", async (state) => {
      const { client } = fixture;
      const put: Request<"put"> = { queue, id: idOf(state), headers: { new: "yes" }, onConflict: mode };
      expect(await client.good("put", put)).toMatchObject({ created: true, state: JobState.READY });
      expect(await shown(idOf(state))).toMatchObject({
        state: JobState.READY,
        headers: { new: "yes" },
        attempt: 0,
        failures: 0,
        workerId: "",
      });
      const { error, result, finishedAt, reservedAt } = await shown(idOf(state));
      expect([error, result, finishedAt, reservedAt]).toEqual([undefined, undefined, undefined, undefined]);
    });
  });

  it.each(STATES)("with KEEP leaves a job that is %s as it is", async (state) => {
    const { client, dump } = fixture;
    const before = await dump();
    const put: Request<"put"> = { queue, id: idOf(state), headers: { new: "yes" }, onConflict: OnConflict.KEEP };
    const answer = await client.good("put", put);
    expect(answer).toMatchObject({ jobId: idOf(state), created: false, state: JobState[state] });
    expect(await dump()).toEqual(before);
  });

  it.each(STATES.filter((state) => state !== "RESERVED"))(
    "with REPLACE takes the place of a job that is %s",
    async (state) => {
      const { client } = fixture;
      const put: Request<"put"> = {
        queue,
        id: idOf(state),
        headers: { new: "yes" },
        start: { case: "delay", value: hours(2) },
        onConflict: OnConflict.REPLACE,
      };
      expect(await client.good("put", put)).toMatchObject({ created: true, state: JobState.SCHEDULED });
      expect(await shown(idOf(state))).toMatchObject({
        state: JobState.SCHEDULED,
        headers: { new: "yes" },
        failures: 0,
      });
    },
  );

  it("with REPLACE is JOB_EXISTS when the job is RESERVED, and its worker goes on", async () => {
    const { client, dump } = fixture;
    const before = await dump();
    const error = await client.bad("put", { queue, id: "reserved", onConflict: OnConflict.REPLACE });
    expect(error).toMatchObject({ code: "ALREADY_EXISTS", reason: "JOB_EXISTS", metadata: { state: "RESERVED" } });
    expect(await dump()).toEqual(before);
  });

  it("voids the token that completed or failed the job before", async () => {
    const { client } = fixture;
    const tokens = await putOneInEveryState(client, `${queue}-tokens`);
    for (const id of ["completed", "failed"] as const) {
      await client.good("put", { queue: `${queue}-tokens`, id });
      const release: Request<"release"> = { leaseToken: tokens[id], outcome: { case: "completed", value: {} } };
      expect((await client.bad("release", release)).reason).toBe("LEASE_LOST");
    }
  });

  it("with REPLACE voids the token of an earlier attempt of a RETRYING job", async () => {
    const { client } = fixture;
    const tokens = await putOneInEveryState(client, `${queue}-tokens`);
    await client.good("put", { queue: `${queue}-tokens`, id: "retrying", onConflict: OnConflict.REPLACE });
    const release: Request<"release"> = { leaseToken: tokens.retrying, outcome: { case: "completed", value: {} } };
    expect((await client.bad("release", release)).reason).toBe("LEASE_LOST");
  });

  it("is no conflict once the job was deleted, or its retention has ended", async () => {
    const { client } = fixture;
    await client.good("delete", { queue, id: "ready" });
    expect(await client.good("put", { queue, id: "ready" })).toMatchObject({ created: true });

    await client.good("put", { queue: `${queue}-short`, id: "short", retention: ms(1) });
    const { leaseToken } = await client.reserveOne(`${queue}-short`);
    await client.good("release", { leaseToken, outcome: { case: "completed", value: {} } });
    const keep: Request<"put"> = { queue: `${queue}-short`, id: "short", onConflict: OnConflict.KEEP };
    await until(async () => (await client.good("put", keep)).created, { what: "the retention to end" });
  });
});

describe("when a job may run", () => {
  it("is at once without a delay, with one of zero, and at a time that has passed", async () => {
    const { client } = fixture;
    const starts: readonly Request<"put">["start"][] = [
      undefined,
      { case: "delay", value: {} },
      { case: "runAt", value: { seconds: 1n } },
      { case: "runAt", value: {} },
      { case: "runAt", value: { seconds: -(2n ** 62n) } },
      { case: "runAt", value: { seconds: BigInt(Math.floor(Date.now() / 1_000) - 60) } },
    ];
    for (const start of starts) {
      const { jobId, state } = await client.good("put", { queue, ...(start && { start }) });
      expect(state).toBe(JobState.READY);
      expect((await shown(jobId)).runAt).toBeUndefined();
    }
  });

  it("is a delay after the put, by Redis's clock", async () => {
    const { client, nowMs } = fixture;
    const before = await nowMs();
    const { jobId, state } = await client.good("put", { queue, start: { case: "delay", value: ms(90_000) } });
    const after = await nowMs();
    expect(state).toBe(JobState.SCHEDULED);
    const { runAt, putAt } = await shown(jobId);
    expect(at(runAt)).toBe(at(putAt) + 90_000);
    expect(at(putAt)).toBeGreaterThanOrEqual(before);
    expect(at(putAt)).toBeLessThanOrEqual(after);
  });

  it("is in whole milliseconds: a fraction is rounded up, so that nothing runs early", async () => {
    const { client, nowMs } = fixture;
    const delayed = await client.good("put", { queue, start: { case: "delay", value: { seconds: 60n, nanos: 1 } } });
    const { runAt, putAt } = await shown(delayed.jobId);
    expect(at(runAt)).toBe(at(putAt) + 60_001);

    const seconds = BigInt(Math.floor((await nowMs()) / 1_000) + 60);
    const timed = await client.good("put", { queue, start: { case: "runAt", value: { seconds, nanos: 1 } } });
    expect(at((await shown(timed.jobId)).runAt)).toBe(Number(seconds) * 1_000 + 1);
  });

  it("is at its run_at, to the millisecond, up to 100 years ahead", async () => {
    const { client, nowMs } = fixture;
    const now = await nowMs();
    for (const ahead of [60_123, 99 * 365 * 86_400_000 + 7]) {
      const time = now + ahead;
      const seconds = BigInt(Math.floor(time / 1_000));
      const value = { seconds, nanos: (time % 1_000) * 1_000_000 };
      const { jobId, state } = await client.good("put", { queue, start: { case: "runAt", value } });
      expect(state).toBe(JobState.SCHEDULED);
      expect(at((await shown(jobId)).runAt)).toBe(time);
    }
  });

  it("is not before it is due: a waiting worker gets the job then", async () => {
    const { client, nowMs } = fixture;
    const { jobId } = await client.good("put", { queue, start: { case: "delay", value: ms(200) } });
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    const due = at((await shown(jobId)).runAt);
    const job = await client.reserveOne(queue);
    expect(job.id).toBe(jobId);
    expect(await nowMs()).toBeGreaterThanOrEqual(due);
  });
});

describe("the order of a queue", () => {
  it("is by priority, then by insertion", async () => {
    const { client } = fixture;
    const priorities = [0, 5, 9, 5, 0, 9, 1];
    const jobs = priorities.map((priority, i) => ({ queue, id: `${priority}-${i}`, priority }));
    await client.good("putMany", { jobs });
    const reserved = await client.reserve({ queues: [{ name: queue }], maxJobs: 100 });
    expect(reserved.map(({ id }) => id)).toEqual(["9-2", "9-5", "5-1", "5-3", "1-6", "0-0", "0-4"]);
    expect(reserved.map(({ priority }) => priority)).toEqual([9, 9, 5, 5, 1, 0, 0]);
  });

  it("is by insertion for 1,000 jobs of one batch, over queues that stand mixed in it", async () => {
    const { client } = fixture;
    const other = `${queue}-other`;
    const jobs = Array.from({ length: 1_000 }, (_, i) => ({ queue: i % 3 === 0 ? other : queue, id: `${i}` }));
    const { results } = await client.good("putMany", { jobs });
    expect(results.map(({ result }) => result.case === "job" && result.value.jobId)).toEqual(jobs.map(({ id }) => id));
    for (const name of [queue, other]) {
      const ids = jobs.filter((job) => job.queue === name).map(({ id }) => id);
      const reserved = await client.reserveMany(name, ids.length);
      expect(reserved.map(({ id }) => id)).toEqual(ids);
    }
  });
});

describe("PutMany", () => {
  it("says which job is bad and why, and puts the others, in several queues", async () => {
    const { client } = fixture;
    const other = `${queue}-other`;
    await client.good("put", { queue: other, id: "taken" });
    const { results } = await client.good("putMany", {
      jobs: [
        { queue, id: "first" },
        { queue: other, id: "second", start: { case: "delay", value: hours(1) } },
        { queue, id: "third" },
        { queue: "{bad}", id: "fourth" },
        { queue: other, id: "taken" },
        { queue },
      ],
    });
    expect(results).toHaveLength(6);
    const [first, second, third, fourth, fifth, sixth] = results.map(({ result }) => result);
    expect(first).toMatchObject({ case: "job", value: { jobId: "first", created: true, state: JobState.READY } });
    expect(second).toMatchObject({ case: "job", value: { jobId: "second", created: true, state: JobState.SCHEDULED } });
    expect(third).toMatchObject({ case: "job", value: { jobId: "third", created: true } });
    expect(errorIn(fourth).violations.map(({ field }) => field)).toEqual(["jobs[3].queue"]);
    expect(errorIn(fifth)).toMatchObject({
      code: "ALREADY_EXISTS",
      reason: "JOB_EXISTS",
      metadata: { queue: other, id: "taken", state: "READY" },
    });
    expect(sixth).toMatchObject({ case: "job", value: { created: true } });
  });

  it("sees an id that stands twice in one batch as two Puts, one after the other", async () => {
    const { client } = fixture;
    const put = (id: string, onConflict: OnConflict, text: string): Request<"put"> => ({
      queue,
      id,
      onConflict,
      payload: { content: { case: "text", value: text } },
    });
    const { results } = await client.good("putMany", {
      jobs: [
        put("reject", OnConflict.REJECT, "one"),
        put("reject", OnConflict.REJECT, "two"),
        put("keep", OnConflict.KEEP, "one"),
        put("keep", OnConflict.KEEP, "two"),
        put("replace", OnConflict.REPLACE, "one"),
        put("replace", OnConflict.REPLACE, "two"),
      ],
    });
    const answers = results.map(({ result }) => result);
    expect(errorIn(answers[1])).toMatchObject({ reason: "JOB_EXISTS", metadata: { state: "READY" } });
    const created = answers.map((result) => result.case === "job" && result.value.created);
    expect(created).toEqual([true, false, true, false, true, true]);
    const texts = await Promise.all(
      ["reject", "keep", "replace"].map(async (id) => (await shown(id)).payload?.content),
    );
    expect(texts.map((content) => content?.value)).toEqual(["one", "one", "two"]);
    const jobs = await client.reserve({ queues: [{ name: queue }], maxJobs: 10 });
    expect(jobs.map(({ id }) => id)).toEqual(["reject", "keep", "replace"]);
  });

  it("answers each job of a queue that is full of memory, and puts nothing", async () => {
    const { client, redis, dump } = fixture;
    await client.good("put", { queue, id: "before" });
    const before = await dump();
    await redis.config("SET", "maxmemory", "1");
    try {
      const full = { code: "RESOURCE_EXHAUSTED", reason: "STORE_FULL", domain: "baton", retryAfterMs: 5_000 };
      expect(await client.bad("put", { queue })).toMatchObject(full);
      expect(await client.bad("put", { queue: `${queue}-new` })).toMatchObject(full);
      const { results } = await client.good("putMany", { jobs: [{ queue }, { queue, priority: 10 }] });
      expect(errorIn(results[0]?.result)).toMatchObject(full);
      expect(errorIn(results[1]?.result)).toMatchObject({ reason: "BAD_REQUEST" });
      expect((await shown("before")).state).toBe(JobState.READY);
    } finally {
      await redis.config("SET", "maxmemory", "0");
    }
    expect(await dump()).toEqual(before);
    expect(await client.good("put", { queue })).toMatchObject({ created: true });
  });
});

describe("a payload and its headers", () => {
  const bytes = (value: Uint8Array): NonNullable<Request<"put">["payload"]> => ({ content: { case: "data", value } });
  const text = (value: string): NonNullable<Request<"put">["payload"]> => ({ content: { case: "text", value } });

  it.each<{ name: string; payload: Request<"put">["payload"] }>([
    { name: "no payload", payload: undefined },
    { name: "an empty payload", payload: {} },
    { name: "empty data", payload: bytes(new Uint8Array()) },
    { name: "empty text", payload: text("") },
    { name: "a NUL in text", payload: text("a\0b") },
    { name: "every byte there is", payload: bytes(Uint8Array.from({ length: 256 }, (_, i) => i)) },
    { name: "data that is no UTF-8", payload: bytes(Uint8Array.from([0xff, 0xfe, 0xc3, 0x28, 0x80])) },
    { name: "text with a byte-order mark and line ends of all kinds", payload: text("\ufeffa\r\nb\rc\u2028d") },
    { name: "text outside the BMP", payload: { ...text("🎽 passed on"), contentType: "text/plain" } },
    { name: "a content type alone", payload: { contentType: "application/json" } },
    { name: "3 MiB of data", payload: bytes(Uint8Array.from({ length: 3 * 1024 * 1024 }, (_, i) => i * 31)) },
    { name: "3 MiB of text", payload: text("ä🎽\n".repeat(449_000)) },
  ])("arrive as they were put, and so does the result: $name", async ({ payload }) => {
    const { client } = fixture;
    const headers = { key: "ä\n\0", empty: "", constructor: "1", "Content-Type": "x" };
    await client.good("put", { queue, id: "job", headers, ...(payload && { payload }) });
    const reserved = await client.reserveOne(queue);
    expect(reserved).toMatchObject({ queue, id: "job", attempt: 1, failures: 0, headers });
    expect(sameContent(reserved.payload, payload)).toBe(true);
    expect(sameContent((await shown("job")).payload, payload)).toBe(true);

    const { leaseToken } = reserved;
    const completed = { case: "completed", value: { ...(payload && { result: payload }) } } as const;
    await client.good("release", { leaseToken, outcome: completed });
    const done = await shown("job");
    // For two that are large there is no room at once.
    const { job: without } = await client.good("get", { queue, id: "job", omitResult: true });
    expect(sameContent(without?.payload, payload)).toBe(true);
    // A Payload of which nothing is set is no result.
    expect(sameContent(done.result, payload && Object.keys(payload).length > 0 ? payload : undefined)).toBe(true);
  });

  it("may have the header __proto__", async () => {
    const { client } = fixture;
    const put = Buffer.concat([
      Buffer.from([0x0a, queue.length]),
      Buffer.from(queue),
      Buffer.from([0x22, 14, 0x0a, 9]),
      Buffer.from("__proto__"),
      Buffer.from([0x12, 1, 0x41]),
    ]);
    expect(await client.call("put", put)).toMatchObject({ response: { created: true } });
    expect(Object.entries((await client.reserveOne(queue)).headers)).toEqual([["__proto__", "A"]]);
  });

  /** Compared here, because a matcher that has to show 3 MiB takes its time. */
  function sameContent(got: Request<"put">["payload"], sent: Request<"put">["payload"]): boolean {
    if (!got || !sent) return got === sent;
    const same = (got.contentType ?? "") === (sent.contentType ?? "") && got.content?.case === sent.content?.case;
    const [one, other] = [got.content?.value, sent.content?.value];
    if (one instanceof Uint8Array && other instanceof Uint8Array) return same && Buffer.compare(one, other) === 0;
    return same && one === other;
  }
});
