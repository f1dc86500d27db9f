/** What producers may send that is wrong: Put, PutMany, Get and Delete, over real gRPC. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BAD_PUTS } from "./bad-puts.ts";
import { changingNothing as callChangingNothing } from "./changing-nothing.ts";
import { expectBadRequest, type Fixture, hours, ms, putOneInEveryState, startFixture } from "./fixture.ts";
import { errorIn, type Request } from "./raw-client.ts";

let fixture: Fixture;

beforeAll(async () => {
  fixture = await startFixture();
  await putOneInEveryState(fixture.client, "kept");
});

afterAll(() => fixture?.stop());

const changingNothing = <T>(call: () => Promise<T>) => callChangingNothing(fixture, call);

describe("Put", () => {
  it.each(BAD_PUTS)("refuses $name, names the field and changes nothing", async ({ job, fields }) => {
    expectBadRequest(await changingNothing(() => fixture.client.bad("put", job)), ...fields);
  });

  it("tells of at most 20 bad fields, so that its answer stays small", async () => {
    const headers = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [String(i).padStart(300, "k"), ""]));
    const error = await changingNothing(() => fixture.client.bad("put", { queue: "bad", headers }));
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "BAD_REQUEST" });
    expect(error.violations.length).toBeGreaterThan(0);
    expect(error.violations.length).toBeLessThanOrEqual(20);
  });
});

describe("PutMany", () => {
  it("refuses every bad job in its place, as Put would, and puts the good ones between them", async () => {
    const { client } = fixture;
    // In pieces that fit into one message.
    for (let from = 0; from < BAD_PUTS.length; from += 40) {
      const piece = BAD_PUTS.slice(from, from + 40);
      const jobs = piece.flatMap(({ job }, i) => [job, { queue: "between", id: `good-${from + i}` }]);
      const { results } = await client.good("putMany", { jobs });
      expect(results).toHaveLength(jobs.length);
      for (const [i, { fields }] of piece.entries()) {
        const [refused, accepted] = [results[2 * i]?.result, results[2 * i + 1]?.result];
        expectBadRequest(errorIn(refused, piece[i]?.name), ...fields.map((field) => `jobs[${2 * i}].${field}`));
        expect(accepted).toMatchObject({ case: "job", value: { jobId: `good-${from + i}`, created: true } });
      }
    }
    expect(await fixture.redis.exists("baton:{bad}:spec", "baton:{}:spec", "baton:{{mail}}:spec")).toBe(0);
    expect(await fixture.redis.hlen("baton:{between}:spec")).toBe(BAD_PUTS.length);
    expect(await fixture.redis.smembers("baton:queues")).not.toContain("bad");
  });

  it("answers a batch in which nothing is right with an error for each, and changes nothing", async () => {
    const jobs = Array.from({ length: 1_000 }, () => ({ queue: "{}", priority: 10 }));
    const { results } = await changingNothing(() => fixture.client.good("putMany", { jobs }));
    expect(results).toHaveLength(1_000);
    for (const [i, { result }] of results.entries()) {
      expectBadRequest(errorIn(result), `jobs[${i}].queue`, `jobs[${i}].priority`);
    }
  });

  it.each([
    { name: "an empty batch", count: 0 },
    { name: "1,001 jobs", count: 1_001 },
  ])("refuses $name as a whole, and changes nothing", async ({ count }) => {
    const jobs = Array.from({ length: count }, () => ({ queue: "bad" }));
    expectBadRequest(await changingNothing(() => fixture.client.bad("putMany", { jobs })), "jobs");
  });
});

describe.each(["get", "delete"] as const)("%s", (method) => {
  it.each([
    { name: "no queue", request: { id: "ready" }, fields: ["queue"] },
    { name: "a queue in braces", request: { queue: "{kept}", id: "ready" }, fields: ["queue"] },
    { name: "a queue of 129 characters", request: { queue: "k".repeat(129), id: "ready" }, fields: ["queue"] },
    { name: "no id", request: { queue: "kept" }, fields: ["id"] },
    { name: "an id of 256 bytes", request: { queue: "kept", id: "ä".repeat(128) }, fields: ["id"] },
    { name: "an id with a NUL", request: { queue: "kept", id: "ready\0" }, fields: ["id"] },
    { name: "neither queue nor id", request: {}, fields: ["queue", "id"] },
  ])("refuses $name, names the field and changes nothing", async ({ request, fields }) => {
    expectBadRequest(await changingNothing(() => fixture.client.bad(method, request)), ...fields);
  });

  it("changes nothing when there is no such job, or no such queue", async () => {
    const { client, dump } = fixture;
    const before = await dump();
    for (const request of [
      { queue: "kept", id: "nobody" },
      { queue: "nowhere", id: "nobody" },
    ]) {
      if (method === "get") {
        const metadata = request;
        expect(await client.bad("get", request)).toMatchObject({
          code: "NOT_FOUND",
          reason: "JOB_NOT_FOUND",
          metadata,
        });
      } else {
        expect(await client.good("delete", request)).toMatchObject({ deleted: false, previousState: 0 });
      }
    }
    expect(await dump()).toEqual(before);
  });
});

describe("what stands right at a limit", () => {
  const MIB = 1024 * 1024;
  const FULL_OF_HEADERS = Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`k${i}`, "v"]));
  const cases: readonly { readonly name: string; readonly job: Request<"put"> }[] = [
    { name: "a queue of 128 characters", job: { queue: "q".repeat(128) } },
    { name: "a queue of every kind of character", job: { queue: "aZ09._:-" } },
    { name: "a queue that JavaScript has a meaning for", job: { queue: "__proto__" } },
    { name: "an id of 255 bytes", job: { id: `${"ä".repeat(127)}x` } },
    { name: "an id of a blank", job: { id: " " } },
    { name: "an id of all sorts", job: { id: "a/b:{c}\\\"'%s 🎽\u00a0" } },
    { name: "an id that JavaScript has a meaning for", job: { id: "__proto__" } },
    { name: "text of 3 MiB", job: { payload: { content: { case: "text", value: "ä".repeat(1.5 * MIB) } } } },
    { name: "a content type of 255 bytes", job: { payload: { contentType: "t".repeat(255) } } },
    { name: "64 headers", job: { headers: FULL_OF_HEADERS } },
    { name: "a header key of 255 bytes", job: { headers: { ["k".repeat(255)]: "" } } },
    { name: "headers of 64 KiB", job: { headers: { key: "v".repeat(64 * 1024 - 3) } } },
    { name: "priority 9", job: { priority: 9 } },
    { name: "a delay of 36,525 days", job: { start: { case: "delay", value: { seconds: 36_525n * 86_400n } } } },
    { name: "a lease of 100 ms", job: { leaseDuration: ms(100) } },
    { name: "a lease of 99 ms and a fraction, rounded up", job: { leaseDuration: { nanos: 99_000_001 } } },
    { name: "a lease of 7 days", job: { leaseDuration: hours(7 * 24) } },
    { name: "a run_timeout of 365 days", job: { runTimeout: hours(365 * 24) } },
    { name: "an expires_in of 1 ns, rounded up", job: { expiresIn: { nanos: 1 } } },
    { name: "a retention of zero", job: { retention: {} } },
    {
      name: "a retry policy at its lowest",
      job: { retry: { maxAttempts: 1, multiplier: 1, jitter: 0, initialBackoff: {}, maxBackoff: {} } },
    },
    {
      name: "a retry policy at its highest",
      job: {
        retry: {
          maxAttempts: 1_000,
          multiplier: 100,
          jitter: 1,
          initialBackoff: hours(8_760),
          maxBackoff: hours(8_760),
        },
      },
    },
    { name: "an initial_backoff above the default of max_backoff", job: { retry: { initialBackoff: hours(2) } } },
  ];

  it.each(cases)("is accepted: $name", async ({ job }) => {
    const { client } = fixture;
    const put: Request<"put"> = { queue: "limit", ...job };
    const { jobId, created } = await client.good("put", put);
    expect(created).toBe(true);
    const shown = (await client.good("get", { queue: put.queue ?? "", id: jobId })).job;
    expect(shown).toMatchObject({ queue: put.queue, id: jobId, headers: job.headers ?? {} });
  });

  it("is accepted: a batch of 1,000 jobs", async () => {
    const jobs = Array.from({ length: 1_000 }, () => ({ queue: "limit" }));
    const { results } = await fixture.client.good("putMany", { jobs });
    expect(results.filter(({ result }) => result.case === "job")).toHaveLength(1_000);
  });
});
