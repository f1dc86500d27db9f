/** What becomes of a worker's jobs when it stops, or its stream or broker goes, on real brokers and under load. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { BatonClient, JobAborted, Worker, type WorkerOptions } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until, within } from "../support/wait.ts";

let broker: TestBroker;
let other: TestBroker;
let client: BatonClient;
const workers: Worker[] = [];
const cleanUps: (() => Promise<void> | void)[] = [];

beforeAll(async () => {
  broker = await startBroker();
  other = await startBroker({ redis: broker.redis });
  client = new BatonClient({ address: broker.address });
});

afterAll(async () => {
  client.close();
  await other.stop();
  await broker.stop();
});

afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.stop({ timeoutMs: 0 })));
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

function work(options: WorkerOptions, on = client): Worker {
  const worker = new Worker(on, options);
  workers.push(worker);
  return worker;
}

function clientOf(address: string | readonly string[]): BatonClient {
  const own = new BatonClient({ address });
  cleanUps.push(() => own.close());
  return own;
}

async function put(queue: string, count: number): Promise<void> {
  for (let from = 0; from < count; from += 1_000) {
    const ids = Array.from({ length: Math.min(1_000, count - from) }, (_, n) => String(from + n));
    await client.putMany(ids.map((id) => ({ queue, id })));
  }
}

/** Every job of the queue in this state. */
async function jobsIn(queue: string, state: "READY" | "COMPLETED" | "RESERVED" | "RETRYING") {
  const jobs = [];
  for await (const job of client.listAll(queue, state, { pageSize: 1_000 })) jobs.push(job);
  return jobs;
}

async function untilCompleted(queue: string, count: number): Promise<void> {
  await until(async () => (await client.queues.get(queue)).counts.completed === count, {
    what: `all ${count} jobs to be completed`,
    withinMs: 30_000,
  });
}

/** A handler that works until it is told to finish, and says whether it was left alone. */
function patient() {
  const finish = Promise.withResolvers<void>();
  const handler: WorkerOptions["handler"] = async (_job, { signal }) => {
    await finish.promise;
    return signal.aborted ? "aborted" : "kept";
  };
  return { handler, finish: () => finish.resolve() };
}

describe("Worker.stop()", () => {
  it("leaves no failed attempt behind, with thousands of jobs ready and the fastest of handlers", async () => {
    const count = 5_000;
    await put("deploy", count);
    for (let stops = 1; stops <= 5; stops++) {
      let done = 0;
      const worker = work({
        queues: ["deploy"],
        concurrency: 100,
        disconnectGraceMs: 100,
        handler: () => void done++,
      });
      await worker.start();
      await until(() => done >= 150, { what: "some jobs" });
      await worker.stop();
      // What was being reserved for it when it left is given back as soon as Redis has answered: it may not have by now.
      const counts = await until(
        async () => {
          const queue = await client.queues.get("deploy");
          return queue.counts.reserved === 0 && queue.counts;
        },
        { what: "what was on its way to the worker to be given back", withinMs: 2_000 },
      );
      expect(counts).toMatchObject({ retrying: 0, failed: 0 });
      expect(counts.ready + counts.completed).toBe(count);
      if (counts.ready === 0) break;
    }
    const ready = await jobsIn("deploy", "READY");
    expect(ready.filter(({ failures }) => failures > 0)).toEqual([]);
    const completed = await jobsIn("deploy", "COMPLETED");
    expect(completed.length).toBeGreaterThanOrEqual(300);
    expect(completed.filter(({ failures }) => failures > 0)).toEqual([]);
  }, 40_000);

  it("keeps the lease of a job that it lets finish, and still hears at once that another was cancelled", async () => {
    const { handler, finish } = patient();
    await put("last", 2);
    const reason = Promise.withResolvers<unknown>();
    const worker = work({
      queues: ["last"],
      concurrency: 2,
      leaseMs: 1_000,
      handler: (job, context) => {
        const { signal } = context;
        if (job.id === "1") signal.addEventListener("abort", () => reason.resolve(signal.reason), { once: true });
        return handler(job, context);
      },
    });
    await worker.start();
    await until(async () => (await jobsIn("last", "RESERVED")).length === 2, { what: "both jobs to run" });
    const stopped = worker.stop();
    const stoppedAt = performance.now();
    await until(() => performance.now() > stoppedAt + 1_500, { what: "longer than a lease" });
    await client.cancel("last", "1");
    const aborted = await within(reason.promise, { what: "the signal" });
    expect(aborted).toBeInstanceOf(JobAborted);
    expect(aborted).toMatchObject({ reason: "CANCELLED" });
    finish();
    await within(stopped, { what: "the worker to stop" });
    const kept = await client.get("last", "0");
    expect(kept).toMatchObject({ state: "COMPLETED", attempt: 1, failures: 0 });
    expect(kept.result?.text()).toBe("kept");
  });

  it("comes after exactly maxJobs, however many are ready", async () => {
    await put("some", 500);
    for (const [runs, maxJobs, concurrency] of [
      [1, 1, 10],
      [2, 37, 10],
      [3, 60, 60],
    ] as const) {
      const seen: string[] = [];
      const worker = work({ queues: ["some"], maxJobs, concurrency, handler: ({ id }) => void seen.push(id) });
      await worker.start();
      await within(worker.closed, { what: `worker ${runs} to stop by itself` });
      expect(seen).toHaveLength(maxJobs);
    }
    const ready = await jobsIn("some", "READY");
    expect(ready).toHaveLength(500 - 98);
    // Nothing was handed out that was not run.
    expect(ready.filter(({ attempt }) => attempt > 0)).toEqual([]);
  });
});

describe("A worker that loses its stream", () => {
  it("keeps the leases of its jobs by itself for as long as it gets no other", async () => {
    const crowded = await startBroker({ redis: broker.redis, maxStreams: 1 });
    cleanUps.push(() => crowded.stop());
    const proxy = await startTcpProxy(crowded.address);
    cleanUps.push(() => proxy.stop());
    const { handler, finish } = patient();
    const errors: unknown[] = [];
    const own = clientOf(`127.0.0.1:${proxy.port}`);
    const worker = work({ queues: ["long"], disconnectGraceMs: 300, onError: (e) => errors.push(e), handler }, own);
    await worker.start();
    await put("long", 1);
    await until(async () => (await jobsIn("long", "RESERVED")).length === 1, { what: "the job to run" });
    const usurper = clientOf(crowded.address);
    const abort = new AbortController();
    cleanUps.push(() => abort.abort());
    const isTaken = until(
      async () => {
        const events = usurper.subscribe({ queues: ["nothing"] }, { signal: abort.signal });
        return (await events.next()).value?.type === "started";
      },
      { what: "its place to be taken" },
    );
    proxy.cut();
    await isTaken;
    await until(() => errors.some((error) => String(error).includes("stream")), { what: "a refusal" });
    const lostAt = performance.now();
    await until(() => performance.now() > lostAt + 1_500, { what: "much longer than the grace" });
    finish();
    await untilCompleted("long", 1);
    const done = await client.get("long", "0");
    expect(done).toMatchObject({ attempt: 1, failures: 0 });
    expect(done.result?.text()).toBe("kept");
  });

  it("loses no job and no release, however often it breaks, and runs none twice but as another attempt", async () => {
    const proxies = [await startTcpProxy(broker.address), await startTcpProxy(other.address)];
    for (const proxy of proxies) cleanUps.push(() => proxy.stop());
    const own = clientOf(proxies.map(({ port }) => `127.0.0.1:${port}`));
    const runs: string[] = [];
    const released: string[] = [];
    const count = 4_000;
    const worker = work(
      {
        queues: ["breaks"],
        concurrency: 200,
        disconnectGraceMs: 1_000,
        maxReconnectDelayMs: 100,
        onError: () => {},
        onReleased: ({ id, attempt }) => released.push(`${id}/${attempt}`),
        handler: async ({ id, attempt }) => {
          runs.push(`${id}/${attempt}`);
          await new Promise((resolve) => setTimeout(resolve, 10));
        },
      },
      own,
    );
    await worker.start();
    await put("breaks", count);
    for (let breaks = 1; breaks <= 8; breaks++) {
      await until(() => released.length >= breaks * 400, { what: "some of the work", withinMs: 15_000 });
      for (const proxy of proxies) proxy.cut();
    }
    await untilCompleted("breaks", count);
    await worker.stop();
    expect(new Set(runs).size).toBe(runs.length);
    expect(new Set(released).size).toBe(released.length);
    expect(new Set(released.map((one) => one.split("/")[0])).size).toBe(count);
  }, 60_000);

  it("goes over to the other broker when its own drains under load: all jobs run once", async () => {
    const leaving = await startBroker({ redis: broker.redis, drainGraceMs: 10_000 });
    cleanUps.push(() => leaving.stop());
    const own = clientOf([leaving.address, other.address]);
    const runs: string[] = [];
    const errors: unknown[] = [];
    const count = 3_000;
    await put("drained", count);
    const crew = [1, 2, 3].map(() =>
      work(
        {
          queues: ["drained"],
          concurrency: 20,
          onError: (error) => errors.push(error),
          handler: async ({ id, attempt }, { signal }) => {
            await new Promise((resolve) => setTimeout(resolve, 5));
            runs.push(`${id}/${attempt}${signal.aborted ? " aborted" : ""}`);
          },
        },
        own,
      ),
    );
    await Promise.all(crew.map((worker) => worker.start()));
    await until(() => runs.length >= 500, { what: "some of the work" });
    await within(leaving.server.drain(), { what: "the drain", withinMs: 12_000 });
    await untilCompleted("drained", count);
    expect(runs.sort()).toEqual(Array.from({ length: count }, (_, n) => `${n}/1`).sort());
    expect(errors).toEqual([]);
  }, 60_000);
});

describe("A handler", () => {
  it("shows how far it has come while its job runs", async () => {
    const { handler, finish } = patient();
    const worker = work({
      queues: ["far"],
      handler: (job, context) => {
        context.progress(40, "page 4 of 10");
        return handler(job, context);
      },
    });
    await worker.start();
    await put("far", 1);
    const shown = await until(
      async () => {
        const job = (await client.get("far", "0")).toJSON() as { progress?: unknown };
        return job.progress;
      },
      { what: "the job's progress" },
    );
    expect(shown).toMatchObject({ percent: 40, note: "page 4 of 10" });
    finish();
    await untilCompleted("far", 1);
  });

  it("whose result is larger than any message fails its own job only", async () => {
    const errors: unknown[] = [];
    const worker = work({
      queues: ["huge"],
      concurrency: 10,
      onError: (_error, { during, job }) => errors.push([during, job?.id]),
      handler: ({ id }) => (id === "5" ? "x".repeat(20 * 1024 * 1024) : "small"),
    });
    await worker.start();
    await put("huge", 10);
    await untilCompleted("huge", 9);
    await until(async () => (await client.get("huge", "5")).state === "FAILED", { what: "the job to have failed" });
    expect(await client.get("huge", "5")).toMatchObject({ error: { type: "RESULT_REFUSED" }, attempt: 1 });
    expect(errors).toEqual([["release", "5"]]);
  });

  it("is never given more bytes at once than the worker takes", async () => {
    const megabyte = "x".repeat(1024 * 1024);
    await client.putMany(Array.from({ length: 12 }, (_, n) => ({ queue: "bytes", id: String(n), payload: megabyte })));
    const { handler, finish } = patient();
    let running = 0;
    const options = { queues: ["bytes"], concurrency: 12, maxOutstandingBytes: 4 * 1024 * 1024 };
    const worker = work({
      ...options,
      handler: (job, context) => {
        running++;
        return handler(job, context);
      },
    });
    await worker.start();
    await until(() => running >= 3, { what: "the jobs that fit" });
    await put("marker", 1);
    await client.reserve({ queues: ["marker"] });
    expect(running).toBe(3);
    finish();
    await untilCompleted("bytes", 12);
  });
});
