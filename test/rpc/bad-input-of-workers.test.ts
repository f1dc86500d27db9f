/** What workers may send that is wrong: Reserve, Subscribe, Release, ReleaseMany and Extend, over real gRPC. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { QueuePolicy } from "../../gen/baton/v1/job_service_pb.js";
import { changingNothing as callChangingNothing } from "./changing-nothing.ts";
import {
  type DurationInit,
  days,
  expectBadRequest,
  expectLeaseLost,
  type Fixture,
  hours,
  ms,
  putOneInEveryState,
  startFixture,
  type Tokens,
  untilState,
} from "./fixture.ts";
import { type CallError, errorIn, type Request } from "./raw-client.ts";

let fixture: Fixture;
let tokens: Tokens;

beforeAll(async () => {
  fixture = await startFixture();
  tokens = await putOneInEveryState(fixture.client, "kept");
});

afterAll(() => fixture?.stop());

const changingNothing = <T>(call: () => Promise<T>) => callChangingNothing(fixture, call);

const BAD_DURATIONS: readonly (readonly [string, DurationInit])[] = [
  ["of −1 s", { seconds: -1n }],
  ["of −1 ns", { nanos: -1 }],
  ["of 300 years", days(300 * 365)],
  ["of the most seconds that fit", { seconds: 2n ** 63n - 1n }],
  ["with a second in its nanos", { seconds: 1n, nanos: 1_000_000_000 }],
  ["with nanos of the other sign", { seconds: 1n, nanos: -1 }],
];

/** What Reserve and Subscribe have in common. */
const BAD_CONSUMERS: readonly {
  readonly name: string;
  readonly request: Pick<Request<"reserve">, "queues" | "policy" | "workerId" | "leaseDuration" | "mode">;
  readonly fields: readonly string[];
}[] = [
  { name: "no queue at all", request: { queues: [] }, fields: ["queues"] },
  { name: "65 queues", request: { queues: named(65) }, fields: ["queues"] },
  { name: "a queue without a name", request: { queues: [{}] }, fields: ["queues[0].name"] },
  {
    name: "a queue in braces",
    request: { queues: [{ name: "kept" }, { name: "{kept}" }] },
    fields: ["queues[1].name"],
  },
  { name: "a queue with a NUL", request: { queues: [{ name: "kept\0" }] }, fields: ["queues[0].name"] },
  { name: "a queue of 129 characters", request: { queues: [{ name: "k".repeat(129) }] }, fields: ["queues[0].name"] },
  {
    name: "a queue named twice",
    request: { queues: [{ name: "kept" }, { name: "kept" }] },
    fields: ["queues[1].name"],
  },
  { name: "weight −1", request: { queues: [{ name: "kept", weight: -1 }] }, fields: ["queues[0].weight"] },
  {
    name: "weight 0 where weights count",
    request: { queues: [{ name: "kept", weight: 1 }, { name: "other" }], policy: QueuePolicy.WEIGHTED },
    fields: ["queues[1].weight"],
  },
  { name: "weight 1,001", request: { queues: [{ name: "kept", weight: 1_001 }] }, fields: ["queues[0].weight"] },
  { name: "policy 3", request: { queues: [{ name: "kept" }], policy: Number(3) }, fields: ["policy"] },
  { name: "policy −1", request: { queues: [{ name: "kept" }], policy: Number(-1) }, fields: ["policy"] },
  { name: "mode 3", request: { queues: [{ name: "kept" }], mode: Number(3) }, fields: ["mode"] },
  {
    name: "a worker id of 256 bytes",
    request: { queues: [{ name: "kept" }], workerId: "ä".repeat(128) },
    fields: ["worker_id"],
  },
  { name: "a worker id with a NUL", request: { queues: [{ name: "kept" }], workerId: "a\0" }, fields: ["worker_id"] },
  {
    name: "a worker id with a C1 control",
    request: { queues: [{ name: "kept" }], workerId: "\u0085" },
    fields: ["worker_id"],
  },
  ...[...BAD_DURATIONS, ["of zero", {}] as const, ["of 7 days and 1 ms", ms(7 * 86_400_000 + 1)] as const].map(
    ([name, leaseDuration]) => ({
      name: `a lease ${name}`,
      request: { queues: [{ name: "kept" }], leaseDuration },
      fields: ["lease_duration"],
    }),
  ),
];

describe("Reserve", () => {
  it.each(BAD_CONSUMERS)("refuses $name, names the field and changes nothing", async ({ request, fields }) => {
    expectBadRequest(await changingNothing(() => fixture.client.bad("reserve", request)), ...fields);
  });

  it.each<{ name: string; request: Request<"reserve">; field: string }>([
    { name: "max_jobs −1", request: { maxJobs: -1 }, field: "max_jobs" },
    { name: "max_jobs 1,001", request: { maxJobs: 1_001 }, field: "max_jobs" },
    { name: "a lease of 99 ms", request: { leaseDuration: ms(99) }, field: "lease_duration" },
    { name: "a wait of 10 min and 1 ms", request: { wait: ms(600_001) }, field: "wait" },
    ...BAD_DURATIONS.map(([name, wait]) => ({ name: `a wait ${name}`, request: { wait }, field: "wait" })),
    {
      name: "an available_by in 300 years",
      request: { availableBy: { seconds: 11_000_000_000n } },
      field: "available_by",
    },
    { name: "an available_by with nanos of −1", request: { availableBy: { nanos: -1 } }, field: "available_by" },
  ])("refuses $name, names the field and changes nothing", async ({ request, field }) => {
    const queues = [{ name: "kept" }];
    expectBadRequest(await changingNothing(() => fixture.client.bad("reserve", { queues, ...request })), field);
  });
});

describe("Subscribe", () => {
  type SubscribeInit = Parameters<Fixture["client"]["subscribe"]>[0];

  async function refused(request: SubscribeInit): Promise<CallError> {
    const stream = fixture.client.subscribe(request);
    const error = await stream.ended;
    expect(stream.events).toEqual([]);
    if (error) return error;
    throw new Error("the stream should have been refused");
  }

  it.each(BAD_CONSUMERS)("refuses $name, names the field and changes nothing", async ({ request, fields }) => {
    expectBadRequest(await changingNothing(() => refused(request)), ...fields);
  });

  it.each<{ name: string; request: Exclude<SubscribeInit, Uint8Array>; field: string }>([
    { name: "max_outstanding −1", request: { maxOutstanding: -1 }, field: "max_outstanding" },
    { name: "max_outstanding 10,001", request: { maxOutstanding: 10_001 }, field: "max_outstanding" },
    { name: "a lease of 999 ms", request: { leaseDuration: ms(999) }, field: "lease_duration" },
    { name: "a grace of 1 h and 1 ms", request: { disconnectGrace: ms(3_600_001) }, field: "disconnect_grace" },
    { name: "a host with a NUL", request: { host: "a\0" }, field: "host" },
    { name: "a language of 256 bytes", request: { language: "l".repeat(256) }, field: "language" },
    {
      name: "more tokens to resume than max_outstanding",
      request: { maxOutstanding: 1, resumeLeaseTokens: ["baton/kept/1/a", "baton/kept/1/b"] },
      field: "resume_lease_tokens",
    },
    {
      name: "a token of another namespace to resume",
      request: { maxOutstanding: 2, resumeLeaseTokens: ["baton/kept/1/a", "other/kept/1/a"] },
      field: "resume_lease_tokens[1]",
    },
    {
      name: "ten thousand tokens to resume that are none",
      request: { maxOutstanding: 10_000, resumeLeaseTokens: Array.from({ length: 10_000 }, (_, i) => `${i}`) },
      field: "resume_lease_tokens[0]",
    },
    ...BAD_DURATIONS.map(([name, disconnectGrace]) => ({
      name: `a grace ${name}`,
      request: { disconnectGrace },
      field: "disconnect_grace",
    })),
  ])("refuses $name, names the field and changes nothing", async ({ request, field }) => {
    expectBadRequest(await changingNothing(() => refused({ queues: [{ name: "kept" }], ...request })), field);
  });
});

type ReleaseInit = Request<"release">;
type BadRelease = { readonly name: string; readonly release: () => ReleaseInit; readonly field: string };

const outcome = (value: NonNullable<ReleaseInit["outcome"]>) => (): ReleaseInit => ({
  leaseToken: tokens.reserved,
  outcome: value,
});

const completed = (result: NonNullable<Request<"put">["payload"]>) => outcome({ case: "completed", value: { result } });
const returned = (delay: DurationInit) => outcome({ case: "returned", value: { delay } });
const failed = (value: { message?: string; type?: string; retryAfter?: DurationInit }) =>
  outcome({ case: "failed", value });

const BAD_TOKENS: readonly { readonly name: string; readonly token: () => string }[] = [
  { name: "no token", token: () => "" },
  { name: "a token that is one word", token: () => "garbage" },
  { name: "a token that is a NUL", token: () => "\0" },
  { name: "a token with its end cut off", token: () => tokens.reserved.slice(0, -"/reserved".length) },
  { name: "a token with no id", token: () => tokens.reserved.slice(0, -"reserved".length) },
  { name: "a token of another namespace", token: () => tokens.reserved.replace("baton/", "other/") },
  { name: "a token without a namespace", token: () => tokens.reserved.replace("baton/", "/") },
  { name: "a token of a malformed queue", token: () => tokens.reserved.replace("/kept/", "/{kept}/") },
  { name: "a token whose number is none", token: () => "baton/kept/-1/reserved" },
  { name: "a token whose number is too large", token: () => `baton/kept/${"z".repeat(11)}/reserved` },
  { name: "a token of a million characters", token: () => "x".repeat(1_000_000) },
];

const BAD_RELEASES: readonly BadRelease[] = [
  ...BAD_TOKENS.map(({ name, token }) => ({
    name,
    release: (): ReleaseInit => ({ leaseToken: token(), outcome: { case: "completed", value: {} } }),
    field: "lease_token",
  })),
  { name: "no outcome", release: () => ({ leaseToken: tokens.reserved }), field: "outcome" },
  {
    name: "a result over the limit",
    release: completed({ content: { case: "data", value: new Uint8Array(3 * 1024 * 1024 + 1) } }),
    field: "completed.result",
  },
  {
    name: "a result with a content type of 256 bytes",
    release: completed({ contentType: "t".repeat(256) }),
    field: "completed.result.content_type",
  },
  { name: "an error message over 16 KiB", release: failed({ message: "m".repeat(16_385) }), field: "failed.message" },
  { name: "an error type of 256 bytes", release: failed({ type: "ä".repeat(128) }), field: "failed.type" },
  { name: "an error type with a line break", release: failed({ type: "a\nb" }), field: "failed.type" },
  { name: "a retry_after of 366 days", release: failed({ retryAfter: days(366) }), field: "failed.retry_after" },
  ...BAD_DURATIONS.flatMap(([name, duration]) => [
    { name: `a retry_after ${name}`, release: failed({ retryAfter: duration }), field: "failed.retry_after" },
    { name: `a delay ${name}`, release: returned(duration), field: "returned.delay" },
  ]),
];

describe("Release", () => {
  it.each(BAD_RELEASES)("refuses $name, names the field and changes nothing", async ({ release, field }) => {
    expectBadRequest(await changingNothing(() => fixture.client.bad("release", release())), field);
  });

  it("names the token and the outcome when both are bad", async () => {
    expectBadRequest(await changingNothing(() => fixture.client.bad("release", {})), "lease_token", "outcome");
  });
});

describe("ReleaseMany", () => {
  it("refuses every bad release in its place, as Release would, and does the good ones between them", async () => {
    const { client } = fixture;
    await client.good("putMany", { jobs: BAD_RELEASES.map((_, i) => ({ queue: "between", id: `job-${i}` })) });
    const leased = await client.reserveMany("between", BAD_RELEASES.length);
    const releases = BAD_RELEASES.flatMap(({ release }, i): ReleaseInit[] => [
      release(),
      { leaseToken: leased[i]?.leaseToken ?? "", outcome: { case: "completed", value: {} } },
    ]);
    const { results } = await client.good("releaseMany", { releases });
    expect(results).toHaveLength(releases.length);
    for (const [i, { name, field }] of BAD_RELEASES.entries()) {
      const [bad, good] = [results[2 * i]?.result, results[2 * i + 1]?.result];
      expectBadRequest(errorIn(bad, name), `releases[${2 * i}].${field}`);
      expect(good).toMatchObject({ case: "released" });
    }
    expect((await client.good("get", { queue: "kept", id: "reserved" })).job?.state).toBe(JobState.RESERVED);
    expect(await fixture.redis.zcard("baton:{between}:completed")).toBe(BAD_RELEASES.length);
  });

  it.each([
    { name: "an empty batch", count: 0 },
    { name: "1,001 releases", count: 1_001 },
  ])("refuses $name as a whole, and changes nothing", async ({ count }) => {
    const releases = Array.from({ length: count }, outcome({ case: "completed", value: {} }));
    expectBadRequest(await changingNothing(() => fixture.client.bad("releaseMany", { releases })), "releases");
  });
});

describe("Extend", () => {
  it.each([
    { name: "no token", count: 0 },
    { name: "1,001 tokens", count: 1_001 },
  ])("refuses $name as a whole, and changes nothing", async ({ count }) => {
    const leaseTokens = Array.from({ length: count }, () => tokens.reserved);
    expectBadRequest(await changingNothing(() => fixture.client.bad("extend", { leaseTokens })), "lease_tokens");
  });

  it.each<readonly [string, DurationInit]>([
    ...BAD_DURATIONS,
    ["of zero", {}],
    ["of 99 ms", ms(99)],
    ["of 7 days and 1 ms", ms(7 * 86_400_000 + 1)],
  ])("refuses a lease %s, names the field and changes nothing", async (_, leaseDuration) => {
    const leaseTokens = [tokens.reserved];
    const call = () => fixture.client.bad("extend", { leaseTokens, leaseDuration });
    expectBadRequest(await changingNothing(call), "lease_duration");
  });

  it("refuses every token that is none in its place, and extends the good ones between them", async () => {
    const { client } = fixture;
    const leaseTokens = BAD_TOKENS.flatMap(({ token }) => [token(), tokens.reserved]);
    const { results } = await client.good("extend", { leaseTokens, leaseDuration: hours(2) });
    expect(results).toHaveLength(leaseTokens.length);
    for (const [i, { name }] of BAD_TOKENS.entries()) {
      const [bad, good] = [results[2 * i]?.result, results[2 * i + 1]?.result];
      expectBadRequest(errorIn(bad, name), `lease_tokens[${2 * i}]`);
      expect(good?.case).toBe("leaseExpiresAt");
    }
  });
});

describe("a token that was good once, or could be", () => {
  let queue: string;
  let count = 0;

  beforeEach(() => {
    count += 1;
    queue = `lost-${count}`;
  });

  const LOST: readonly { readonly name: string; readonly token: () => Promise<string> }[] = [
    { name: "of a queue that never was", token: async () => `baton/${queue}/1/job` },
    {
      name: "of a job that never was",
      token: async () => {
        await fixture.client.good("put", { queue, id: "other" });
        return `baton/${queue}/1/job`;
      },
    },
    {
      name: "of a job that was not reserved yet",
      token: async () => {
        await fixture.client.good("put", { queue, id: "job" });
        return `baton/${queue}/1/job`;
      },
    },
    {
      name: "of a deleted job",
      token: async () => {
        const leaseToken = await reserved();
        await fixture.client.good("delete", { queue, id: "job" });
        return leaseToken;
      },
    },
    {
      name: "of a deleted job whose id was put again and reserved by another",
      token: async () => {
        const leaseToken = await reserved();
        await fixture.client.good("delete", { queue, id: "job" });
        await reserved();
        return leaseToken;
      },
    },
    {
      name: "whose lease ran out",
      token: async () => {
        const leaseToken = await reserved({ leaseDuration: ms(100) });
        await ranOut();
        return leaseToken;
      },
    },
    {
      name: "that a later reservation superseded",
      token: async () => {
        const leaseToken = await reserved({ leaseDuration: ms(100) });
        await ranOut();
        await fixture.client.reserveOne(queue, { leaseDuration: hours(1) });
        return leaseToken;
      },
    },
    {
      name: "whose job was completed under a later one",
      token: async () => {
        const leaseToken = await reserved({ leaseDuration: ms(100) });
        await ranOut();
        const later = await fixture.client.reserveOne(queue, { leaseDuration: hours(1) });
        const request: ReleaseInit = { leaseToken: later.leaseToken, outcome: { case: "completed", value: {} } };
        await fixture.client.good("release", request);
        return leaseToken;
      },
    },
    {
      name: "with the number of a later reservation",
      token: async () => (await reserved()).replace(/[^/]+(?=\/job$)/, (fence) => next(fence)),
    },
    {
      name: "with the id of another reserved job",
      token: async () => {
        const leaseToken = await reserved();
        await fixture.client.good("put", { queue, id: "other" });
        await fixture.client.reserveOne(queue, { leaseDuration: hours(1) });
        return leaseToken.replace(/job$/, "other");
      },
    },
  ];

  it.each(LOST)("$name ends and extends nothing: LEASE_LOST, and nothing changes", async ({ token }) => {
    const leaseToken = await token();
    const id = leaseToken.split("/")[3] ?? "";
    const { client } = fixture;
    const outcomes: readonly NonNullable<ReleaseInit["outcome"]>[] = [
      { case: "completed", value: { result: { content: { case: "text", value: "late" } } } },
      { case: "failed", value: { permanent: true } },
      { case: "returned", value: {} },
    ];
    for (const value of outcomes) {
      const request: ReleaseInit = { leaseToken, outcome: value };
      expectLeaseLost(await changingNothing(() => client.bad("release", request)), queue, id);
      const { results } = await changingNothing(() => client.good("releaseMany", { releases: [request] }));
      expectLeaseLost(errorIn(results[0]?.result), queue, id);
    }
    const { results } = await changingNothing(() => client.good("extend", { leaseTokens: [leaseToken] }));
    expectLeaseLost(errorIn(results[0]?.result), queue, id);
  });

  async function reserved(options: { leaseDuration?: DurationInit } = {}): Promise<string> {
    await fixture.client.good("put", { queue, id: "job" });
    return (await fixture.client.reserveOne(queue, { leaseDuration: hours(1), ...options })).leaseToken;
  }

  /** The lease of the one job in the queue. */
  async function ranOut(): Promise<void> {
    await untilState(fixture.client, queue, "job", JobState.READY);
  }
});

function next(fence: string): string {
  return (Number.parseInt(fence, 36) + 1).toString(36);
}

function named(count: number): { name: string }[] {
  return Array.from({ length: count }, (_, i) => ({ name: `queue-${i}` }));
}
