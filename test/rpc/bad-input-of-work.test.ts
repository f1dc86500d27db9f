/** What workers may say on a Work stream that is wrong, over real gRPC: whom it concerns, and whom not. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { DeliveryMode, QueuePolicy, RevokedReason } from "../../gen/baton/v1/job_service_pb.js";
import { QueueMode } from "../../gen/baton/v1/queue_service_pb.js";
import { firstRequest } from "../../src/rpc/first-request.ts";
import { until, within } from "../support/wait.ts";
import { type WorkRequestInit, WorkStream } from "../support/work-stream.ts";
import { startServer } from "../transport/support.ts";
import { changingNothing as callChangingNothing } from "./changing-nothing.ts";
import {
  expectBadRequest,
  expectLeaseLost,
  type Fixture,
  ms,
  putOneInEveryState,
  startFixture,
  type Tokens,
} from "./fixture.ts";
import { QueueClient } from "./queue-client.ts";
import { type CallError, callError, errorIn, statusError } from "./raw-client.ts";

type Start = Parameters<typeof WorkStream.open>[1];
type Releases = NonNullable<WorkRequestInit["releases"]>;

const MIB = 1024 * 1024;
const LEAST_BYTES = 3n * 1024n * 1024n + 64n * 1024n + 448n * 1024n;
const COMPLETED = { case: "completed", value: {} } as const;

let fixture: Fixture;
let tokens: Tokens;
/** Open all the time, on a queue of its own: nobody else's mistakes may reach it. */
let bystander: WorkStream;
let queue: string;
let count = 0;
const streams: WorkStream[] = [];

beforeAll(async () => {
  fixture = await startFixture();
  tokens = await putOneInEveryState(fixture.client, "kept");
  bystander = await WorkStream.open(fixture.broker.address, { queues: [{ name: "bystander" }] });
});

afterAll(async () => {
  bystander?.close();
  await fixture?.stop();
});

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

afterEach(async () => {
  for (const stream of streams.splice(0)) stream.close();
  const seen = bystander.jobs().length;
  await fixture.client.good("put", { queue: "bystander", retention: {} });
  const jobs = await bystander.got(seen + 1);
  expect(await bystander.answered(bystander.complete(...jobs.slice(seen)))).toMatchObject([{ case: "released" }]);
});

const changingNothing = <T>(call: () => Promise<T>) => callChangingNothing(fixture, call);

async function opened(start: Start = {}): Promise<WorkStream> {
  const stream = await WorkStream.open(fixture.broker.address, { queues: [{ name: queue }], ...start });
  streams.push(stream);
  return stream;
}

/** To its end, so that it does not come back while another test looks whether anything has changed. */
async function runsAJob(stream: WorkStream): Promise<void> {
  await fixture.client.good("put", { queue });
  expect(await stream.answered(stream.complete(...(await stream.got(1))))).toMatchObject([{ case: "released" }]);
}

async function endOf(stream: WorkStream): Promise<CallError> {
  const { error } = await within(stream.ended, { what: "the stream to end" });
  if (error) return callError(error);
  throw new Error("the stream should have been refused, and ended well");
}

/** What a stream ends with that begins with this message. */
async function refused(request: WorkRequestInit): Promise<CallError> {
  const stream = new WorkStream(fixture.broker.address);
  streams.push(stream);
  stream.send(request);
  const error = await endOf(stream);
  expect(stream.responses).toEqual([]);
  return error;
}

/** What a stream that has started ends with when it gets this message. */
async function refusedLater(request: WorkRequestInit): Promise<CallError> {
  const stream = await opened();
  stream.send(request);
  return await endOf(stream);
}

const tokensOf = (howMany: number) => Array.from({ length: howMany }, () => tokens.reserved);

describe("a Work stream whose first message does not come", () => {
  it("is over after a while, says so, and its place is free", async () => {
    await using server = await startServer({
      handlers: {
        // biome-ignore lint/correctness/useYield: it fails before.
        async *work(requests) {
          await firstRequest(requests[Symbol.asyncIterator](), 50);
        },
      },
      limits: { maxStreams: 1 },
    });
    for (let i = 0; i < 2; i++) {
      const stream = new WorkStream(server.address);
      streams.push(stream);
      const error = await endOf(stream);
      expectBadRequest(error, "start");
      expect(error.message).toContain("within 0.05 s");
    }
  });
});

describe("a Work stream whose first message has no start", () => {
  it.each<{ name: string; request: () => WorkRequestInit }>([
    { name: "nothing in it", request: () => ({}) },
    { name: "a release", request: () => ({ releases: [{ leaseToken: tokens.reserved, outcome: COMPLETED }] }) },
    { name: "credit", request: () => ({ credit: { maxOutstanding: 5 } }) },
    { name: "an extend", request: () => ({ extends: [{ leaseTokens: [tokens.reserved] }] }) },
    { name: "a report", request: () => ({ progress: [{ leaseToken: tokens.reserved, percent: 5 }] }) },
    { name: "quiet", request: () => ({ quiet: true }) },
  ])("but $name is refused, names the field and changes nothing", async ({ request }) => {
    expectBadRequest(await changingNothing(() => refused(request())), "start");
  });
});

const BYTES: readonly { readonly name: string; readonly bytes: bigint }[] = [
  { name: "max_outstanding_bytes −1", bytes: -1n },
  { name: "max_outstanding_bytes 1", bytes: 1n },
  { name: "max_outstanding_bytes one too few", bytes: LEAST_BYTES - 1n },
  { name: "max_outstanding_bytes of 1 TiB and 1", bytes: 2n ** 40n + 1n },
  { name: "the largest max_outstanding_bytes there is", bytes: 2n ** 63n - 1n },
  { name: "the smallest max_outstanding_bytes there is", bytes: -(2n ** 63n) },
];

const BAD_CREDIT: readonly { readonly name: string; readonly credit: object; readonly field: string }[] = [
  { name: "max_outstanding −1", credit: { maxOutstanding: -1 }, field: "max_outstanding" },
  { name: "max_outstanding 10,001", credit: { maxOutstanding: 10_001 }, field: "max_outstanding" },
  { name: "the largest max_outstanding there is", credit: { maxOutstanding: 2 ** 31 - 1 }, field: "max_outstanding" },
  { name: "the smallest max_outstanding there is", credit: { maxOutstanding: -(2 ** 31) }, field: "max_outstanding" },
  ...BYTES.map(({ name, bytes }) => ({
    name,
    credit: { maxOutstandingBytes: bytes },
    field: "max_outstanding_bytes",
  })),
];

describe("a Work stream that starts with", () => {
  const BAD_STARTS: readonly { readonly name: string; readonly start: Start; readonly field: string }[] = [
    { name: "no queue", start: { queues: [] }, field: "queues" },
    { name: "a queue in braces", start: { queues: [{ name: "{kept}" }] }, field: "queues[0].name" },
    { name: "a weight of −1", start: { queues: [{ name: "kept", weight: -1 }] }, field: "queues[0].weight" },
    {
      name: "no weight where weights count",
      start: { policy: QueuePolicy.WEIGHTED },
      field: "queues[0].weight",
    },
    { name: "policy 3", start: { policy: Number(3) }, field: "policy" },
    { name: "mode −1", start: { mode: Number(-1) }, field: "mode" },
    { name: "a lease of 999 ms", start: { leaseDuration: ms(999) }, field: "lease_duration" },
    { name: "a grace of 1 h and 1 ms", start: { disconnectGrace: ms(3_600_001) }, field: "disconnect_grace" },
    { name: "a worker id with a NUL", start: { workerId: "a\0" }, field: "worker_id" },
    { name: "a host of 256 bytes", start: { host: "h".repeat(256) }, field: "host" },
    { name: "a language with a line break", start: { language: "a\nb" }, field: "language" },
    {
      name: "more tokens to resume than max_outstanding",
      start: { maxOutstanding: 1, resumeLeaseTokens: ["baton/kept/1/a", "baton/kept/1/b"] },
      field: "resume_lease_tokens",
    },
    {
      name: "a token of another namespace to resume",
      start: { maxOutstanding: 2, resumeLeaseTokens: ["baton/kept/1/a", "other/kept/1/a"] },
      field: "resume_lease_tokens[1]",
    },
    {
      name: "a token to resume that is no token, and a megabyte long",
      start: { resumeLeaseTokens: [`baton/kept/1/${"x".repeat(MIB)}`] },
      field: "resume_lease_tokens[0]",
    },
    ...BAD_CREDIT.map(({ name, credit, field }) => ({ name, start: credit, field })),
  ];

  it.each(BAD_STARTS)("$name is refused, names the field and changes nothing", async ({ start, field }) => {
    const error = await changingNothing(() => refused({ start: { queues: [{ name: "kept" }], ...start } as Start }));
    expectBadRequest(error, `start.${field}`);
  });

  it.each(BYTES)("$name is refused by Subscribe, too", async ({ bytes }) => {
    const error = await changingNothing(async () => {
      const stream = fixture.client.subscribe({ queues: [{ name: "kept" }], maxOutstandingBytes: bytes });
      return await stream.ended;
    });
    expectBadRequest(error as CallError, "max_outstanding_bytes");
  });

  it.each([LEAST_BYTES, 2n ** 40n])("max_outstanding_bytes %s is not", async (maxOutstandingBytes) => {
    await runsAJob(await opened({ maxOutstandingBytes }));
  });
});

describe("a Work stream that has started, and is sent", () => {
  const ENDING: readonly { name: string; request: () => WorkRequestInit; fields: readonly string[] }[] = [
    { name: "a second start", request: () => ({ start: { queues: [{ name: "kept" }] } }), fields: ["start"] },
    {
      name: "a second start beside a release",
      request: () => ({ start: {}, releases: [{ leaseToken: tokens.reserved, outcome: COMPLETED }] }),
      fields: ["start"],
    },
    ...BAD_CREDIT.map(({ name, credit, field }) => ({
      name: `credit with ${name}`,
      request: () => ({ credit }),
      fields: [`credit.${field}`],
    })),
    {
      name: "1,001 releases",
      request: () => ({ releases: tokensOf(1_001).map((leaseToken) => ({ leaseToken, outcome: COMPLETED })) }),
      fields: ["releases"],
    },
    {
      name: "an extend of 1,001 tokens",
      request: () => ({ extends: [{ leaseTokens: tokensOf(1_001) }] }),
      fields: ["extends"],
    },
    {
      name: "extends with 1,001 tokens together",
      request: () => ({ extends: [{ leaseTokens: tokensOf(500) }, { leaseTokens: tokensOf(501) }] }),
      fields: ["extends"],
    },
    {
      name: "1,001 extends without tokens",
      request: () => ({ extends: Array.from({ length: 1_001 }, () => ({})) }),
      fields: ["extends"],
    },
    {
      name: "1,001 reports",
      request: () => ({ progress: tokensOf(1_001).map((leaseToken) => ({ leaseToken, percent: 1 })) }),
      fields: ["progress"],
    },
    {
      name: "bad credit, with too many releases and reports",
      request: () => ({
        releases: tokensOf(1_001).map((leaseToken) => ({ leaseToken, outcome: COMPLETED })),
        progress: tokensOf(1_001).map((leaseToken) => ({ leaseToken, percent: 1 })),
        credit: { maxOutstanding: -1 },
        quiet: true,
      }),
      fields: ["releases", "progress", "credit.max_outstanding"],
    },
  ];

  it.each(ENDING)("$name is over, names the fields, and changes nothing", async ({ request, fields }) => {
    expectBadRequest(await changingNothing(() => refusedLater(request())), ...fields);
  });

  it.each(ENDING)("$name in its first message likewise", async ({ request, fields, name }) => {
    if (name.includes("second start")) return;
    const start = { queues: [{ name: queue }] };
    const error = await changingNothing(async () => {
      const stream = new WorkStream(fixture.broker.address);
      streams.push(stream);
      stream.send({ ...request(), start } as WorkRequestInit);
      return await endOf(stream);
    });
    expectBadRequest(error, ...fields);
  });

  it("what ends it has its jobs stay for the grace, and then go to others", async () => {
    await fixture.client.good("put", { queue, id: "job" });
    const stream = await opened({ disconnectGrace: ms(400) });
    await stream.got(1);
    stream.send({ start: {} });
    expectBadRequest(await endOf(stream), "start");
    expect((await fixture.client.good("get", { queue, id: "job" })).job?.state).toBe(JobState.RESERVED);
    expect(await fixture.client.reserveOne(queue)).toMatchObject({ id: "job", attempt: 2 });
  });

  it("bytes that are no message, is over, and says so", async () => {
    const error = await changingNothing(async () => {
      const stream = await opened();
      stream.send(Buffer.alloc(16, 0xff));
      return await endOf(stream);
    });
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "MALFORMED_MESSAGE" });
  });

  it("a message over --max-message-bytes, is over, and says so", async () => {
    const error = await changingNothing(async () => {
      const stream = await opened();
      stream.send(Buffer.alloc(16 * MIB + 1));
      return await endOf(stream);
    });
    expect(error).toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "MESSAGE_TOO_LARGE" });
  });

  it("nothing at all, a thousand times, lives on", async () => {
    const stream = await opened();
    for (let i = 0; i < 1_000; i++) stream.send({});
    await runsAJob(stream);
  });

  it("fields of a later version, lives on", async () => {
    const stream = await opened();
    stream.send(Buffer.from([0xfa, 0x3e, 3, 0x61, 0x62, 0x63]));
    await runsAJob(stream);
  });
});

describe("tokens", () => {
  it("of another stream are as good as one's own; of another namespace, or none, they concern themselves alone", async () => {
    await fixture.client.good("putMany", { jobs: ["a", "b"].map((id) => ({ queue, id })) });
    const holder = await opened();
    const [job] = await holder.got(1);
    const other = await opened({ queues: [{ name: `${queue}-other` }] });
    const leaseToken = job?.leaseToken ?? "";
    const foreign = leaseToken.replace("baton/", "other/");
    other.send({
      releases: [
        { leaseToken: foreign, sequence: 1, outcome: COMPLETED },
        { leaseToken: "garbage", sequence: 2, outcome: COMPLETED },
        { leaseToken: `baton/${queue}/1/${"x".repeat(MIB)}`, sequence: 3, outcome: COMPLETED },
        { leaseToken, sequence: 4, outcome: COMPLETED },
      ],
      extends: [{ sequence: 5, leaseTokens: [foreign, tokens.reserved, ""] }],
      progress: [
        { leaseToken: foreign, percent: 1 },
        { leaseToken: tokens.reserved, percent: 1 },
      ],
    });
    const answers = await other.answered([1, 2, 3, 4]);
    expectBadRequest(errorIn(answers[0]), "releases[0].lease_token");
    expectBadRequest(errorIn(answers[1]), "releases[1].lease_token");
    expectBadRequest(errorIn(answers[2]), "releases[2].lease_token");
    expect(answers[3]).toMatchObject({ case: "released", value: { state: JobState.COMPLETED } });
    const { results } = await other.saw(({ extended }) => extended.find(({ sequence }) => sequence === 5), "extended");
    expectBadRequest(errorIn(results[0]?.result), "extends[0].lease_tokens[0]");
    expect(results[1]?.result.case).toBe("leaseExpiresAt");
    expectBadRequest(errorIn(results[2]?.result), "extends[0].lease_tokens[2]");
    const report = await other.saw(({ refusedReports }) => refusedReports[0], "a refused report");
    expect(report.leaseToken).toBe(foreign);
    expectBadRequest(statusError(report.error as never), "progress[0].lease_token");
    // Its own stream has room again.
    const jobs = await holder.got(2);
    expect(jobs).toMatchObject([{ id: "a" }, { id: "b" }]);
    expect(holder.revoked()).toEqual([]);
    await holder.answered(holder.complete(...jobs.slice(1)));
  });

  it.each(["release", "releaseMany", "extend", "reportProgress"] as const)(
    "of a megabyte are none for %s",
    async (method) => {
      const leaseToken = `baton/kept/1/${"x".repeat(MIB)}`;
      const { client } = fixture;
      const error = await changingNothing(async () => {
        switch (method) {
          case "release":
            return client.bad("release", { leaseToken, outcome: COMPLETED });
          case "releaseMany":
            return errorIn(
              (await client.good(method, { releases: [{ leaseToken, outcome: COMPLETED }] })).results[0]?.result,
            );
          case "extend":
            return errorIn((await client.good(method, { leaseTokens: [leaseToken] })).results[0]?.result);
          default:
            return client.bad(method, { leaseToken });
        }
      });
      expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
      expect(error.violations[0]?.field).toContain("lease_token");
    },
  );
});

describe("extends with something wrong", () => {
  it("say so for each of their tokens, and the stream goes on", async () => {
    await fixture.client.good("put", { queue, id: "job" });
    const stream = await opened();
    const [job] = await stream.got(1);
    const leaseTokens = [job?.leaseToken ?? "", job?.leaseToken ?? ""];
    stream.send({
      extends: [
        { sequence: 1, leaseTokens, leaseDuration: ms(99) },
        { sequence: 2 },
        { sequence: 3, leaseTokens },
        { sequence: 4, leaseTokens: [`baton/${queue}/1/other`] },
      ],
    });
    const resultsOf = async (number: number) =>
      (await stream.saw(({ extended }) => extended.find(({ sequence }) => sequence === number), `extend ${number}`))
        .results;
    const tooShort = await resultsOf(1);
    expect(tooShort).toHaveLength(2);
    for (const { result } of tooShort) expectBadRequest(errorIn(result), "extends[0].lease_duration");
    const [empty] = await resultsOf(2);
    expectBadRequest(errorIn(empty?.result), "extends[1].lease_tokens");
    expect((await resultsOf(3)).map(({ result }) => result.case)).toEqual(["leaseExpiresAt", "leaseExpiresAt"]);
    const [lost] = await resultsOf(4);
    expectLeaseLost(errorIn(lost?.result), queue, "other");
    await stream.answered(stream.complete(job as never));
  });
});

describe("sequence numbers", () => {
  it("may be any, also 0, the largest, and the same again", async () => {
    const numbers = [0, 1, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32 - 1];
    await fixture.client.good("putMany", { jobs: numbers.map((_, i) => ({ queue, id: `${i}` })) });
    const stream = await opened({ maxOutstanding: 10 });
    const jobs = await stream.got(numbers.length);
    const releases: Releases = numbers.map((sequence, i) => ({
      sequence,
      leaseToken: jobs[i]?.leaseToken ?? "",
      outcome: COMPLETED,
    }));
    stream.send({ releases });
    await stream.answered(numbers);
    const answered = stream.responses.flatMap(({ released }) => released.flatMap(({ sequences }) => sequences));
    expect(answered.sort((a, b) => a - b)).toEqual(numbers);
  });
});

describe("quiet", () => {
  it("that is not set leaves things as they are, and false is answered, too", async () => {
    const stream = await opened({ maxOutstanding: 5 });
    stream.send({ quiet: false });
    await stream.saw(({ quiet }) => quiet === false, "quiet: false");
    stream.send({ quiet: true });
    await stream.saw(({ quiet }) => quiet === true, "quiet: true");
    stream.send({ credit: { maxOutstanding: 7 } });
    stream.send({});
    await fixture.client.good("put", { queue, id: "for another" });
    const another = await fixture.client.reserveOne(queue);
    expect(another.id).toBe("for another");
    stream.send({ quiet: false });
    await fixture.client.good("put", { queue, id: "for it" });
    const jobs = await stream.got(1);
    expect(jobs).toMatchObject([{ id: "for it" }]);
    await stream.answered(stream.complete(another, ...jobs));
    expect(stream.responses.flatMap(({ quiet }) => (quiet === undefined ? [] : [quiet]))).toEqual([false, true, false]);
  });
});

describe("resume_lease_tokens", () => {
  it("may name a lease twice, one that is lost, and one that was pulled", async () => {
    const { client } = fixture;
    await client.good("putMany", { jobs: ["kept", "lost", "pulled"].map((id) => ({ queue, id })) });
    const take = async (mode = DeliveryMode.LEASE) =>
      (await client.reserve({ queues: [{ name: queue }], mode }))[0]?.leaseToken ?? "";
    const [kept, lost, pulled] = [await take(), await take(), await take(DeliveryMode.PULL)];
    await client.good("delete", { queue, id: "lost" });
    const stream = await opened({ maxOutstanding: 3, resumeLeaseTokens: [kept, lost, kept, pulled, pulled] });
    await until(() => stream.revoked().length > 0, { what: "the lost lease to be revoked" });
    expect(stream.revoked()).toEqual([{ leaseToken: lost, reason: RevokedReason.EXPIRED }]);
    // Of its three places one is taken: by the job that it keeps, once.
    await client.good("putMany", { jobs: ["1", "2", "3"].map((id) => ({ queue, id })) });
    const jobs = await stream.got(2);
    expect((await client.reserveOne(queue)).id).toBe("3");
    expect(jobs.map(({ id }) => id)).toEqual(["1", "2"]);
    const answers = await stream.answered(stream.complete({ leaseToken: kept }, ...jobs));
    expect(answers.map((answer) => answer.case)).toEqual(["released", "released", "released"]);
    expect(stream.revoked()).toHaveLength(1);
  });
});

describe("Work", () => {
  it.each([
    { name: "in mode PULL", start: { mode: DeliveryMode.PULL }, isSimple: false },
    { name: "at a queue of mode SIMPLE", start: {}, isSimple: true },
  ])("$name hands out what is gone then: what is said of it later is answered so", async ({ start, isSimple }) => {
    if (isSimple) {
      const queues = new QueueClient(fixture.client);
      await queues.good("updateQueue", { queue, settings: { mode: QueueMode.SIMPLE } });
    }
    await fixture.client.good("putMany", { jobs: ["a", "b"].map((id) => ({ queue, id })) });
    const stream = await opened({ ...start, maxOutstanding: 1 });
    const [job] = await stream.got(2);
    const leaseToken = job?.leaseToken ?? "";
    stream.send({
      releases: [
        { leaseToken, sequence: 1, outcome: COMPLETED },
        { leaseToken, sequence: 2, outcome: { case: "returned", value: {} } },
      ],
      extends: [{ sequence: 3, leaseTokens: [leaseToken] }],
      progress: [{ leaseToken, percent: 1 }],
    });
    const [completed, returned] = await stream.answered([1, 2]);
    expect(completed).toMatchObject({ case: "released", value: { state: JobState.COMPLETED } });
    expectLeaseLost(errorIn(returned), queue, "a");
    const { results } = await stream.saw(({ extended }) => extended[0], "extended");
    expectLeaseLost(errorIn(results[0]?.result), queue, "a");
    const report = await stream.saw(({ refusedReports }) => refusedReports[0], "a refused report");
    expectLeaseLost(statusError(report.error as never), queue, "a");
    expect(await fixture.redis.hlen(`baton:{${queue}}:spec`)).toBe(0);
  });
});
