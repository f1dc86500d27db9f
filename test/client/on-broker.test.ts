import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { BatonClient, JobAborted, PermanentError, Worker, type WorkerOptions } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until, within } from "../support/wait.ts";

let broker: TestBroker;
let client: BatonClient;
const workers: Worker[] = [];

beforeAll(async () => {
  broker = await startBroker();
  client = new BatonClient({ address: broker.address });
});

afterAll(async () => {
  client.close();
  await broker.stop();
});

afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.stop({ timeoutMs: 0 })));
});

function work(options: WorkerOptions, on = client): Worker {
  const worker = new Worker(on, options);
  workers.push(worker);
  return worker;
}

async function inState(queue: string, id: string, state: string) {
  return await until(
    async () => {
      const job = await client.get(queue, id);
      return job.state === state ? job : undefined;
    },
    { what: `job ${id} to be ${state}` },
  );
}

describe("BatonClient on a broker", () => {
  it("takes a job from put to a result, and shows it", async () => {
    const put = await client.put({
      queue: "life",
      payload: { json: { to: "ann" } },
      headers: { tenant: "acme" },
      priority: 3,
    });
    expect(put).toMatchObject({ created: true, state: "READY" });
    const [job] = await client.reserve({ queues: ["life"], workerId: "w1" });
    expect(job).toMatchObject({ id: put.jobId, attempt: 1, failures: 0, priority: 3, headers: { tenant: "acme" } });
    expect(job?.payload.json()).toEqual({ to: "ann" });
    expect(job?.payload.contentType).toBe("application/json");
    const token = job?.leaseToken ?? "";
    const [extended] = await client.extend([token], { leaseMs: 60_000 });
    expect(extended?.ok && extended.value.getTime() > (job?.leaseExpiresAt?.getTime() ?? 0)).toBe(true);
    const result = new Uint8Array([0, 255, 1]);
    expect(await client.release(token, { outcome: "completed", result })).toMatchObject({ state: "COMPLETED" });
    expect(await client.release(token, { outcome: "completed" })).toMatchObject({ state: "COMPLETED" });
    const shown = await client.get("life", put.jobId);
    expect(shown).toMatchObject({ state: "COMPLETED", workerId: "w1", attempt: 1, error: undefined });
    expect([...(shown.result?.bytes() ?? [])]).toEqual([0, 255, 1]);
    expect(shown.putAt).toBeInstanceOf(Date);
    expect(await client.delete("life", put.jobId)).toMatchObject({ deleted: true, previousState: "COMPLETED" });
    await expect(client.get("life", put.jobId)).rejects.toMatchObject({ code: "NOT_FOUND", reason: "JOB_NOT_FOUND" });
  });

  it("says which job of a batch is bad and why, and puts the others", async () => {
    const results = await client.putMany([
      { queue: "batch", id: "a", payload: "1" },
      { queue: "no spaces", payload: "2" },
      { queue: "batch", id: "a" },
      { queue: "batch", priority: 10 },
    ]);
    expect(results.map((result) => (result.ok ? result.value.state : result.error.reason))).toEqual([
      "READY",
      "BAD_REQUEST",
      "JOB_EXISTS",
      "BAD_REQUEST",
    ]);
    expect(results[3]).toMatchObject({ error: { violations: [{ field: expect.stringContaining("priority") }] } });
  });

  it("keeps, rejects or replaces a job whose id is taken", async () => {
    const job = { queue: "conflict", id: "ä/1", payload: "first" };
    await client.put(job);
    await expect(client.put(job)).rejects.toMatchObject({
      reason: "JOB_EXISTS",
      metadata: { state: expect.any(String) },
    });
    expect(await client.put({ ...job, onConflict: "KEEP" })).toMatchObject({ created: false });
    await client.put({ ...job, payload: "second", onConflict: "REPLACE" });
    expect((await client.get("conflict", "ä/1")).payload.text()).toBe("second");
  });

  it("delays and retries as it was told", async () => {
    const { jobId, state } = await client.put({ queue: "later", delayMs: 3_600_000 });
    expect(state).toBe("SCHEDULED");
    const { runAt } = await client.get("later", jobId);
    expect(Math.abs((runAt?.getTime() ?? 0) - Date.now() - 3_600_000)).toBeLessThan(60_000);
    await client.put({ queue: "again", id: "1", retry: { initialBackoffMs: 3_600_000, jitter: 0 } });
    const [job] = await client.reserve({ queues: ["again"] });
    const released = await client.release(job?.leaseToken ?? "", { outcome: "failed", message: "no", type: "X" });
    expect(released).toMatchObject({ state: "RETRYING", runAt: expect.any(Date) });
    expect(await client.get("again", "1")).toMatchObject({ failures: 1, error: { message: "no", type: "X" } });
  });

  it("waits for a job with a long poll", async () => {
    const waiting = client.reserve({ queues: ["poll"], waitMs: 10_000 });
    await client.put({ queue: "poll", id: "1" });
    expect((await waiting).map(({ id }) => id)).toEqual(["1"]);
  });
});

describe("Worker on a broker", () => {
  it("runs a thousand jobs once each", async () => {
    const seen: string[] = [];
    const worker = work({
      queues: ["many"],
      concurrency: 50,
      handler: (job) => {
        seen.push(job.id);
      },
    });
    await worker.start();
    const ids = Array.from({ length: 1_000 }, (_, n) => `job-${n}`);
    await client.putMany(ids.map((id) => ({ queue: "many", id })));
    await until(() => seen.length >= 1_000, { what: "a thousand jobs", withinMs: 15_000 });
    await worker.stop();
    expect(new Set(seen).size).toBe(1_000);
    expect(seen).toHaveLength(1_000);
    for (const id of ["job-0", "job-999"]) expect((await client.get("many", id)).state).toBe("COMPLETED");
  });

  it("makes of a failure a retry, and of a permanent one a dead letter", async () => {
    const retry = { initialBackoffMs: 0 };
    await client.putMany([
      { queue: "fail", id: "twice", retry },
      { queue: "fail", id: "never", retry },
    ]);
    const worker = work({
      queues: ["fail"],
      handler: (job) => {
        if (job.id === "never") throw new PermanentError("hopeless", { type: "HOPELESS" });
        if (job.failures === 0) throw new Error("once");
        return `attempt ${job.attempt}`;
      },
    });
    await worker.start();
    expect((await inState("fail", "twice", "COMPLETED")).result?.text()).toBe("attempt 2");
    const error = { message: "hopeless", type: "HOPELESS", permanent: true };
    expect(await inState("fail", "never", "FAILED")).toMatchObject({ error, failures: 1 });
  });

  it("tells the handler at once when its job is deleted", async () => {
    await client.put({ queue: "gone", id: "1" });
    const reason = Promise.withResolvers<unknown>();
    const worker = work({
      queues: ["gone"],
      handler: async (_job, { signal }) => {
        await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
        reason.resolve(signal.reason);
      },
    });
    await worker.start();
    await inState("gone", "1", "RESERVED");
    await client.delete("gone", "1");
    const aborted = await within(reason.promise, { what: "the signal" });
    expect(aborted).toBeInstanceOf(JobAborted);
    expect(aborted).toMatchObject({ reason: "DELETED" });
  });

  it("goes over to another broker when its own drains, and loses nothing", async () => {
    const one = await startBroker({ redis: broker.redis, drainGraceMs: 5_000 });
    const port = one.address.split(":")[1];
    const own = new BatonClient({ address: one.address });
    let done = 0;
    const worker = work({ queues: ["move"], concurrency: 4, onError: () => {}, handler: () => void done++ }, own);
    await worker.start();
    await client.put({ queue: "move", id: "before" });
    await until(() => done === 1, { what: "the first job" });
    await within(one.server.drain(), { what: "the drain", withinMs: 8_000 });
    const two = await startBroker({ redis: broker.redis, grpcAddr: `127.0.0.1:${port}` });
    await client.put({ queue: "move", id: "after" });
    await until(() => done === 2, { what: "the second job", withinMs: 10_000 });
    await worker.stop();
    own.close();
    await two.stop();
    await one.stop();
  });
});
