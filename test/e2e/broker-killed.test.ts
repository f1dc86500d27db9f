/** A broker that dies under its workers, which go over to another one and resume what they are running. */
import { describe, expect, it } from "vitest";
import { ms } from "../rpc/fixture.ts";
import { until } from "../support/wait.ts";
import { deliveries, each, numbered, twoBrokers } from "./brokers.ts";
import { KINDS } from "./worker-of-a-kind.ts";
import { startWorkerProcess } from "./worker-process.ts";

const LEASE_MS = 2_000;
/** A renewal leaves so much of it at least. */
const LEFT_MS = (LEASE_MS * 2) / 3 - 500;
const SLACK_MS = 5_000;

describe.concurrent("a broker that is killed with -9 while its workers run jobs", { timeout: 60_000 }, () => {
  const brokers = twoBrokers();

  it.each(KINDS)("%s: those that are resumed go on, the others come back after the lease", async (kind) => {
    await using scene = brokers.scene();
    const doomed = await brokers.another();
    const ids = numbered(10);
    const [resumed, left] = [ids.slice(0, 5), ids.slice(5)];
    const start = { maxOutstanding: 10, leaseDuration: ms(LEASE_MS) };
    const first = await scene.worker(kind, doomed.address, start);
    await scene.put(ids);
    await first.got(10);
    await doomed.kill();
    const killedAt = performance.now();
    expect(await first.ended).toBe("UNAVAILABLE");

    const resumeLeaseTokens = first.tokens.slice(0, 5);
    const next = await scene.worker(kind, brokers.addresses[1], { ...start, resumeLeaseTokens });
    await next.got(5);
    expect(next.lastJobAt - killedAt).toBeGreaterThanOrEqual(LEFT_MS);
    expect(next.lastJobAt - killedAt).toBeLessThan(LEASE_MS + SLACK_MS);
    expect(await next.release(first.jobs)).toEqual([
      ...resumed.map(() => "COMPLETED"),
      ...left.map(() => "LEASE_LOST"),
    ]);
    expect(await next.release(next.jobs)).toEqual(left.map(() => "COMPLETED"));
    expect(next.revoked.size).toBe(0);
    expect(deliveries(first, next)).toEqual({ ...each(resumed, [1]), ...each(left, [1, 2]) });
    expect(await scene.completed()).toEqual({ ...each(resumed, 1), ...each(left, 2) });
  });

  it("the TypeScript worker goes over to the other one, its handlers notice nothing, and no job runs twice", async () => {
    await using scene = brokers.scene();
    const doomed = await brokers.another();
    const ids = numbered(10);
    await scene.put(ids);
    const balancer = await scene.proxy(doomed.address);
    const worker = startWorkerProcess({
      ...{ kind: "Worker", address: balancer.address, queue: scene.queue, concurrency: 11, leaseMs: LEASE_MS },
    });
    try {
      await worker.ran(10);
      balancer.redirect(brokers.addresses[1]);
      await doomed.kill();
      // It is at work again, and keeps its old jobs for longer than their leases were.
      await scene.put(["after"]);
      await worker.ran(11);
      await scene.renewed("0", 3);
      worker.finish();
      await until(() => worker.lines("released").length === 11, { what: "every release", withinMs: 20_000 });
      const all = [...ids, "after"];
      expect(worker.lines("aborted")).toEqual([]);
      expect(deliveries({ jobs: worker.lines("run") })).toEqual(each(all, [1]));
      expect(await scene.completed()).toEqual(each(all, 1));
    } finally {
      await worker.kill();
    }
  });

  it("under load: every job is completed, and one that runs twice does so with a higher attempt", async () => {
    await using scene = brokers.scene();
    const doomed = await brokers.another();
    const ids = numbered(600);
    const balancer = await scene.proxy(doomed.address);
    const task = { address: balancer.address, queue: scene.queue, concurrency: 10, leaseMs: LEASE_MS, runMs: 50 };
    const workers = [1, 2].map(() => startWorkerProcess({ kind: "Worker", ...task }));
    try {
      await scene.put(ids);
      await Promise.all(workers.map((worker) => worker.ran(50)));
      balancer.redirect(brokers.addresses[1]);
      await doomed.kill();
      const done = async () => Object.keys(await scene.completed()).length === ids.length;
      await until(done, { what: "every job to be completed", withinMs: 30_000 });
      const runs = deliveries({ jobs: workers.flatMap((worker) => worker.lines("run")) });
      expect(Object.keys(runs).sort()).toEqual([...ids].sort());
      for (const attempts of Object.values(runs)) expect(new Set(attempts).size).toBe(attempts.length);
      // What was completed is what ran last.
      const last = Object.entries(runs).map(([id, attempts]) => [id, Math.max(...attempts)]);
      expect(await scene.completed()).toEqual(Object.fromEntries(last));
    } finally {
      await Promise.all(workers.map((worker) => worker.kill()));
    }
  });
});
