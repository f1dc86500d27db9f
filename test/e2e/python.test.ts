/** The Python worker of examples/, on stubs that README's command generates from proto/, against a real broker. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { tool } from "../support/tools.ts";
import { until, within } from "../support/wait.ts";
import { followEvents } from "./events.ts";
import { type Program, runProgram, startProgram } from "./program.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const WORKER = join(ROOT, "examples/python/worker.py");
const python = tool("python") ?? "";

describe.skipIf(!python)("the Python worker", () => {
  let broker: TestBroker;
  let client: BatonClient;
  let stubs: string;
  const workers: Program[] = [];

  beforeAll(async () => {
    stubs = await mkdtemp(join(tmpdir(), "baton-python-"));
    const generated = await runProgram("sh", ["-c", await generateCommand(stubs)], {
      cwd: ROOT,
      env: { PATH: `${dirname(python)}${delimiter}${process.env.PATH}` },
    });
    expect(generated).toMatchObject({ code: 0 });
    broker = await startBroker();
    client = new BatonClient({ address: broker.address });
  });

  afterEach(async () => {
    for (const worker of workers.splice(0)) await worker.kill();
  });

  afterAll(async () => {
    client?.close();
    await broker?.stop();
    await rm(stubs, { recursive: true, force: true });
  });

  /** README's line, with the stubs going to a folder of the test's own. */
  async function generateCommand(folder: string): Promise<string> {
    const readme = await readFile(join(ROOT, "README.md"), "utf8");
    const line = /^python -m grpc_tools\.protoc .*$/m.exec(readme)?.[0];
    if (line === undefined) throw new Error("README does not say how to generate Python's stubs");
    return line.replaceAll("_out=examples/python", `_out=${folder}`);
  }

  async function startWorker(queue: string, ...options: string[]): Promise<Program> {
    const args = [WORKER, queue, "--addr", broker.address, ...options];
    const worker = startProgram(python, args, { env: { PYTHONPATH: stubs, PYTHONDONTWRITEBYTECODE: "1" } });
    workers.push(worker);
    await worker.saw("subscribed as ");
    return worker;
  }

  function stateOf(queue: string, id: string, state: string) {
    return until(async () => (await client.get(queue, id)).state === state, { what: `${id} to be ${state}` });
  }

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

  it("completes hundreds of jobs, each once", async () => {
    const events = await followEvents(broker.redis.socketPath, "crowd");
    const ids = Array.from({ length: 300 }, (_, index) => `job-${index}`);
    await client.putMany(ids.map((id) => ({ queue: "crowd", id, payload: id })));
    await startWorker("crowd", "--concurrency", "8");
    await until(() => events.seen.length >= ids.length, { what: "all events", withinMs: 15_000 });
    events.stop();
    expect(new Set(events.seen.map(({ id }) => id)).size).toBe(ids.length);
    expect(events.seen.every(({ state, attempt }) => state === "COMPLETED" && attempt === 1)).toBe(true);
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

  it("goes on by itself when its broker drains and another takes its place", async () => {
    const worker = await startWorker("moved");
    await client.put({ queue: "moved", id: "held", payload: "x", headers: { seconds: "1" } });
    await worker.saw("moved held: attempt 1");
    await broker.server.drain();
    expect(worker.output()).toContain("the broker shuts down");
    await worker.saw("moved held: completed, now COMPLETED");
    const next = await startBroker({ redis: broker.redis, grpcAddr: broker.address });
    try {
      await client.put({ queue: "moved", id: "later", payload: "x y" });
      await stateOf("moved", "later", "COMPLETED");
      expect(await client.get("moved", "held")).toMatchObject({ state: "COMPLETED", attempt: 1 });
    } finally {
      await next.stop();
    }
  });
});
