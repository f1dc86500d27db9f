/**
 * What the network does to workers, with a proxy between one of them and its broker, and another worker at a second broker
 * that takes what comes back. Each test says which jobs were delivered twice, and that none was lost.
 */
import { describe, expect, it } from "vitest";
import { ms } from "../rpc/fixture.ts";
import type { TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/wait.ts";
import { WorkStream } from "../support/work-stream.ts";
import { deliveries, each, numbered, type Scene, twoBrokers } from "./brokers.ts";
import { KINDS, outcomeOf, type WorkerOfAKind } from "./worker-of-a-kind.ts";
import { startWorkerProcess } from "./worker-process.ts";

const KEEPALIVE_INTERVAL_MS = 300;
/** Longer than a busy machine lets a live connection wait. */
const KEEPALIVE_TIMEOUT_MS = 1_000;
const GRACE_MS = 500;
const SLACK_MS = 4_000;

const brokers = twoBrokers(
  ...["--keepalive-interval", `${KEEPALIVE_INTERVAL_MS}ms`],
  ...["--keepalive-timeout", `${KEEPALIVE_TIMEOUT_MS}ms`],
);

const IDS = numbered(10);
const [RELEASED, KEPT] = [IDS.slice(0, 5), IDS.slice(5)];

const COMPLETED = IDS.map(() => "COMPLETED");

/** Every case for both kinds of streams. */
const forBoth = <T extends object>(cases: readonly T[]) =>
  KINDS.flatMap((kind) => cases.map((it) => ({ kind, ...it })));

/** A worker behind a proxy with all ten jobs in hand, and another one that waits for them at the other broker. */
async function tenInHand(scene: Scene, kind: (typeof KINDS)[number]) {
  const proxy = await scene.proxy();
  const first = await scene.worker(kind, proxy.address, { maxOutstanding: 10, disconnectGrace: ms(GRACE_MS) });
  await scene.put(IDS);
  await first.got(10);
  const next = await scene.worker(kind, brokers.addresses[1], { maxOutstanding: 10 });
  return { proxy, first, next };
}

/** What the worker can do with these leases by calls of their own, on a new connection. */
async function repeatRelease({ jobs }: WorkerOfAKind): Promise<string[]> {
  const { results } = await brokers.clients[0].good("releaseMany", {
    releases: jobs.map(({ leaseToken }) => ({ leaseToken, outcome: { case: "completed", value: {} } })),
  });
  return results.map(({ result }) => outcomeOf(result));
}

describe.concurrent("a connection on which nothing comes any more, and nobody says so", { timeout: 40_000 }, () => {
  type Break = { what: string; arrives?: boolean; heals?: boolean; breaks(proxy: TcpProxy): void };
  const BREAKS: readonly Break[] = [
    { what: "stalls both ways", heals: true, breaks: (proxy) => proxy.stall() },
    { what: "loses what the worker says", breaks: (proxy) => proxy.lose("requests") },
    { what: "loses what the broker says", arrives: true, breaks: (proxy) => proxy.lose("replies") },
    {
      what: "loses all",
      breaks(proxy) {
        proxy.lose("requests");
        proxy.lose("replies");
      },
    },
  ];

  it.each(forBoth(BREAKS))("$kind: one that $what is found out, and its jobs go to others", async (it) => {
    await using scene = brokers.scene();
    const { proxy, first, next } = await tenInHand(scene, it.kind);
    it.breaks(proxy);
    const brokenAt = performance.now();
    const unanswered = first.release(first.jobs.slice(0, 5)).catch(() => "no answer");
    // Those releases that do arrive count, although nobody hears of it.
    const back = it.arrives ? KEPT : IDS;
    await next.got(back.length);
    const tookMs = next.lastJobAt - brokenAt;
    expect(tookMs).toBeGreaterThanOrEqual(GRACE_MS);
    expect(tookMs).toBeLessThan(KEEPALIVE_INTERVAL_MS + KEEPALIVE_TIMEOUT_MS + GRACE_MS + SLACK_MS);

    if (it.heals) {
      proxy.resume();
      expect(await unanswered).toBe("no answer");
      expect(await first.ended).toBe("UNAVAILABLE");
    }
    const late = await repeatRelease(first);
    expect(late).toEqual(first.jobs.map(({ id }) => (back.includes(id) ? "LEASE_LOST" : "COMPLETED")));
    expect(await scene.reserved()).toEqual(each(back, 2));
    expect(await next.release(next.jobs)).toEqual(back.map(() => "COMPLETED"));

    expect(deliveries(first, next)).toEqual({ ...each(IDS, [1]), ...each(back, [1, 2]) });
    expect(await scene.completed()).toEqual({ ...each(IDS, 1), ...each(back, 2) });
  });
});

describe.concurrent("a worker whose connection breaks and that resumes at another broker", { timeout: 40_000 }, () => {
  const ENDS: readonly { how: string; ends(proxy: TcpProxy): void }[] = [
    { how: "by a FIN", ends: (proxy) => proxy.cut() },
    { how: "by a RST", ends: (proxy) => proxy.cut({ reset: true }) },
    { how: "by its keepalive", ends: () => {} },
  ];

  it.each(forBoth(ENDS))("$kind: keeps its jobs, when the first broker learns of it $how", async (it) => {
    await using scene = brokers.scene();
    const { proxy, first, next } = await tenInHand(scene, it.kind);
    proxy.lose("requests");
    proxy.lose("replies");
    const leaseDuration = ms(3_000);
    const resumed = await scene.worker(it.kind, brokers.addresses[1], {
      ...{ maxOutstanding: 10, resumeLeaseTokens: first.tokens, leaseDuration, disconnectGrace: ms(GRACE_MS) },
    });
    it.ends(proxy);
    // Renewals go on for longer than the first broker needs to find out, and the jobs are run on.
    await scene.renewed("0", 3);
    expect(resumed.revoked.size).toBe(0);
    expect(await scene.reserved()).toEqual(each(IDS, 1));
    expect(await resumed.release(first.jobs)).toEqual(COMPLETED);

    expect(deliveries(first, resumed, next)).toEqual(each(IDS, [1]));
    expect(await scene.completed()).toEqual(each(IDS, 1));
  });

  it("the TypeScript worker: runs each job once, when the first broker learns of it last", async () => {
    await using scene = brokers.scene();
    const proxy = await scene.proxy();
    await scene.put(IDS);
    const worker = startWorkerProcess({
      ...{ kind: "Worker", address: proxy.address, queue: scene.queue, concurrency: 10, leaseMs: 3_000 },
    });
    try {
      await worker.ran(10);
      const next = await scene.worker("Work", brokers.addresses[0], { maxOutstanding: 10 });
      // The worker sees its connection end, and goes to the other broker; the first one hears nothing.
      proxy.lose("requests");
      proxy.redirect(brokers.addresses[1]);
      proxy.halfClose("replies");
      await scene.renewed("0", 3);
      worker.finish();
      await until(() => worker.lines("released").length === 10, { what: "every release", withinMs: 15_000 });
      expect(worker.lines("aborted")).toEqual([]);
      expect(deliveries({ jobs: worker.lines("run") }, next)).toEqual(each(IDS, [1]));
      expect(await scene.completed()).toEqual(each(IDS, 1));
    } finally {
      await worker.kill();
    }
  });
});

describe.concurrent("a worker that closes one side", { timeout: 40_000 }, () => {
  it("of its Work stream gets its answers, and what it did not release comes back after the grace", async () => {
    await using scene = brokers.scene();
    await scene.put(IDS);
    const stream = await WorkStream.open(brokers.addresses[0], {
      ...{ queues: [{ name: scene.queue }], maxOutstanding: 10, disconnectGrace: ms(GRACE_MS) },
    });
    try {
      const jobs = await stream.got(10);
      const next = await scene.worker("Work", brokers.addresses[1], { maxOutstanding: 10 });
      const sequences = stream.complete(...jobs.slice(0, 5));
      stream.finish();
      const closedAt = performance.now();
      expect((await stream.answered(sequences)).map(outcomeOf)).toEqual(COMPLETED.slice(0, 5));
      expect(await stream.ended).toMatchObject({ code: "OK" });
      await next.got(5);
      expect(next.lastJobAt - closedAt).toBeGreaterThanOrEqual(GRACE_MS);
      expect(await next.release(next.jobs)).toEqual(COMPLETED.slice(0, 5));
      expect(deliveries({ jobs }, next)).toEqual({ ...each(RELEASED, [1]), ...each(KEPT, [1, 2]) });
      expect(await scene.completed()).toEqual({ ...each(RELEASED, 1), ...each(KEPT, 2) });
    } finally {
      stream.close();
    }
  });

  const SIDES = [
    { side: "requests", whose: "the worker's" },
    { side: "replies", whose: "the broker's" },
  ] as const;

  it.each(forBoth(SIDES))("$kind: of a connection ($whose) loses it, and its jobs go to others", async (it) => {
    await using scene = brokers.scene();
    const { proxy, first, next } = await tenInHand(scene, it.kind);
    expect(await first.release(first.jobs.slice(0, 5))).toEqual(COMPLETED.slice(0, 5));
    proxy.halfClose(it.side);
    const closedAt = performance.now();
    expect(await first.ended).not.toBe("OK");
    await next.got(5);
    expect(next.lastJobAt - closedAt).toBeGreaterThanOrEqual(GRACE_MS);
    expect(next.lastJobAt - closedAt).toBeLessThan(GRACE_MS + SLACK_MS);
    expect(await next.release(next.jobs)).toEqual(COMPLETED.slice(0, 5));
    expect(deliveries(first, next)).toEqual({ ...each(RELEASED, [1]), ...each(KEPT, [1, 2]) });
    expect(await scene.completed()).toEqual({ ...each(RELEASED, 1), ...each(KEPT, 2) });
  });
});

describe.concurrent("a worker", { timeout: 40_000 }, () => {
  const CREDIT = 50;

  it.each(KINDS)("%s: at the end of a slow link gets its jobs, within its credit, and loses none", async (kind) => {
    await using scene = brokers.scene();
    const proxy = await scene.proxy();
    proxy.delay(200);
    const worker = await scene.worker(kind, proxy.address, { maxOutstanding: CREDIT, leaseDuration: ms(1_000) });
    const ids = numbered(300);
    await scene.put(ids);
    await worker.got(CREDIT);
    await scene.renewed("0", 2);
    const answers: Promise<string[]>[] = [];
    for (let released = 0; released < ids.length; ) {
      await worker.got(released + 1);
      const jobs = worker.jobs.slice(released);
      released += jobs.length;
      answers.push(worker.release(jobs));
    }
    expect((await Promise.all(answers)).flat()).toEqual(ids.map(() => "COMPLETED"));
    expect(worker.mostInHand).toBe(CREDIT);
    expect(worker.revoked.size).toBe(0);
    expect(deliveries(worker)).toEqual(each(ids, [1]));
    expect(await scene.completed()).toEqual(each(ids, 1));
  });

  it.each(KINDS)("%s: whose job's run_timeout is over is told, and the job is handed out again", async (kind) => {
    await using scene = brokers.scene();
    const worker = await scene.worker(kind, brokers.addresses[0], { maxOutstanding: 1 });
    await scene.put(["hung"], { runTimeout: ms(1_500) });
    const [hung] = await worker.got(1);
    if (!hung) throw new Error("there is no job");
    expect(await worker.lost(hung)).toMatchObject({ reason: "RUN_TIMEOUT" });
    // Its stream lives, and has its credit back.
    const [, again] = await worker.got(2);
    expect(await worker.release([hung, again ?? hung])).toEqual(["LEASE_LOST", "COMPLETED"]);
    expect(deliveries(worker)).toEqual({ hung: [1, 2] });
    expect(await scene.completed()).toEqual({ hung: 2 });
  });
});
