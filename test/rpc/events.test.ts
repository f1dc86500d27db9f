/** The completion events on `<namespace>:{queue}:events`, as any program sees them that listens on Redis. */
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { until } from "../support/wait.ts";
import { at, type Fixture, hours, ms, startFixture, untilState } from "./fixture.ts";
import type { Request } from "./raw-client.ts";

type Outcome = NonNullable<Request<"release">["outcome"]>;

let fixture: Fixture;
let subscriber: Redis;
let queue: string;
let count = 0;
/** Every message on any channel of completion events, in the order in which they came. */
const heard: { readonly channel: string; readonly text: string }[] = [];

beforeAll(async () => {
  fixture = await startFixture();
  subscriber = new Redis(fixture.broker.redis.socketPath);
  subscriber.on("pmessage", (_pattern: string, channel: string, text: string) => heard.push({ channel, text }));
  await subscriber.psubscribe("baton:{*}:events");
});

afterAll(async () => {
  subscriber?.disconnect();
  await fixture?.stop();
});

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
  heard.length = 0;
});

const COMPLETED: Outcome = { case: "completed", value: {} };

async function reserved(put: Request<"put"> = {}): Promise<string> {
  await fixture.client.good("put", { queue, id: "job", ...put });
  return (await fixture.client.reserveOne(queue, { workerId: "w1" })).leaseToken;
}

function release(leaseToken: string, outcome: Outcome) {
  return fixture.client.good("release", { leaseToken, outcome });
}

/** All events so far: Redis delivers in order, so when the sentinel's has come, so have those before it. */
async function events(): Promise<Record<string, unknown>[]> {
  const { client } = fixture;
  await client.good("put", { queue: "sentinel", id: "sentinel", retention: {} });
  const { leaseToken } = await client.reserveOne("sentinel");
  const before = heard.length;
  await release(leaseToken, COMPLETED);
  const isSentinel = ({ channel }: { channel: string }) => channel === "baton:{sentinel}:events";
  await until(() => heard.slice(before).some(isSentinel), { what: "the sentinel's event" });
  const own = heard.filter((one) => !isSentinel(one));
  for (const { channel } of own) expect(channel).toBe(`baton:{${queue}}:events`);
  return own.map(({ text }) => JSON.parse(text));
}

async function shown(id = "job") {
  const { job } = await fixture.client.good("get", { queue, id });
  if (!job) throw new Error(`there is no job ${id}`);
  return job;
}

describe("a completed job", () => {
  it("publishes one event, with what is documented and nothing else", async () => {
    const leaseToken = await reserved();
    await release(leaseToken, COMPLETED);
    const job = await shown();
    expect(await events()).toEqual([
      {
        queue,
        id: "job",
        state: "COMPLETED",
        attempt: 1,
        failures: 0,
        workerId: "w1",
        putAtMs: at(job.putAt),
        reservedAtMs: at(job.reservedAt),
        finishedAtMs: at(job.finishedAt),
      },
    ]);
  });

  it("publishes it too when its retention is zero, and nothing keeps it", async () => {
    const leaseToken = await reserved({ retention: {} });
    await release(leaseToken, {
      case: "completed",
      value: { result: { content: { case: "text", value: "only here" } } },
    });
    expect(await events()).toMatchObject([{ id: "job", state: "COMPLETED", result: { text: "only here" } }]);
  });

  it.each<{ name: string; result: Request<"put">["payload"]; shown: object }>([
    {
      name: "text",
      result: { content: { case: "text", value: 'ä\0\n"\\\u2028🎽%s' } },
      shown: { text: 'ä\0\n"\\\u2028🎽%s' },
    },
    {
      name: "text with a content type",
      result: { content: { case: "text", value: "{}" }, contentType: "application/json" },
      shown: { text: "{}", contentType: "application/json" },
    },
    { name: "empty text", result: { content: { case: "text", value: "" } }, shown: { text: "" } },
    {
      name: "data, in base64",
      result: { content: { case: "data", value: Uint8Array.from([0, 255, 195, 40]) } },
      shown: { data: "AP/DKA==" },
    },
    { name: "empty data", result: { content: { case: "data", value: new Uint8Array() } }, shown: { data: "" } },
  ])("carries its result: $name", async ({ result, shown: expected }) => {
    const leaseToken = await reserved();
    await release(leaseToken, { case: "completed", value: { ...(result && { result }) } });
    const [event] = await events();
    expect(event?.result).toEqual(expected);
    expect(event).not.toHaveProperty("resultOmitted");
  });

  it("carries no result when the Payload has nothing in it, as Get shows none", async () => {
    await release(await reserved(), { case: "completed", value: { result: {} } });
    expect((await events())[0]).not.toHaveProperty("result");
    expect((await shown()).result).toBeUndefined();
  });

  it.each([
    {
      name: "text",
      content: (bytes: number) => ({ case: "text", value: "ä".repeat(bytes / 2) }) as const,
    },
    { name: "data", content: (bytes: number) => ({ case: "data", value: new Uint8Array(bytes).fill(7) }) as const },
  ])("carries a result of 64 KiB, and says of a larger one that Get has it: $name", async ({ content }) => {
    const limit = 64 * 1024;
    await release(await reserved({ id: "fits" }), {
      case: "completed",
      value: { result: { content: content(limit) } },
    });
    const larger = content(limit + 2);
    await release(await reserved({ id: "larger" }), { case: "completed", value: { result: { content: larger } } });
    const [fits, omitted] = await events();
    expect(fits).toMatchObject({ id: "fits", result: expect.anything() });
    expect(fits).not.toHaveProperty("resultOmitted");
    expect(omitted).toMatchObject({ id: "larger", resultOmitted: true });
    expect(omitted).not.toHaveProperty("result");
    const { value = "" } = (await shown("larger")).result?.content ?? {};
    expect(Buffer.compare(Buffer.from(value), Buffer.from(larger.value))).toBe(0);
  });

  it("may have any id and any worker: both are escaped", async () => {
    const { client } = fixture;
    const id = "a/b:{c}\\\"'%s%d 🎽";
    await client.good("put", { queue, id });
    const { leaseToken } = await client.reserveOne(queue, { workerId: 'w"\\%s' });
    await release(leaseToken, COMPLETED);
    expect(await events()).toMatchObject([{ id, workerId: 'w"\\%s', state: "COMPLETED" }]);
  });
});

describe("a failed job", () => {
  it("publishes one event when its worker says that it failed for good", async () => {
    const error = { type: "TypeError", message: 'bad\n"address"\0%s', permanent: true };
    await release(await reserved(), { case: "failed", value: error });
    const job = await shown();
    expect(await events()).toEqual([
      {
        queue,
        id: "job",
        state: "FAILED",
        attempt: 1,
        failures: 1,
        workerId: "w1",
        putAtMs: at(job.putAt),
        reservedAtMs: at(job.reservedAt),
        finishedAtMs: at(job.finishedAt),
        error,
      },
    ]);
  });

  it("publishes one event for its last attempt, and none for those before, nor for being returned", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "job", retry: { maxAttempts: 3, initialBackoff: {} } });
    const outcomes: readonly Outcome[] = [
      { case: "failed", value: { message: "first" } },
      { case: "returned", value: {} },
      { case: "returned", value: { delay: ms(1) } },
      { case: "failed", value: { message: "second", retryAfter: ms(1) } },
      { case: "failed", value: { message: "third" } },
    ];
    for (const outcome of outcomes) await release((await client.reserveOne(queue)).leaseToken, outcome);
    expect(await events()).toMatchObject([
      { state: "FAILED", attempt: 5, failures: 3, error: { type: "", message: "third", permanent: false } },
    ]);
  });

  it("publishes one event when its last lease ran out, and none while attempts are left", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "job", retry: { maxAttempts: 2 } });
    await client.reserveOne(queue, { leaseDuration: ms(100) });
    await client.reserveOne(queue, { leaseDuration: ms(100), workerId: "last" });
    await untilState(client, queue, "job", JobState.FAILED);
    const job = await shown();
    expect(await events()).toEqual([
      {
        queue,
        id: "job",
        state: "FAILED",
        attempt: 2,
        failures: 2,
        workerId: "last",
        putAtMs: at(job.putAt),
        reservedAtMs: at(job.reservedAt),
        finishedAtMs: at(job.finishedAt),
        error: { type: "LEASE_EXPIRED", message: "the lease ran out", permanent: false },
      },
    ]);
  });

  it("publishes one event when expires_in passed before a worker was free", async () => {
    const { client, nowMs } = fixture;
    const { jobId } = await client.good("put", { queue, expiresIn: ms(50) });
    const endMs = at((await shown(jobId)).putAt) + 50;
    await until(async () => (await nowMs()) > endMs, { what: "the job to expire" });
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    const job = await shown(jobId);
    expect(job.state).toBe(JobState.FAILED);
    expect(await events()).toEqual([
      {
        queue,
        id: jobId,
        state: "FAILED",
        attempt: 0,
        failures: 0,
        workerId: "",
        putAtMs: at(job.putAt),
        reservedAtMs: null,
        finishedAtMs: at(job.finishedAt),
        error: {
          type: "JOB_EXPIRED",
          message: "no worker was free before expires_in had passed",
          permanent: false,
        },
      },
    ]);
  });
});

describe("what is no completion", () => {
  it("publishes nothing: put, reserve, extend, delete in any state, and calls that are refused", async () => {
    const { client } = fixture;
    const leaseToken = await reserved();
    await client.good("extend", { leaseTokens: [leaseToken], leaseDuration: hours(1) });
    await client.bad("release", { leaseToken });
    await client.bad("put", { queue, id: "job" });
    await client.good("delete", { queue, id: "job" });
    await client.bad("release", { leaseToken, outcome: COMPLETED });
    await client.good("put", { queue, id: "scheduled", start: { case: "delay", value: hours(1) } });
    await client.good("delete", { queue, id: "scheduled" });
    expect(await events()).toEqual([]);
  });

  it("publishes nothing more: a repeated Release, and the end of what was finished", async () => {
    const { client } = fixture;
    const completed = await reserved({ id: "completed" });
    const failed = await reserved({ id: "failed" });
    const buried: Outcome = { case: "failed", value: { permanent: true } };
    for (let i = 0; i < 3; i++) {
      await release(completed, COMPLETED);
      await release(failed, buried);
      await release(completed, buried);
    }
    await client.good("releaseMany", {
      releases: [
        { leaseToken: completed, outcome: COMPLETED },
        { leaseToken: failed, outcome: COMPLETED },
      ],
    });
    await client.good("delete", { queue, id: "completed" });
    await client.good("put", { queue, id: "failed" });
    expect((await events()).map(({ id, state }) => [id, state])).toEqual([
      ["completed", "COMPLETED"],
      ["failed", "FAILED"],
    ]);
  });

  it("publishes once for each of a thousand that are released in one call, some of them twice", async () => {
    const { client } = fixture;
    await client.good("putMany", { jobs: Array.from({ length: 900 }, (_, i) => ({ queue, id: `${i}` })) });
    const jobs = await client.reserveMany(queue, 900);
    const releases = [...jobs, ...jobs.slice(0, 100)].map(({ leaseToken }) => ({ leaseToken, outcome: COMPLETED }));
    await client.good("releaseMany", { releases });
    const ids = (await events()).map(({ id }) => id);
    expect(ids).toHaveLength(900);
    expect(new Set(ids).size).toBe(900);
  });

  it("publishes again for a job that took the place of a finished one: it is another transition", async () => {
    await release(await reserved(), COMPLETED);
    await release(await reserved(), { case: "failed", value: { permanent: true } });
    expect((await events()).map(({ state }) => state)).toEqual(["COMPLETED", "FAILED"]);
  });
});
