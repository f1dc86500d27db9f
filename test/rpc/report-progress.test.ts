/** ReportProgress, and what Work is told of progress: what is refused, what is merged, and what is shown. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { DeliveryMode } from "../../gen/baton/v1/job_service_pb.js";
import { until } from "../support/wait.ts";
import { WorkStream } from "../support/work-stream.ts";
import { changingNothing } from "./changing-nothing.ts";
import {
  at,
  expectBadRequest,
  expectLeaseLost,
  type Fixture,
  hours,
  putOneInEveryState,
  startFixture,
  type Tokens,
} from "./fixture.ts";
import { type Request, statusError } from "./raw-client.ts";
import { WatchClient } from "./watch-client.ts";

type Report = Request<"reportProgress">;

let fixture: Fixture;
let tokens: Tokens;
let watches: WatchClient;
let queue: string;
let count = 0;
const streams: WorkStream[] = [];

beforeAll(async () => {
  fixture = await startFixture();
  tokens = await putOneInEveryState(fixture.client, "kept");
  watches = new WatchClient(fixture.broker.address);
});

afterAll(async () => {
  watches?.close();
  await fixture?.stop();
});

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
});

async function reserved(mode = DeliveryMode.LEASE): Promise<string> {
  await fixture.client.good("put", { queue, id: "job" });
  const [job] = await fixture.client.reserve({ queues: [{ name: queue }], mode, leaseDuration: hours(1) });
  return job?.leaseToken ?? "";
}

async function shown() {
  return (await fixture.client.good("get", { queue, id: "job" })).job?.progress;
}

async function opened(): Promise<WorkStream> {
  const stream = await WorkStream.open(fixture.broker.address, { queues: [{ name: queue }] });
  streams.push(stream);
  return stream;
}

/** 1,025 bytes, in fewer characters. */
const LONG_NOTE = `${"ä".repeat(512)}n`;

const BAD: readonly { readonly name: string; readonly report: () => Report; readonly fields: readonly string[] }[] = [
  { name: "no token", report: () => ({ percent: 5 }), fields: ["lease_token"] },
  { name: "a token that is none", report: () => ({ leaseToken: "garbage" }), fields: ["lease_token"] },
  {
    name: "a token of another namespace",
    report: () => ({ leaseToken: tokens.reserved.replace("baton/", "other/") }),
    fields: ["lease_token"],
  },
  ...[-1, 101, 2 ** 31 - 1, -(2 ** 31)].map((percent) => ({
    name: `percent ${percent}`,
    report: () => ({ leaseToken: tokens.reserved, percent }),
    fields: ["percent"],
  })),
  { name: "a note of 1,025 bytes", report: () => ({ leaseToken: tokens.reserved, note: LONG_NOTE }), fields: ["note"] },
  {
    name: "nothing that is right",
    report: () => ({ percent: -1, note: LONG_NOTE }),
    fields: ["lease_token", "percent", "note"],
  },
];

describe("a report of progress", () => {
  it.each(BAD)("with $name is refused, names the fields, and changes nothing", async ({ report, fields }) => {
    const error = await changingNothing(fixture, () => fixture.client.bad("reportProgress", report()));
    expectBadRequest(error, ...fields);
  });

  it.each(BAD)("with $name is refused on Work alike, and the others of its message are stored", async (row) => {
    const leaseToken = await reserved();
    const stream = await opened();
    stream.send({ progress: [row.report(), { leaseToken, percent: 7 }] });
    const { error } = await stream.saw(({ refusedReports }) => refusedReports[0], "a refused report");
    expectBadRequest(statusError(error as never), ...row.fields.map((field) => `progress[0].${field}`));
    await until(async () => (await shown())?.percent === 7, { what: "the good report" });
    expect(stream.responses.flatMap(({ refusedReports }) => refusedReports)).toHaveLength(1);
  });

  it.each([
    { name: "0 and nothing", percent: 0, note: "" },
    { name: "100 and 1,024 bytes of UTF-8", percent: 100, note: "ä".repeat(512) },
    { name: "control characters", percent: 50, note: 'a\n\0"b"\u2028' },
  ])("of $name is stored and shown, with its time", async ({ percent, note }) => {
    const leaseToken = await reserved();
    const before = await fixture.nowMs();
    await fixture.client.good("reportProgress", { leaseToken, percent, note });
    const progress = await shown();
    expect(progress).toMatchObject({ percent, note });
    expect(at(progress?.reportedAt)).toBeGreaterThanOrEqual(before);
    expect((await fixture.client.good("get", { queue, id: "job" })).job?.state).toBe(JobState.RESERVED);
  });

  it("can be repeated", async () => {
    const leaseToken = await reserved();
    for (let i = 0; i < 3; i++) await fixture.client.good("reportProgress", { leaseToken, percent: 40 });
    expect(await shown()).toMatchObject({ percent: 40 });
  });

  it.each<{ name: string; token: () => Promise<string> }>([
    {
      name: "whose job has been released",
      token: async () => {
        const leaseToken = await reserved();
        await fixture.client.good("release", { leaseToken, outcome: { case: "completed", value: {} } });
        return leaseToken;
      },
    },
    {
      name: "whose job is RETRYING",
      token: async () => {
        const leaseToken = await reserved();
        const outcome = { case: "failed", value: { retryAfter: hours(1) } } as const;
        await fixture.client.good("release", { leaseToken, outcome });
        return leaseToken;
      },
    },
    {
      name: "that a later attempt superseded",
      token: async () => {
        const leaseToken = await reserved();
        await fixture.client.good("release", { leaseToken, outcome: { case: "returned", value: {} } });
        await reserved().catch(() => fixture.client.reserveOne(queue));
        return leaseToken;
      },
    },
    {
      name: "whose job was cancelled",
      token: async () => {
        const leaseToken = await reserved();
        await fixture.client.good("cancel", { queue, id: "job" });
        return leaseToken;
      },
    },
    { name: "of a job that was pulled", token: () => reserved(DeliveryMode.PULL) },
    { name: "of a job that never was", token: async () => `baton/${queue}/1/job` },
  ])("under a lease $name is LEASE_LOST, by ReportProgress and on Work, and changes nothing", async ({ token }) => {
    const leaseToken = await token();
    const report = { leaseToken, percent: 5 };
    const error = await changingNothing(fixture, () => fixture.client.bad("reportProgress", report));
    expectLeaseLost(error, queue, "job");
    const stream = await WorkStream.open(fixture.broker.address, { queues: [{ name: `${queue}-other` }] });
    streams.push(stream);
    const refused = await changingNothing(fixture, async () => {
      stream.send({ progress: [report] });
      return await stream.saw(({ refusedReports }) => refusedReports[0], "a refused report");
    });
    expect(refused.leaseToken).toBe(leaseToken);
    expectLeaseLost(statusError(refused.error as never), queue, "job");
  });
});

describe("reports that come faster than they can be of use", () => {
  const REPORTS = 10_000;

  it("are merged to at most ten writes a second for each job, and the last one wins", async () => {
    const leaseToken = await reserved();
    const watch = await watches.started({ queues: [queue] });
    const stream = await opened();
    const began = performance.now();
    for (let sent = 0; sent < REPORTS; sent += 100) {
      const progress = Array.from({ length: 100 }, (_, i) => ({
        leaseToken,
        percent: Math.floor((100 * (sent + i + 1)) / REPORTS),
        note: `${sent + i + 1}`,
      }));
      if (!stream.send({ progress })) await new Promise<void>((resolve) => stream.call.once("drain", resolve));
    }
    await until(async () => (await shown())?.note === `${REPORTS}`, { what: "the last report" });
    const seconds = (performance.now() - began) / 1_000;
    const reports = () => watch.events().filter(({ transition }) => transition === "report");
    await until(() => reports().at(-1)?.progress?.note === `${REPORTS}`, { what: "the last report's event" });
    expect(reports().at(-1)?.progress?.percent).toBe(100);
    expect(reports().length).toBeLessThanOrEqual(Math.ceil(seconds * 10) + 1);
    const notes = reports().map(({ progress }) => Number(progress?.note));
    expect(notes).toEqual([...notes].sort((a, b) => a - b));
    expect(stream.responses.flatMap(({ refusedReports }) => refusedReports)).toEqual([]);
  });

  it("are all answered by ReportProgress, each when what it or a later one said is stored", async () => {
    const leaseToken = await reserved();
    const calls = Array.from({ length: 500 }, (_, i) =>
      fixture.client.good("reportProgress", { leaseToken, percent: i % 101, note: `${i}` }),
    );
    await Promise.all(calls);
    expect((await shown())?.note).toBe("499");
  });
});
