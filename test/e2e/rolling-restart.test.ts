/**
 * Three brokers on one Redis that are restarted one after the other while everybody works: clients that repeat what may be
 * repeated see nothing of it.
 */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient, Worker } from "../../src/client/index.ts";
import { until, within } from "../support/wait.ts";
import { Fleet } from "./fleet.ts";
import { Load } from "./load.ts";
import type { Program } from "./program.ts";
import { Python, python } from "./python.ts";

const SERVICE_CONFIG = fileURLToPath(new URL("../../examples/service-config.json", import.meta.url));
const PRODUCER = fileURLToPath(new URL("producer.py", import.meta.url));

const QUEUE = "rolling";
const WORKERS = 4;
/** Jobs that are run between two restarts. */
const JOBS_BETWEEN = 40;
/** A call that met a restart has been repeated by then. */
const SLOWEST_MS = 5_000;
const DRAIN_GRACE_MS = 10_000;
/** A worker may find the draining broker once more, and is then asked to wait for a second. */
const END_WITHIN_MS = 5_000;

/** What the Python producer says of itself. */
type Report = {
  readonly put: number;
  /** Which gRPC did not repeat. */
  readonly repeated: readonly string[];
  readonly errors: readonly string[];
  readonly slowest: number;
};

const NO_REPORT: Report = { put: 0, repeated: [], errors: [], slowest: 0 };

describe.concurrent("brokers that are restarted one after the other", { timeout: 120_000 }, () => {
  let programs: Python | undefined;

  beforeAll(async () => {
    if (python) programs = await Python.withStubs();
  });

  afterAll(() => programs?.[Symbol.asyncDispose]());

  async function startProducer(addresses: readonly string[]): Promise<Program | undefined> {
    const producer = programs?.run([PRODUCER, SERVICE_CONFIG, addresses.join(), QUEUE]);
    await producer?.saw("started");
    return producer;
  }

  async function endProducer(producer: Program | undefined): Promise<Report> {
    if (producer === undefined) return NO_REPORT;
    producer.child.kill("SIGTERM");
    const { code, stdout, stderr } = await within(producer.ended, { what: "the producer to end", withinMs: 30_000 });
    if (code !== 0) throw new Error(`the producer ended with ${code}: ${stderr}`);
    return JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
  }

  /** What clients and workers saw of it, after every job was run. */
  async function restartAll(fleet: Fleet, end: (address: string) => Promise<void>) {
    const { addresses } = fleet;
    await fleet.start(...addresses);
    const load = new Load({ addresses, queue: QUEUE, workers: WORKERS, leaseMs: 3_000 });
    const producer = await startProducer(addresses);
    try {
      await load.start();
      for (const address of addresses) {
        await load.goesOn(JOBS_BETWEEN);
        await end(address);
        await load.goesOn(JOBS_BETWEEN);
        await fleet.start(address);
      }
      await load.goesOn(JOBS_BETWEEN);
      const report = await endProducer(producer);
      await load.settle();
      await load.reachesEachWorker();
      const { totals } = await load.client.queues.get(QUEUE);
      return { load, report, totals };
    } finally {
      await load.stop();
    }
  }

  it("with SIGTERM: no client sees an error, and every job is put once and run once", async () => {
    await using fleet = await Fleet.of(3, "--drain-grace", `${DRAIN_GRACE_MS}ms`);
    let longestEndMs = 0;
    const { load, report, totals } = await restartAll(fleet, async (address) => {
      const begun = performance.now();
      fleet.broker(address).terminate();
      expect(await fleet.broker(address).waitForEnd()).toMatchObject({ code: 0, signal: null });
      longestEndMs = Math.max(longestEndMs, performance.now() - begun);
    });
    expect(load.errors).toEqual([]);
    expect([...report.errors, ...report.repeated]).toEqual([]);
    // A worker that was told to go may come to the same broker once more.
    expect(load.streamErrors.filter((error) => !error.includes("DRAINING"))).toEqual([]);
    expect(totals).toMatchObject({ put: load.put + report.put, completed: load.runs.size, failed: 0 });
    expect(load.runs.size).toBe(load.put + report.put);
    expect([...load.runs.values()].filter((attempts) => attempts.join() !== "1")).toEqual([]);
    expect(load.slowestMs).toBeLessThan(SLOWEST_MS);
    expect(report.slowest * 1_000).toBeLessThan(SLOWEST_MS);
    // Its workers went elsewhere; it did not wait for its grace.
    expect(longestEndMs).toBeLessThan(END_WITHIN_MS);
  });

  it("with SIGKILL: nothing is lost or refused, and what runs twice has a higher attempt", async () => {
    await using fleet = await Fleet.of(3);
    const { load, report, totals } = await restartAll(fleet, (address) => fleet.broker(address).kill());
    expect(load.errors).toEqual([]);
    expect(report.errors).toEqual([]);
    expect(totals).toMatchObject({ put: load.put + report.put, completed: load.runs.size });
    expect(load.runs.size).toBe(load.put + report.put);
    for (const [id, attempts] of load.runs) {
      const rising = [...new Set(attempts)].sort((one, other) => one - other);
      expect(attempts, `attempts of ${id}`).toEqual(rising);
    }
  });

  it("end at once though their workers have long jobs: these go over to another broker, and run on", async () => {
    await using fleet = await Fleet.of(3, "--drain-grace", "30s");
    const { addresses } = fleet;
    await fleet.start(...addresses);
    const client = new BatonClient({ address: addresses });
    const finish = Promise.withResolvers<void>();
    const errors: unknown[] = [];
    const running = new Set<string>();
    const workers = Array.from(
      { length: WORKERS },
      () =>
        new Worker(client, {
          queues: ["long"],
          concurrency: 2,
          leaseMs: 5_000,
          handler: async ({ id }, { signal }) => {
            running.add(id);
            signal.addEventListener("abort", () => errors.push(`${id}: ${signal.reason}`));
            await finish.promise;
          },
          onError: (error, { during }) => during !== "stream" && errors.push(error),
        }),
    );
    try {
      await Promise.all(workers.map((worker) => worker.start()));
      const ids = Array.from({ length: WORKERS * 2 }, (_, n) => `${n}`);
      await client.putMany(ids.map((id) => ({ queue: "long", id })));
      await until(() => running.size === ids.length, { what: "all jobs to run" });
      for (const address of addresses) {
        const begun = performance.now();
        fleet.broker(address).terminate();
        expect(await fleet.broker(address).waitForEnd()).toMatchObject({ code: 0, signal: null });
        expect(performance.now() - begun).toBeLessThan(END_WITHIN_MS);
        await fleet.start(address);
      }
      finish.resolve();
      const done = await Promise.all(ids.map((id) => client.await("long", id)));
      expect(done.filter(({ state, attempt }) => state !== "COMPLETED" || attempt !== 1)).toEqual([]);
      expect(errors).toEqual([]);
    } finally {
      finish.resolve();
      await Promise.all(workers.map((worker) => worker.stop({ timeoutMs: 1_000 })));
      client.close();
    }
  });
});
