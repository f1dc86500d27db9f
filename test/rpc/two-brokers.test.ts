/** What operators ask of one broker holds at every other: two brokers on one Redis. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { RevokedReason } from "../../gen/baton/v1/job_service_pb.js";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { expectLeaseLost, type Fixture, hours, ms, startFixture, untilState } from "./fixture.ts";
import { QueueClient } from "./queue-client.ts";
import { RawClient, type RawStream, type Request } from "./raw-client.ts";

const COMPLETED: NonNullable<Request<"release">["outcome"]> = { case: "completed", value: {} };

let fixture: Fixture;
let secondBroker: TestBroker;
/** Of the first and the second broker. */
let first: RawClient;
let second: RawClient;
let queues: QueueClient;
let queue: string;
let count = 0;
const streams: RawStream[] = [];

beforeAll(async () => {
  fixture = await startFixture();
  secondBroker = await startBroker({ redis: fixture.broker.redis });
  first = fixture.client;
  second = new RawClient(secondBroker.address);
  queues = new QueueClient(first);
});

afterAll(async () => {
  second?.close();
  await secondBroker?.stop();
  await fixture?.stop();
});

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

afterEach(() => {
  for (const stream of streams.splice(0)) stream.cancel();
});

async function opened(client: RawClient, maxOutstanding = 1): Promise<RawStream> {
  const stream = client.subscribe({ queues: [{ name: queue }], maxOutstanding });
  streams.push(stream);
  await stream.saw("started");
  return stream;
}

describe("a queue that was paused through one broker", () => {
  it("hands out nothing that is put after the pause was answered, at either broker, while what runs is released", async () => {
    const workers = [await opened(first, 5), await opened(second, 5)];
    await first.good("put", { queue, id: "running", priority: 9 });
    await expect.poll(() => workers.flatMap((worker) => worker.jobs()).length).toBe(1);
    const token = workers.flatMap((worker) => worker.jobs())[0]?.leaseToken ?? "";
    await queues.good("pauseQueue", { queue });
    const jobs = Array.from({ length: 20 }, (_, i) => ({ queue, id: `after-${i}` }));
    await first.good("putMany", { jobs: jobs.slice(0, 10) });
    await second.good("putMany", { jobs: jobs.slice(10) });
    for (const client of [first, second]) {
      expect(await client.reserve({ queues: [{ name: queue }], maxJobs: 20, wait: ms(1_100) })).toEqual([]);
    }
    expect((await second.good("release", { leaseToken: token, outcome: COMPLETED })).state).toBe(JobState.COMPLETED);
    expect(workers.flatMap((worker) => worker.jobs()).map(({ id }) => id)).toEqual(["running"]);
    expect((await queues.good("getQueue", { queue })).queue?.counts).toMatchObject({ ready: 20n, completed: 1n });
  });

  it.each(["first", "second"] as const)(
    "hands out again when it is resumed: a worker that waits at the %s broker wakes",
    async (name) => {
      const client = name === "first" ? first : second;
      await queues.good("pauseQueue", { queue });
      const stream = await opened(client);
      await first.good("put", { queue, id: "job" });
      expect(await client.reserve({ queues: [{ name: queue }], wait: ms(50) })).toEqual([]);
      const began = performance.now();
      await queues.good("resumeQueue", { queue });
      await stream.got(1);
      // Far less than the interval at which a broker looks although no bell rang.
      expect(performance.now() - began).toBeLessThan(500);
    },
  );

  it("hands out again to a Reserve that was waiting all the while", async () => {
    await queues.good("pauseQueue", { queue });
    const waiting = second.start("reserve", { queues: [{ name: queue }], wait: ms(8_000) });
    await first.good("put", { queue, id: "job" });
    await queues.good("resumeQueue", { queue });
    const answer = await waiting.answer;
    expect("response" in answer && answer.response.jobs.map(({ id }) => id)).toEqual(["job"]);
  });

  it("lets a worker of several queues have the others' jobs", async () => {
    const other = `${queue}-other`;
    await queues.good("pauseQueue", { queue });
    await first.good("put", { queue, id: "paused" });
    await first.good("put", { queue: other, id: "open" });
    const jobs = await second.reserve({ queues: [{ name: queue }, { name: other }], wait: ms(5_000) });
    expect(jobs.map(({ id }) => id)).toEqual(["open"]);
  });
});

describe("a running job that is cancelled through one broker", () => {
  it("is revoked on its worker's stream at the other within 100 ms, and FAILED with the type CANCELLED", async () => {
    const stream = await opened(second, 10);
    const tookMs: number[] = [];
    for (let i = 0; i < 10; i++) {
      await first.good("put", { queue, id: `${i}` });
      const job = (await stream.got(i + 1))[i];
      await untilState(first, queue, `${i}`, JobState.RESERVED);
      const began = performance.now();
      const answer = await first.good("cancel", { queue, id: `${i}`, message: "not wanted any more" });
      const revoked = await stream.saw("revoked", i + 1);
      tookMs.push(performance.now() - began);
      expect(answer).toMatchObject({ cancelled: true, previousState: JobState.RESERVED });
      expect(revoked).toMatchObject({ leaseTokens: [job?.leaseToken], reason: RevokedReason.CANCELLED });
      const release = await second.bad("release", { leaseToken: job?.leaseToken ?? "", outcome: COMPLETED });
      expectLeaseLost(release, queue, `${i}`);
      const { job: failed } = await second.good("get", { queue, id: `${i}` });
      expect(failed).toMatchObject({
        state: JobState.FAILED,
        error: { type: "CANCELLED", message: "not wanted any more", permanent: false },
      });
    }
    // A test polls every 10 ms, and the machine may be busy: the middle one tells what the broker does.
    expect(tookMs.sort((a, b) => a - b)[5]).toBeLessThan(100);
  });

  it("gives its credit back: the stream gets the next job", async () => {
    const stream = await opened(second);
    await first.good("put", { queue, id: "a" });
    await stream.got(1);
    await first.good("put", { queue, id: "b" });
    await first.good("cancel", { queue, id: "a" });
    expect((await stream.got(2)).map(({ id }) => id)).toEqual(["a", "b"]);
  });
});

describe("a page token of one broker", () => {
  it("is good at the other", async () => {
    await first.good("putMany", {
      jobs: Array.from({ length: 5 }, (_, i) => ({
        queue,
        id: `${i}`,
        start: { case: "delay" as const, value: hours(1) },
      })),
    });
    const request = { queue, state: JobState.SCHEDULED, pageSize: 3 };
    const { jobs, nextPageToken } = await first.good("list", request);
    const next = await second.good("list", { ...request, pageToken: nextPageToken });
    expect([...jobs, ...next.jobs].map(({ id }) => id)).toEqual(["0", "1", "2", "3", "4"]);
  });
});

describe("settings of a queue", () => {
  it("hold at every broker from the next call on", async () => {
    for (const [i, seconds] of [3_600, 7_200, 1_800].entries()) {
      await queues.good("updateQueue", { queue, settings: { leaseDuration: ms(seconds * 1_000) } });
      await second.good("put", { queue, id: `${i}` });
      const { leaseExpiresAt } = await second.reserveOne(queue);
      const leaseS = Number(leaseExpiresAt?.seconds ?? 0n) - (await fixture.nowMs()) / 1_000;
      expect(Math.abs(leaseS - seconds)).toBeLessThan(5);
    }
  });
});
