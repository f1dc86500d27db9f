/** What the contract promises of Work, sentence by sentence, over real gRPC. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { RevokedReason } from "../../gen/baton/v1/job_service_pb.js";
import { until } from "../support/wait.ts";
import { WorkStream } from "../support/work-stream.ts";
import { type Fixture, hours, inMs, ms, startFixture, untilState } from "./fixture.ts";

type Start = Parameters<typeof WorkStream.open>[1];

let fixture: Fixture;
let queue: string;
let count = 0;
const streams: WorkStream[] = [];

beforeAll(async () => {
  fixture = await startFixture();
});

afterAll(() => fixture?.stop());

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

afterEach(() => {
  for (const stream of streams.splice(0)) stream.close();
});

/** A stream of this test's queue that has started. */
async function opened(start: Start = {}): Promise<WorkStream> {
  const stream = await WorkStream.open(fixture.broker.address, { queues: [{ name: queue }], ...start });
  streams.push(stream);
  return stream;
}

async function shown(id: string) {
  const { job } = await fixture.client.good("get", { queue, id });
  if (!job) throw new Error(`there is no job ${id}`);
  return job;
}

function putMany(howMany: number, from = 0) {
  const jobs = Array.from({ length: howMany }, (_, i) => ({ queue, id: `${from + i}` }));
  return fixture.client.good("putMany", { jobs });
}

describe("a Work stream that opens", () => {
  it("says first that it has started, and what is in force", async () => {
    const stream = await opened({ workerId: "w1", leaseDuration: ms(5_500), disconnectGrace: {} });
    const { started } = stream.responses[0] ?? {};
    expect(started?.workerId).toBe("w1");
    expect(inMs(started?.leaseDuration)).toBe(5_500);
    expect(inMs(started?.disconnectGrace)).toBe(0);
  });

  it("may say more in its first message", async () => {
    await putMany(2);
    const [job] = await fixture.client.reserve({ queues: [{ name: queue }] });
    const stream = await WorkStream.open(
      fixture.broker.address,
      { queues: [{ name: queue }], maxOutstanding: 5 },
      {
        releases: [{ leaseToken: job?.leaseToken ?? "", sequence: 7, outcome: { case: "completed", value: {} } }],
      },
    );
    streams.push(stream);
    const [answer] = await stream.answered([7]);
    expect(answer).toMatchObject({ case: "released", value: { state: JobState.COMPLETED } });
    expect(await stream.got(1)).toMatchObject([{ id: "1" }]);
  });

  it("ends well when the worker closes its side without a word", async () => {
    const stream = new WorkStream(fixture.broker.address);
    streams.push(stream);
    stream.finish();
    expect(await stream.ended).toMatchObject({ code: "OK" });
  });
});

describe("releases", () => {
  it("are answered by their numbers, those with the same answer together, and make room for more jobs", async () => {
    await putMany(30);
    const stream = await opened({ maxOutstanding: 10 });
    const first = await stream.got(10);
    const answers = await stream.answered(stream.complete(...first));
    expect(answers.every((answer) => answer.case === "released" && answer.value.state === JobState.COMPLETED)).toBe(
      true,
    );
    expect(stream.responses.flatMap(({ released }) => released)).toHaveLength(1);
    const all = await stream.got(20);
    expect(new Set(all.map(({ id }) => id)).size).toBe(20);
  });

  it("have every outcome that Release has", async () => {
    await putMany(3);
    const stream = await opened({ maxOutstanding: 3 });
    const [a, b, c] = await stream.got(3);
    stream.send({
      releases: [
        {
          leaseToken: a?.leaseToken ?? "",
          sequence: 1,
          outcome: { case: "failed", value: { message: "no", retryAfter: hours(1) } },
        },
        { leaseToken: b?.leaseToken ?? "", sequence: 2, outcome: { case: "failed", value: { permanent: true } } },
        { leaseToken: c?.leaseToken ?? "", sequence: 3, outcome: { case: "returned", value: { delay: hours(1) } } },
      ],
    });
    const answers = await stream.answered([1, 2, 3]);
    expect(answers.map((answer) => answer.case === "released" && answer.value.state)).toEqual([
      JobState.RETRYING,
      JobState.FAILED,
      JobState.SCHEDULED,
    ]);
  });

  it("of a lost lease, of a token that is none, and without an outcome are their own errors", async () => {
    await putMany(2);
    const stream = await opened({ maxOutstanding: 2 });
    const [lost, good] = await stream.got(2);
    await fixture.client.good("delete", { queue, id: lost?.id ?? "" });
    const outcome = { case: "completed", value: {} } as const;
    stream.send({
      releases: [
        { leaseToken: lost?.leaseToken ?? "", sequence: 1, outcome },
        { leaseToken: "other/queue/1/x", sequence: 2, outcome },
        { leaseToken: good?.leaseToken ?? "", sequence: 3 },
        { leaseToken: good?.leaseToken ?? "", sequence: 4, outcome },
      ],
    });
    const answers = await stream.answered([1, 2, 3, 4]);
    expect(answers.map((answer) => (answer.case === "error" ? answer.value.message : answer.case))).toEqual([
      expect.stringContaining("lease"),
      expect.stringContaining("releases[1].lease_token"),
      expect.stringContaining("releases[2].outcome"),
      "released",
    ]);
  });

  it("repeated with the token that won are answered the same", async () => {
    await putMany(1);
    const stream = await opened();
    const jobs = await stream.got(1);
    const answers = [
      ...(await stream.answered(stream.complete(...jobs))),
      ...(await stream.answered(stream.complete(...jobs))),
    ];
    expect(answers).toMatchObject([{ case: "released" }, { case: "released" }]);
  });
});

describe("extends", () => {
  it("answer when each lease ends now, or why not", async () => {
    await putMany(1);
    const stream = await opened();
    const [job] = await stream.got(1);
    stream.send({
      extends: [{ sequence: 9, leaseTokens: [job?.leaseToken ?? "", "nonsense"], leaseDuration: hours(1) }],
    });
    const { results } = await stream.saw(({ extended }) => extended.find((one) => one.sequence === 9), "extended");
    expect(results.map(({ result }) => result.case)).toEqual(["leaseExpiresAt", "error"]);
    const left = Number((await shown("0")).leaseExpiresAt?.seconds) * 1_000 - (await fixture.nowMs());
    expect(left).toBeGreaterThan(3_500_000);
  });
});

describe("progress", () => {
  it("is shown by Get while the job runs, and no more when it has ended", async () => {
    await putMany(1);
    const stream = await opened();
    const [job] = await stream.got(1);
    stream.send({ progress: [{ leaseToken: job?.leaseToken ?? "", percent: 40, note: "page 4 of 10" }] });
    const { progress } = await until(async () => (await shown("0")).progress && shown("0"), { what: "progress" });
    expect(progress).toMatchObject({ percent: 40, note: "page 4 of 10" });
    await stream.answered(stream.complete(...stream.jobs()));
    expect((await shown("0")).progress).toBeUndefined();
  });

  it("that is refused is answered, and the stream goes on", async () => {
    await putMany(1);
    const stream = await opened();
    const [job] = await stream.got(1);
    const leaseToken = job?.leaseToken ?? "";
    stream.send({ progress: [{ leaseToken, percent: 101 }] });
    const { error } = await stream.saw(({ refusedReports }) => refusedReports[0], "refused report");
    expect(error?.message).toContain("progress[0].percent");
    await stream.answered(stream.complete(...stream.jobs()));
    stream.send({ progress: [{ leaseToken, percent: 50 }] });
    await stream.saw(
      ({ refusedReports }) => refusedReports.find((one) => one.error?.message.includes("lease")),
      "a lost lease",
    );
  });
});

describe("credit", () => {
  it("can grow, and shrink to none", async () => {
    await putMany(10);
    const stream = await opened({ maxOutstanding: 1 });
    await stream.got(1);
    stream.send({ credit: { maxOutstanding: 4 } });
    await stream.got(4);
    stream.send({ credit: { maxOutstanding: 0 } });
    await stream.answered(stream.complete(...stream.jobs()));
    expect(stream.jobs()).toHaveLength(4);
    stream.send({ credit: { maxOutstanding: 6 } });
    await stream.got(10);
  });

  it("in bytes is never exceeded, and order is kept", async () => {
    const data = new Uint8Array(1_500_000);
    for (let i = 0; i < 6; i++) {
      await fixture.client.good("put", { queue, id: `${i}`, payload: { content: { case: "data", value: data } } });
    }
    const stream = await opened({ maxOutstanding: 10, maxOutstandingBytes: 4_000_000n });
    const first = await stream.got(2);
    expect(first.map(({ id }) => id)).toEqual(["0", "1"]);
    for (let done = 0; done < 6; done++) {
      const jobs = await stream.got(done + 1);
      const [answer] = await stream.answered(stream.complete(jobs[done] as (typeof jobs)[number]));
      expect(answer?.case).toBe("released");
      expect(stream.jobs().length - done - 1).toBeLessThanOrEqual(2);
    }
    expect(stream.jobs().map(({ id }) => id)).toEqual(["0", "1", "2", "3", "4", "5"]);
  });
});

describe("quiet", () => {
  it("is answered, and after that no job comes until it is taken back", async () => {
    await putMany(1);
    const stream = await opened({ maxOutstanding: 10 });
    await stream.got(1);
    stream.send({ quiet: true });
    await stream.saw(({ quiet }) => quiet === true, "quiet");
    await putMany(1, 1);
    const [other] = await fixture.client.reserve({ queues: [{ name: queue }], wait: { seconds: 5n } });
    expect(other?.id).toBe("1");
    await putMany(1, 2);
    stream.send({ quiet: false });
    expect((await stream.got(2)).map(({ id }) => id)).toEqual(["0", "2"]);
  });

  it("lets a worker end without a trace: no attempt is counted for a job that it never saw", async () => {
    await putMany(500);
    const stream = await opened({ maxOutstanding: 10_000 });
    await stream.got(1);
    stream.send({ quiet: true });
    await stream.saw(({ quiet }) => quiet === true, "quiet");
    const seen = stream.jobs();
    await stream.answered(stream.complete(...seen));
    stream.finish();
    expect(await stream.ended).toMatchObject({ code: "OK" });
    const left = await fixture.client.reserveMany(queue, 500 - seen.length).catch(() => []);
    expect(left.every(({ attempt }) => attempt === 1)).toBe(true);
    expect(left.length + seen.length).toBe(500);
  });
});

describe("a worker that closes its side", () => {
  it("still gets all its answers, and what it did not release goes to others after the grace", async () => {
    await putMany(3);
    const stream = await opened({ maxOutstanding: 3, disconnectGrace: ms(300) });
    const [kept, ...done] = await stream.got(3);
    const sequences = stream.complete(...done);
    stream.finish();
    expect(await stream.ended).toMatchObject({ code: "OK" });
    expect(sequences.map((sequence) => stream.released().get(sequence)?.case)).toEqual(["released", "released"]);
    expect(await fixture.client.reserveOne(queue)).toMatchObject({ id: kept?.id, attempt: 2 });
  });
});

describe("a lease that ends without a release", () => {
  it("is revoked with its reason, and those of one reason stand together", async () => {
    await putMany(2);
    await fixture.client.good("put", { queue, id: "slow", runTimeout: ms(300) });
    const stream = await opened({ maxOutstanding: 3 });
    const jobs = await stream.got(3);
    const tokenOf = (id: string) => jobs.find((job) => job.id === id)?.leaseToken;
    await fixture.client.good("delete", { queue, id: "0" });
    await fixture.client.good("cancel", { queue, id: "1" });
    await until(() => stream.revoked().length >= 3, { what: "three revocations" });
    expect(stream.revoked()).toEqual(
      expect.arrayContaining([
        { leaseToken: tokenOf("0"), reason: RevokedReason.DELETED },
        { leaseToken: tokenOf("1"), reason: RevokedReason.CANCELLED },
        { leaseToken: tokenOf("slow"), reason: RevokedReason.RUN_TIMEOUT },
      ]),
    );
  });
});

describe("a stream that ends without a word", () => {
  it("has its jobs handed to others after the grace", async () => {
    await putMany(2);
    const stream = await opened({ maxOutstanding: 2, disconnectGrace: ms(200) });
    await stream.got(2);
    stream.close();
    const again = await fixture.client.reserveMany(queue, 2).catch(() => untilBack());
    expect(again.every(({ attempt }) => attempt === 2)).toBe(true);

    async function untilBack() {
      await untilState(fixture.client, queue, "0", JobState.READY);
      await untilState(fixture.client, queue, "1", JobState.READY);
      return fixture.client.reserveMany(queue, 2);
    }
  });
});
