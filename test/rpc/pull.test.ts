/** Pull (delivery mode PULL, and queues of mode SIMPLE): handed out once and gone, never requeued. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { DeliveryMode } from "../../gen/baton/v1/job_service_pb.js";
import { QueueMode } from "../../gen/baton/v1/queue_service_pb.js";
import { type CompletionEvents, followEvents } from "../e2e/events.ts";
import { subscribeAndNeverRead } from "../e2e/raw-client.ts";
import { until } from "../support/wait.ts";
import { expectLeaseLost, type Fixture, hours, ms, startFixture, untilState } from "./fixture.ts";
import { QueueClient } from "./queue-client.ts";
import type { RawClient, RawStream, Request } from "./raw-client.ts";

type SubscribeInit = Exclude<Parameters<RawClient["subscribe"]>[0], Uint8Array>;
const PULL = DeliveryMode.PULL;

let fixture: Fixture;
let queues: QueueClient;
let queue: string;
let count = 0;
const streams: RawStream[] = [];
let events: CompletionEvents | undefined;

beforeAll(async () => {
  fixture = await startFixture();
  queues = new QueueClient(fixture.client);
});

afterAll(() => fixture?.stop());

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

afterEach(() => {
  for (const stream of streams.splice(0)) stream.cancel();
  events?.stop();
  events = undefined;
});

async function opened(request: SubscribeInit = {}): Promise<RawStream> {
  const stream = fixture.client.subscribe({ queues: [{ name: queue }], mode: PULL, ...request });
  streams.push(stream);
  await stream.saw("started");
  return stream;
}

function putMany(howMany: number) {
  return fixture.client.good("putMany", { jobs: Array.from({ length: howMany }, (_, i) => ({ queue, id: `${i}` })) });
}

const pull = (more: Request<"reserve"> = {}) =>
  fixture.client.reserve({ queues: [{ name: queue }], mode: PULL, maxJobs: 1_000, ...more });

const ids = (jobs: readonly { readonly id: string }[]) => jobs.map(({ id }) => id);
const counted = async () => {
  const { queue: shown } = await queues.good("getQueue", { queue });
  return shown;
};

describe("pull: Reserve in mode PULL", () => {
  it("hands jobs out in order, whole and without a lease, and they are gone", async () => {
    const { client, redis } = fixture;
    const data = Buffer.from([0, 32, 32, 255, 254, 10, 0]);
    const headers = { tenant: "acme" };
    await client.good("put", { queue, id: "a", payload: { content: { case: "data", value: data } }, headers });
    await client.good("put", { queue, id: "b", priority: 5 });
    const jobs = await pull();
    expect(ids(jobs)).toEqual(["b", "a"]);
    expect(jobs[1]).toMatchObject({ queue, headers, attempt: 1, failures: 0 });
    for (const { leaseExpiresAt } of jobs) expect(leaseExpiresAt).toBeUndefined();
    expect(Buffer.from(jobs[1]?.payload?.content.value as Uint8Array)).toEqual(data);
    expect(await pull()).toEqual([]);
    for (const id of ["a", "b"]) {
      expect((await client.bad("get", { queue, id })).reason).toBe("JOB_NOT_FOUND");
      expect((await client.good("delete", { queue, id })).deleted).toBe(false);
    }
    for (const part of ["spec", "state", "result", "ready", "reserved", "completed", "failed"]) {
      expect(await redis.exists(`baton:{${queue}}:${part}`)).toBe(0);
    }
    expect((await counted())?.totals).toMatchObject({ put: 2n, pulled: 2n, completed: 0n, failed: 0n });
  });

  it("waits for the first job, up to `wait`", async () => {
    expect(await pull({ wait: ms(100) })).toEqual([]);
    const waiting = pull({ wait: hours(0.1) });
    await putMany(1);
    expect(ids(await waiting)).toEqual(["0"]);
  });

  it("never requeues what was pulled, whatever its lease would have been", async () => {
    const { client } = fixture;
    await client.good("put", { queue, id: "job", leaseDuration: ms(100), runTimeout: ms(100) });
    expect(ids(await pull())).toEqual(["job"]);
    expect(await client.reserve({ queues: [{ name: queue }], wait: ms(1_000) })).toEqual([]);
    expect((await queues.good("requeue", { queue })).requeued).toBe(0);
  });

  it("loses no job to callers that go away while they wait, by cancellation or deadline", async () => {
    const { client } = fixture;
    const request = { queues: [{ name: queue }], mode: PULL, wait: hours(0.1), maxJobs: 10 };
    const got: string[] = [];
    const put: string[] = [];
    for (let round = 0; round < 40; round++) {
      const leaving = [
        client.start("reserve", request),
        client.start("reserve", request, { deadline: Date.now() + 1 + (round % 5) }),
      ];
      put.push(`${round}`);
      const putting = client.good("put", { queue, id: `${round}` });
      // At any moment of the put, from before it is sent to after it has been answered.
      if (round % 4 === 1) await putting;
      if (round % 4 === 2) await new Promise(setImmediate);
      leaving[0]?.cancel();
      await putting;
      for (const { answer } of leaving) {
        const it = await answer;
        if ("response" in it) got.push(...ids(it.response.jobs));
      }
    }
    // What a caller that had gone was about to get comes back by itself.
    await until(
      async () => {
        got.push(...ids(await pull()));
        return got.length >= put.length - (await lostOnTheirWay());
      },
      { what: "every job to be handed out" },
    );
    expect(new Set(got).size).toBe(got.length);
    expect((await counted())?.counts).toMatchObject({ ready: 0n, reserved: 0n });
    // A job is lost only when its caller went after it had been forgotten, on the answer's way.
    async function lostOnTheirWay(): Promise<number> {
      const { totals, counts } = (await counted()) ?? {};
      const left = Number((counts?.ready ?? 0n) + (counts?.reserved ?? 0n));
      return left > 0 ? 0 : Number(totals?.pulled ?? 0n) - got.length;
    }
  });

  it("lets Release publish the outcome of a pulled job, and stores nothing", async () => {
    const { client, dump } = fixture;
    events = await followEvents(fixture.broker.redis.socketPath, queue);
    await putMany(2);
    const [first, second] = await pull();
    const before = await dump();
    const result = { content: { case: "text", value: "done" } } as const;
    const release = (leaseToken = "", outcome: Request<"release">["outcome"]) =>
      client.good("release", { leaseToken, ...(outcome && { outcome }) });
    const completed = await release(first?.leaseToken, { case: "completed", value: { result } });
    expect(completed.state).toBe(JobState.COMPLETED);
    const failed = await release(second?.leaseToken, { case: "failed", value: { message: "no" } });
    expect(failed.state).toBe(JobState.FAILED);
    await until(() => events?.seen.length === 2, { what: "two events" });
    expect(events.seen).toMatchObject([
      { id: "0", state: "COMPLETED", result: { text: "done" } },
      { id: "1", state: "FAILED", error: { message: "no" } },
    ]);
    expect(await dump()).toEqual(before);
  });

  it("has no lease that could be extended, and nothing that could be returned", async () => {
    const { client } = fixture;
    await putMany(1);
    const leaseToken = (await pull())[0]?.leaseToken ?? "";
    const { results } = await client.good("extend", { leaseTokens: [leaseToken] });
    expect(results[0]?.result.case).toBe("error");
    const returned = { leaseToken, outcome: { case: "returned", value: {} } } as const;
    expectLeaseLost(await client.bad("release", returned), queue, "0");
    expect(await pull()).toEqual([]);
  });

  it("does not mistake a new job of the same id for the one that was pulled", async () => {
    const { client } = fixture;
    await putMany(1);
    const leaseToken = (await pull())[0]?.leaseToken ?? "";
    await putMany(1);
    const completed = { leaseToken, outcome: { case: "completed", value: {} } } as const;
    expectLeaseLost(await client.bad("release", completed), queue, "0");
    expect((await client.good("get", { queue, id: "0" })).job?.state).toBe(JobState.READY);
  });

  it("frees the slot of a concurrency key at once: the next job of the key follows", async () => {
    const { client } = fixture;
    const jobs = Array.from({ length: 5 }, (_, i) => ({ queue, id: `${i}`, concurrency: { key: "k", limit: 1 } }));
    await client.good("putMany", { jobs });
    const got: string[] = [];
    while (got.length < 5) {
      const pulled = await pull({ wait: ms(2_000) });
      expect(pulled.length).toBeGreaterThan(0);
      got.push(...ids(pulled));
    }
    expect(got).toEqual(["0", "1", "2", "3", "4"]);
  });
});

describe("pull: Subscribe in mode PULL", () => {
  it("hands out each job once, more than max_outstanding in all, at most so many in a message", async () => {
    await putMany(20);
    const stream = await opened({ maxOutstanding: 3 });
    const jobs = await stream.got(20);
    expect(ids(jobs)).toEqual(Array.from({ length: 20 }, (_, i) => `${i}`));
    for (const batch of stream.all("jobs")) expect(batch.jobs.length).toBeLessThanOrEqual(3);
    expect(jobs.every(({ leaseExpiresAt }) => leaseExpiresAt === undefined)).toBe(true);
    expect((await counted())?.counts).toMatchObject({ ready: 0n, reserved: 0n, completed: 0n, failed: 0n });
    expect((await counted())?.totals?.pulled).toBe(20n);
  });

  it("lets nothing return when it ends, although nothing was released", async () => {
    const stream = await opened({ maxOutstanding: 10, disconnectGrace: {} });
    await putMany(5);
    await stream.got(5);
    stream.cancel();
    expect(await fixture.client.reserve({ queues: [{ name: queue }], wait: ms(500) })).toEqual([]);
  });

  it("gives back what its worker did not read, as if it had never been reserved", async () => {
    const { client } = fixture;
    const session = subscribeAndNeverRead(fixture.broker.address, { queues: [{ name: queue }], mode: PULL });
    try {
      const data = new Uint8Array(3 * 1024 * 1024);
      await client.good("put", { queue, id: "large", payload: { content: { case: "data", value: data } } });
      await until(async () => await client.call("get", { queue, id: "large" }).then((it) => "error" in it), {
        what: "the large job to be pulled",
      });
      await client.good("put", { queue, id: "unseen" });
      await untilState(client, queue, "unseen", JobState.RESERVED);
    } finally {
      session.destroy();
    }
    expect(await client.reserveOne(queue)).toMatchObject({ id: "unseen", attempt: 1, failures: 0 });
  });
});

describe("a queue of mode SIMPLE", () => {
  beforeEach(async () => {
    await queues.good("updateQueue", { queue, settings: { mode: QueueMode.SIMPLE } });
  });

  it("forgets each job as it is handed out, although Reserve asks for a lease", async () => {
    await putMany(3);
    const jobs = await pull({ mode: DeliveryMode.LEASE });
    expect(ids(jobs)).toEqual(["0", "1", "2"]);
    expect(jobs.every(({ leaseExpiresAt }) => leaseExpiresAt === undefined)).toBe(true);
    expect((await counted())?.counts).toMatchObject({ ready: 0n, reserved: 0n });
  });

  it("forgets each job as it is handed out on a stream of mode LEASE, whose other jobs keep their leases", async () => {
    const { client } = fixture;
    const other = `${queue}-reliable`;
    await client.good("put", { queue: other, id: "leased" });
    const stream = await opened({
      queues: [{ name: queue }, { name: other }],
      mode: DeliveryMode.LEASE,
      maxOutstanding: 2,
    });
    await putMany(10);
    const jobs = await stream.got(11);
    expect(new Set(ids(jobs)).size).toBe(11);
    const leased = jobs.filter(({ leaseExpiresAt }) => leaseExpiresAt !== undefined);
    expect(ids(leased)).toEqual(["leased"]);
    expect((await client.good("get", { queue: other, id: "leased" })).job?.state).toBe(JobState.RESERVED);
    expect((await counted())?.totals?.pulled).toBe(10n);
  });
});
