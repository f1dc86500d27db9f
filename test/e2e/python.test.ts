/** The Python worker of examples/ at one broker: what its description promises. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { RawClient } from "../rpc/raw-client.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { freeAddress } from "../support/ports.ts";
import { startRedis } from "../support/redis.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until, within } from "../support/wait.ts";
import { numbered } from "./brokers.ts";
import { followEvents } from "./events.ts";
import type { Program } from "./program.ts";
import { begun, Python, python } from "./python.ts";

describe.skipIf(!python)("the Python worker", { timeout: 60_000, concurrent: true }, () => {
  let broker: TestBroker;
  let client: BatonClient;
  let raw: RawClient;
  let programs: Python;
  const proxies: TcpProxy[] = [];

  beforeAll(async () => {
    programs = await Python.withStubs();
    broker = await startBroker();
    client = new BatonClient({ address: broker.address });
    raw = new RawClient(broker.address);
  });

  afterAll(async () => {
    await programs?.[Symbol.asyncDispose]();
    await Promise.all(proxies.map((proxy) => proxy.stop()));
    client?.close();
    raw?.close();
    await broker?.stop();
  });

  const startWorker = (queue: string, ...options: string[]) => programs.worker(queue, broker.address, ...options);

  /** A worker whose connection goes through a proxy. */
  async function startProxied(queue: string, ...options: string[]): Promise<{ proxy: TcpProxy; worker: Program }> {
    const proxy = await startTcpProxy(broker.address);
    proxies.push(proxy);
    return { proxy, worker: await programs.worker(queue, proxy.address, ...options) };
  }

  function stateOf(queue: string, id: string, state: string) {
    const isSo = async () => (await client.get(queue, id)).state === state;
    return until(isSo, { what: `${id} to be ${state}`, withinMs: 15_000 });
  }

  const connections = (worker: Program) => worker.output().split("connected to ").length - 1;

  it("completes jobs with results, and fails those whose handler throws", async () => {
    const events = await followEvents(broker.redis.socketPath, "words");
    await startWorker("words", "--worker-id", "snake");
    await client.putMany([
      { queue: "words", id: "two", payload: "hello wörld" },
      { queue: "words", id: "none", payload: "", retry: { maxAttempts: 1 } },
      { queue: "words", id: "again", payload: "", retry: { initialBackoffMs: 3_600_000 } },
    ]);
    await until(() => events.seen.length === 2, { what: "two completion events" });
    events.stop();
    const event = (id: string) => events.seen.find((seen) => seen.id === id);
    expect(event("two")).toMatchObject({ state: "COMPLETED", workerId: "snake", result: { text: "2 words" } });
    const error = { type: "ValueError", message: "there is no text to count", permanent: false };
    expect(event("none")).toMatchObject({ state: "FAILED", error });
    expect((await client.get("words", "two")).result?.text()).toBe("2 words");
    expect(await client.get("words", "none")).toMatchObject({ state: "FAILED", error });
    await stateOf("words", "again", "RETRYING");
    expect(await client.get("words", "again")).toMatchObject({ failures: 1, error });
  });

  it("fails a job whose handler does something odd, and goes on", async () => {
    const odd = `
if job.id == "exit": sys.exit(3)
if job.id == "number": return 7
if job.id == "huge": return "x" * 4_000_000
if job.id == "wordy": raise ValueError("\\ud800" * 100_000)
return "fine"`;
    await programs.workerThat(odd, "odd", broker.address, "--concurrency", "1");
    const ids = ["exit", "number", "huge", "wordy"];
    await client.putMany(ids.map((id) => ({ queue: "odd", id, retry: { maxAttempts: 1 } })));
    await client.put({ queue: "odd", id: "plain" });
    await stateOf("odd", "plain", "COMPLETED");
    const errors = await Promise.all(ids.map(async (id) => (await client.get("odd", id)).error));
    expect(errors.map((error) => error?.type)).toEqual(["SystemExit", "TypeError", "ResultRefused", "ValueError"]);
    expect(errors[2]?.message).toContain("must be at most");
    expect(errors[3]?.message).toMatch(/^\?{4000}$/);
  });

  it("completes hundreds of jobs, each once", async () => {
    const events = await followEvents(broker.redis.socketPath, "crowd");
    const ids = numbered(300);
    await client.putMany(ids.map((id) => ({ queue: "crowd", id, payload: id })));
    await startWorker("crowd", "--concurrency", "8");
    await until(() => events.seen.length >= ids.length, { what: "all events", withinMs: 15_000 });
    events.stop();
    expect(new Set(events.seen.map(({ id }) => id)).size).toBe(ids.length);
    expect(events.seen.every(({ state, attempt }) => state === "COMPLETED" && attempt === 1)).toBe(true);
  });

  it("shows how far a job has come", async () => {
    await startWorker("slow");
    await client.put({ queue: "slow", id: "1", payload: "x", headers: { seconds: "2" } });
    const progress = async () => (await raw.good("get", { queue: "slow", id: "1" })).job?.progress;
    const half = async () => {
      const seen = await progress();
      return seen?.percent === 50 && seen;
    };
    const { note } = await until(half, { what: "half of the job to be done" });
    expect(note).toBe("step 6 of 10");
    await stateOf("slow", "1", "COMPLETED");
    expect(await progress()).toBeUndefined();
  });

  it("lets a handler know that its job was cancelled, drops what it did, and takes the next", async () => {
    const worker = await startWorker("cancelled", "--concurrency", "1");
    await client.put({ queue: "cancelled", id: "long", payload: "x", headers: { seconds: "600" } });
    await worker.saw("cancelled long: attempt 1");
    await raw.good("cancel", { queue: "cancelled", id: "long", message: "too dear" });
    await worker.saw("cancelled long: REVOKED_REASON_CANCELLED");
    // Its only thread is free again.
    await client.put({ queue: "cancelled", id: "next", payload: "x" });
    await stateOf("cancelled", "next", "COMPLETED");
    const error = { type: "CANCELLED", message: "too dear" };
    expect(await client.get("cancelled", "long")).toMatchObject({ state: "FAILED", attempt: 1, error });
  });

  it("gives its jobs to the next worker after the grace, when it is killed", async () => {
    const first = await startWorker("killed", "--worker-id", "first", "--grace", "1");
    await client.put({ queue: "killed", id: "1", payload: "a b c", headers: { seconds: "2" } });
    await first.saw("killed 1: attempt 1");
    const killedAt = Date.now();
    await first.kill();
    await startWorker("killed", "--worker-id", "second");
    await until(async () => (await client.get("killed", "1")).workerId === "second", { what: "the second worker" });
    const taken = await client.get("killed", "1");
    expect(taken).toMatchObject({ state: "RESERVED", attempt: 2, failures: 1 });
    // The grace ran, and not the lease of 30 s.
    const afterMs = (taken.reservedAt?.getTime() ?? 0) - killedAt;
    expect(afterMs).toBeGreaterThanOrEqual(900);
    expect(afterMs).toBeLessThan(10_000);
    await stateOf("killed", "1", "COMPLETED");
    expect((await client.get("killed", "1")).result?.text()).toBe("3 words");
  });

  it("finishes what it has on SIGTERM, and takes no more", async () => {
    const worker = await startWorker("stopped", "--concurrency", "1");
    await client.put({ queue: "stopped", id: "1", payload: "x", headers: { seconds: "1" } });
    await client.put({ queue: "stopped", id: "2", payload: "x" });
    await worker.saw("stopped 1: attempt 1");
    worker.child.kill("SIGTERM");
    expect(await within(worker.ended, { what: "the worker to end" })).toMatchObject({ code: 0, signal: null });
    expect((await client.get("stopped", "1")).state).toBe("COMPLETED");
    expect(await client.get("stopped", "2")).toMatchObject({ state: "READY", attempt: 0 });
  });

  it("leaves no trace on jobs that it has not begun, when SIGTERM comes with thousands of them ready", async () => {
    const queue = "full";
    const howMany = 3_000;
    for (const hundreds of [0, 1_000, 2_000]) {
      await client.putMany(numbered(1_000).map((id) => ({ queue, id: `${hundreds + Number(id)}`, payload: id })));
    }
    const worker = await startWorker(queue, "--concurrency", "16");
    const counts = async () => (await client.queues.get(queue)).counts;
    await until(async () => (await counts()).completed > 100, { what: "some jobs to be done" });
    worker.child.kill("SIGTERM");
    expect(await within(worker.ended, { what: "the worker to end" })).toMatchObject({ code: 0, signal: null });
    const { completed, ready, ...others } = await counts();
    expect(ready).toBeGreaterThan(0);
    expect(completed + ready).toBe(howMany);
    expect(others).toEqual({ scheduled: 0, held: 0, reserved: 0, retrying: 0, failed: 0 });
    let untouched = 0;
    for (let pageToken: string | undefined; pageToken !== ""; ) {
      const page = await raw.good("list", { queue, state: 2, pageSize: 1_000, pageToken: pageToken ?? "" });
      untouched += page.jobs.filter(({ attempt, failures }) => attempt === 0 && failures === 0).length;
      pageToken = page.nextPageToken;
    }
    expect(untouched).toBe(ready);
    expect(Object.keys(begun(worker)).length).toBe(completed);
  });

  it("ends at once on a second SIGTERM, and when there is nothing to do", async () => {
    const worker = await startWorker("impatient", "--grace", "0");
    await client.put({ queue: "impatient", id: "1", payload: "x", headers: { seconds: "600" } });
    await worker.saw("impatient 1: attempt 1");
    worker.child.kill("SIGTERM");
    await worker.saw("takes no more jobs, and has 1 in hand");
    worker.child.kill("SIGTERM");
    expect(await within(worker.ended, { what: "the worker to end" })).toMatchObject({ signal: "SIGTERM" });
    await stateOf("impatient", "1", "READY");
    const idle = await startWorker("idle");
    idle.child.kill("SIGINT");
    expect(await within(idle.ended, { what: "the idle worker to end" })).toMatchObject({ code: 0, signal: null });
  });

  it("says what it was told, and ends with an error, where trying again is of no use", async () => {
    const worker = programs.run(["-c", "import worker; worker.main()", "no queue", "--addr", broker.address]);
    expect(await within(worker.ended, { what: "the worker to end", withinMs: 10_000 })).toMatchObject({ code: 1 });
    expect(worker.output()).toContain("start.queues[0].name");
  });

  it("resumes the jobs that it runs when its connection is cut, and runs nothing twice", async () => {
    const { proxy, worker } = await startProxied("cut", "--concurrency", "4", "--grace", "20");
    const ids = numbered(12);
    await client.putMany(ids.map((id) => ({ queue: "cut", id, payload: id, headers: { seconds: "0.7" } })));
    for (let times = 1; times <= 3; times++) {
      // With all its credit used, no job is on its way: one that is lost on it would come back after the grace.
      await until(() => connections(worker) === times && Object.keys(begun(worker)).length === times * 4, {
        what: `connection ${times}, and jobs on it`,
      });
      proxy.cut();
    }
    for (const id of ids) await stateOf("cut", id, "COMPLETED");
    expect(connections(worker)).toBe(4);
    expect(begun(worker)).toEqual(Object.fromEntries(ids.map((id) => [id, 1])));
    for (const id of ids) expect(await client.get("cut", id)).toMatchObject({ attempt: 1, failures: 0 });
  });

  it("repeats a release whose answer was lost, which completes the job once", async () => {
    const events = await followEvents(broker.redis.socketPath, "lost");
    const { proxy, worker } = await startProxied("lost", "--grace", "20");
    await client.put({ queue: "lost", id: "1", payload: "a b", headers: { seconds: "1" } });
    await worker.saw("lost 1: attempt 1");
    proxy.lose("replies");
    await stateOf("lost", "1", "COMPLETED");
    expect(worker.output()).not.toContain("lost 1: completed");
    proxy.cut();
    await worker.saw("lost 1: completed, now COMPLETED");
    events.stop();
    expect(events.seen.map(({ id, attempt }) => `${id} ${attempt}`)).toEqual(["1 1"]);
    expect(connections(worker)).toBe(2);
  });

  it("repeats a release that Redis was not there for", async () => {
    const redis = await startRedis({ appendonly: true, appendfsync: "always" });
    const alone = await startBroker({ redis });
    const toAlone = new BatonClient({ address: alone.address });
    try {
      const worker = await programs.worker("away", alone.address);
      await toAlone.put({ queue: "away", id: "1", payload: "x", headers: { seconds: "0.5" } });
      await worker.saw("away 1: attempt 1");
      await redis.kill();
      await worker.saw("away 1: not released yet: ");
      await redis.restart();
      await worker.saw("away 1: completed, now COMPLETED");
      expect(await toAlone.get("away", "1")).toMatchObject({ state: "COMPLETED", attempt: 1 });
      expect(connections(worker)).toBe(1);
    } finally {
      toAlone.close();
      await alone.stop();
      await redis.stop();
    }
  });

  it("has no more jobs of a queue of mode SIMPLE than its threads can run soon, and loses none on SIGTERM", async () => {
    const queue = "simple";
    await client.queues.update(queue, { mode: "SIMPLE" });
    const payload = "x".repeat(100_000);
    const ids = numbered(300);
    for (const id of ids) await client.put({ queue, id, payload, headers: { seconds: "0.1" } });
    const worker = await startWorker(queue, "--concurrency", "8");
    const done = () => worker.output().split("completed, now COMPLETED").length - 1;
    await until(() => done() >= 20, { what: "some jobs to be done" });
    worker.child.kill("SIGTERM");
    expect(await within(worker.ended, { what: "the worker to end", withinMs: 15_000 })).toMatchObject({ code: 0 });
    const { ready, reserved } = (await client.queues.get(queue)).counts;
    expect(ready).toBeGreaterThan(ids.length / 2);
    expect([reserved, done()]).toEqual([0, ids.length - ready]);
  });

  it("resumes the jobs that have a lease, though with those of a queue of mode SIMPLE they are more than its threads", async () => {
    await client.queues.update("mixed-simple", { mode: "SIMPLE" });
    const proxy = await startTcpProxy(broker.address);
    proxies.push(proxy);
    const start = "import worker; worker.main()";
    const options = ["--addr", proxy.address, "--concurrency", "2"];
    const worker = programs.run(["-c", start, "mixed-simple", "mixed", ...options]);
    const put = (queue: string, id: string) => ({ queue, id, payload: "x", headers: { seconds: "2" } });
    await client.put(put("mixed-simple", "1"));
    await worker.saw("mixed-simple 1: attempt 1");
    await client.putMany([put("mixed", "2"), put("mixed", "3")]);
    await until(async () => (await client.queues.get("mixed")).counts.reserved === 2, { what: "both to be reserved" });
    await worker.saw("mixed 2: attempt 1");
    proxy.cut();
    await worker.saw("mixed-simple 1: completed, now COMPLETED");
    for (const id of ["2", "3"]) await stateOf("mixed", id, "COMPLETED");
    expect(begun(worker)).toEqual({ 1: 1, 2: 1, 3: 1 });
    expect(connections(worker)).toBe(2);
  });

  it("leaves a stream on which the broker says nothing any more, and takes its jobs along", async () => {
    const proxy = await startTcpProxy(broker.address);
    proxies.push(proxy);
    const impatient = "import worker; worker.SILENCE_S = 2; worker.main()";
    const worker = programs.run(["-c", impatient, "silent", "--addr", proxy.address, "--concurrency", "1"]);
    await client.put({ queue: "silent", id: "1", payload: "x", headers: { seconds: "12" } });
    await worker.saw("silent 1: attempt 1");
    proxy.stall();
    await worker.saw("has said nothing for 2 s");
    await worker.saw("silent 1: completed, now COMPLETED");
    expect(connections(worker)).toBeGreaterThan(1);
    expect(await client.get("silent", "1")).toMatchObject({ state: "COMPLETED", attempt: 1 });
  });

  it("keeps its number of threads, however often its streams break", async () => {
    const threads = `return str(len([thread.name for thread in __import__("threading").enumerate()]))`;
    const proxy = await startTcpProxy(broker.address);
    proxies.push(proxy);
    const worker = await programs.workerThat(threads, "threads", proxy.address, "--concurrency", "1");
    const count = async (id: string) => {
      await client.put({ queue: "threads", id });
      await stateOf("threads", id, "COMPLETED");
      return Number((await client.get("threads", id)).result?.text());
    };
    const before = await count("before");
    for (let times = 1; times <= 5; times++) {
      await until(() => connections(worker) === times, { what: `connection ${times}` });
      proxy.cut();
    }
    await until(() => connections(worker) === 6, { what: "the last connection" });
    expect(await count("after")).toBe(before);
  });

  it("stays with a broker that drains until its job is done, and goes on when another takes its place", async () => {
    const grpcAddr = await freeAddress();
    const first = await startBroker({ redis: broker.redis, grpcAddr });
    let next: TestBroker | undefined;
    try {
      const worker = await programs.worker("moved", grpcAddr);
      await client.put({ queue: "moved", id: "held", payload: "x", headers: { seconds: "1" } });
      await worker.saw("moved held: attempt 1");
      await first.server.drain();
      expect(worker.output()).toContain("is draining");
      await worker.saw("moved held: completed, now COMPLETED");
      next = await startBroker({ redis: broker.redis, grpcAddr });
      await client.put({ queue: "moved", id: "later", payload: "x y" });
      await stateOf("moved", "later", "COMPLETED");
      expect(await client.get("moved", "held")).toMatchObject({ state: "COMPLETED", attempt: 1 });
    } finally {
      await first.stop();
      await next?.stop();
    }
  });
});
