/** What is reported of a job's progress, as the client reports and shows it. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BatonClient, type JobEvent } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { within } from "../support/wait.ts";

describe("progress that a worker reports", () => {
  let redis: TestRedis;
  let brokers: TestBroker[];
  let client: BatonClient;
  let other: BatonClient;
  let queue: string;
  let count = 0;

  beforeAll(async () => {
    redis = await startRedis();
    brokers = [await startBroker({ redis }), await startBroker({ redis })];
    [client, other] = brokers.map(({ address }) => new BatonClient({ address })) as [BatonClient, BatonClient];
  });

  afterAll(async () => {
    client.close();
    other.close();
    for (const broker of brokers) await broker.stop();
    await redis.stop();
  });

  beforeEach(() => {
    count += 1;
    queue = `q${count}`;
  });

  async function reserved(id = "job"): Promise<string> {
    await client.put({ queue, id });
    const [job] = await client.reserve({ queues: [queue], workerId: "worker" });
    return job?.leaseToken ?? "";
  }

  it("is shown by get and list at every broker, while the job runs", async () => {
    const leaseToken = await reserved();
    expect((await client.get(queue, "job")).progress).toBeUndefined();
    await client.reportProgress(leaseToken, 40, "page 4 of 10");
    const shown = await other.get(queue, "job");
    const progress = { percent: 40, note: "page 4 of 10", reportedAt: expect.any(Date) };
    expect(shown.progress).toEqual(progress);
    expect(shown.progress?.reportedAt.getTime()).toBeGreaterThanOrEqual(shown.reservedAt?.getTime() ?? Number.NaN);
    expect((await other.list(queue, "RESERVED")).items.map((job) => job.progress)).toEqual([progress]);
    expect(JSON.parse(JSON.stringify(shown)).progress).toMatchObject({ percent: 40, note: "page 4 of 10" });
    await other.reportProgress(leaseToken, 50);
    expect((await client.get(queue, "job")).progress).toMatchObject({ percent: 50, note: "" });
    await client.release(leaseToken, { outcome: "failed", message: "x", retryAfterMs: 0 });
    expect((await client.get(queue, "job")).progress).toBeUndefined();
    await client.reserve({ queues: [queue] });
    expect((await client.get(queue, "job")).progress, "of the next attempt nothing is known").toBeUndefined();
  });

  it("is an event of its own for who watches, in its place among the others", async () => {
    const watched: JobEvent[] = [];
    const controller = new AbortController();
    const started = Promise.withResolvers<void>();
    const watching = (async () => {
      for await (const event of other.watch({ queues: [queue] }, { signal: controller.signal })) {
        if (event.type === "started") started.resolve();
        if (event.type === "event") watched.push(event);
        if (watched.at(-1)?.transition === "complete") return;
      }
    })();
    await within(started.promise, { what: "the stream" });
    const leaseToken = await reserved();
    await client.reportProgress(leaseToken, 0);
    await client.reportProgress(leaseToken, 100, "näarly\n\u0000 done");
    await client.release(leaseToken, { outcome: "completed" });
    await within(watching, { what: "the last event" }).finally(() => controller.abort());
    expect(watched.map(({ transition }) => transition)).toEqual(["put", "reserve", "report", "report", "complete"]);
    const [, , first, second] = watched;
    const common = { state: "RESERVED", workerId: "worker", attempt: 1, runAt: undefined };
    expect(first).toMatchObject({ ...common, progress: { percent: 0, note: "" } });
    expect(second).toMatchObject({ ...common, progress: { percent: 100, note: "näarly\n\u0000 done" } });
    expect(second?.progress?.reportedAt).toEqual(second?.occurredAt);
    expect(watched.filter(({ progress }) => progress).length).toBe(2);
  });

  it("does not end an await", async () => {
    const leaseToken = await reserved();
    const answers: string[] = [];
    const awaiting = other.await(queue, "job", { timeoutMs: 10_000 }).then(({ state }) => answers.push(state));
    for (const percent of [10, 100]) await client.reportProgress(leaseToken, percent, "done");
    await expect(client.await(queue, "job", { timeoutMs: 0 })).rejects.toMatchObject({ reason: "AWAIT_TIMEOUT" });
    expect(answers).toEqual([]);
    await client.release(leaseToken, { outcome: "completed" });
    await within(awaiting, { what: "the job's end" });
    expect(answers).toEqual(["COMPLETED"]);
  });

  it("is refused when the lease is lost, and when it is not as the contract says", async () => {
    const leaseToken = await reserved();
    await expect(client.reportProgress(leaseToken, 101)).rejects.toMatchObject({ reason: "BAD_REQUEST" });
    await client.cancel(queue, "job");
    await expect(client.reportProgress(leaseToken, 1)).rejects.toMatchObject({ reason: "LEASE_LOST" });
  });
});
