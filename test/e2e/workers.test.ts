/** Workers and brokers that die: processes of their own, ended with kill -9. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { type BrokerProcess, startBrokerProcess } from "./broker-process.ts";
import { openStream, type WorkerStream } from "./worker-stream.ts";

describe("two brokers, one of which dies", { timeout: 60_000 }, () => {
  let redis: TestRedis;
  let doomed: BrokerProcess;
  let staying: BrokerProcess;
  let toDoomed: BatonClient;
  let client: BatonClient;
  const streams: WorkerStream[] = [];

  beforeAll(async () => {
    redis = await startRedis();
    staying = await startBrokerProcess("--redis-url", redis.url);
    client = new BatonClient({ address: staying.address });
  });

  afterAll(async () => {
    client?.close();
    await staying?.kill();
    await redis?.stop();
  });

  beforeEach(async () => {
    doomed = await startBrokerProcess("--redis-url", redis.url);
    toDoomed = new BatonClient({ address: doomed.address });
  });

  afterEach(async () => {
    for (const stream of streams.splice(0)) stream.close();
    toDoomed.close();
    await doomed.kill();
  });

  async function open(through: BatonClient, input: Parameters<typeof openStream>[1]): Promise<WorkerStream> {
    const stream = await openStream(through, input);
    streams.push(stream);
    return stream;
  }

  const put = (queue: string, howMany: number) =>
    client.putMany(Array.from({ length: howMany }, (_, i) => ({ queue, id: `${i}` })));
  const idsOf = (...of: WorkerStream[]) => of.flatMap((stream) => stream.jobs().map(({ id }) => id));

  it("a dead broker's jobs come back once, those of a live one never, and its workers are listed no longer", async () => {
    const queue = "dead";
    await put(queue, 10);
    const dying = await open(toDoomed, { queues: [queue], maxOutstanding: 5, leaseMs: 2_000, workerId: "dying" });
    await until(() => dying.jobs().length === 5, { what: "five jobs" });
    const living = await open(client, { queues: [queue], maxOutstanding: 100, leaseMs: 1_000, workerId: "living" });
    await until(() => living.jobs().length === 5, { what: "five jobs" });
    const mine = idsOf(living);
    const listed = async () => (await client.queues.workers({ queue })).items.map(({ workerId }) => workerId);
    await until(async () => (await listed()).length === 2, { what: "both to be listed" });
    await doomed.kill();
    await until(() => living.jobs().length === 10, { what: "the dead one's jobs to come back", withinMs: 15_000 });
    expect(idsOf(living).slice(5).sort()).toEqual(idsOf(dying).sort());
    expect(living.jobs().map(({ attempt }) => attempt)).toEqual([1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
    // Meanwhile the live one's leases would have run out several times.
    for (const id of mine) expect(await client.get(queue, id)).toMatchObject({ state: "RESERVED", attempt: 1 });
    await until(async () => (await listed()).join() === "living", { what: "the dead to be gone", withinMs: 40_000 });
  });

  it("a worker that goes over to the other broker with its jobs runs nothing twice", async () => {
    const queue = "moving";
    await put(queue, 5);
    const before = await open(toDoomed, { queues: [queue], maxOutstanding: 5, leaseMs: 2_000 });
    await until(() => before.jobs().length === 5, { what: "five jobs" });
    await doomed.kill();
    const resumeLeaseTokens = before.jobs().map(({ leaseToken }) => leaseToken);
    const after = await open(client, { queues: [queue], maxOutstanding: 5, leaseMs: 2_000, resumeLeaseTokens });
    const end = (await client.get(queue, "0")).leaseExpiresAt?.getTime() ?? 0;
    const renewed = async () => ((await client.get(queue, "0")).leaseExpiresAt?.getTime() ?? 0) > end + 2_000;
    await until(renewed, { what: "several renewals", withinMs: 15_000 });
    const released = await client.releaseMany(
      resumeLeaseTokens.map((leaseToken) => ({ leaseToken, outcome: "completed" })),
    );
    expect(released.map(({ ok }) => ok)).toEqual([true, true, true, true, true]);
    expect(after.events.map(({ type }) => type).filter((type) => type !== "keepalive")).toEqual(["started"]);
    expect((await client.get(queue, "0")).attempt).toBe(1);
  });

  it("pull: a job is handed out at most once over a kill -9, and none stays behind", async () => {
    const queue = "pulled";
    const got: string[] = [];
    const mode = "PULL";
    await put(queue, 500);
    const pull = async () => {
      for (;;) got.push(...(await toDoomed.reserve({ queues: [queue], mode, maxJobs: 3 })).map(({ id }) => id));
    };
    const pulling = Promise.allSettled([pull(), pull(), pull(), pull()]);
    await until(() => got.length >= 60, { what: "some jobs" });
    await doomed.kill();
    await pulling;
    const isEmpty = async () => {
      const { counts } = await client.queues.get(queue);
      return counts.ready + counts.reserved === 0;
    };
    // What the dead broker had reserved and not yet pulled comes back when the leases end, as for any other job.
    await until(
      async () => {
        const jobs = await client.reserve({ queues: [queue], mode, maxJobs: 100, waitMs: 1_000 });
        got.push(...jobs.map(({ id }) => id));
        return isEmpty();
      },
      { what: "every job to be handed out", withinMs: 30_000 },
    );
    expect(got.filter((id, i) => got.indexOf(id) !== i)).toEqual([]);
    // Lost are at most those on their way to the four callers.
    expect(got.length).toBeGreaterThanOrEqual(500 - 4 * 3);
  });
});
