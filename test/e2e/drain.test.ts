/** SIGTERM, as a deployment sends it: workers may finish, nothing new is handed out, and the process ends by itself. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until, within } from "../support/wait.ts";
import { type BrokerProcess, startBrokerProcess } from "./broker-process.ts";
import { startProgram } from "./program.ts";
import { RawClient, subscribeAndNeverRead } from "./raw-client.ts";
import { openStream } from "./worker-stream.ts";

describe("a broker that gets SIGTERM", { timeout: 60_000 }, () => {
  let redis: TestRedis;
  let broker: BrokerProcess;
  let client: BatonClient;
  let raw: RawClient;
  /** A second broker on the same Redis, through which the test looks at the jobs. */
  let other: TestBroker;
  let observer: BatonClient;

  beforeEach(async () => {
    redis = await startRedis();
    broker = await startBrokerProcess("--redis-url", redis.url, "--drain-grace", "15s");
    client = new BatonClient({ address: broker.address });
    raw = new RawClient(broker.address);
    other = await startBroker({ redis });
    observer = new BatonClient({ address: other.address });
  });

  afterEach(async () => {
    for (const one of [client, raw, observer]) one?.close();
    await broker?.kill();
    await other?.stop();
    await redis?.stop();
  });

  it("exits with 0 at once when no worker holds a job, and ends the idle streams", async () => {
    const stream = await openStream(client, { queues: ["idle"] });
    broker.terminate();
    expect(await broker.waitForEnd()).toMatchObject({ code: 0, signal: null });
    expect(stream.events.at(-1)).toEqual({ type: "draining", graceMs: 15_000 });
    expect(await stream.ended).toBeUndefined();
  });

  it("lets a worker finish its job, tells it to, and hands out nothing more", async () => {
    await client.put({ queue: "work", id: "held" });
    const stream = await openStream(client, { queues: ["work"], maxOutstanding: 5 });
    const held = await stream.got("held");

    broker.terminate();
    await stream.saw("draining");
    await observer.put({ queue: "work", id: "later" });
    await until(async () => (await raw.health()) === "NOT_SERVING", { what: "the health to change" });
    expect(await raw.health("baton.v1.JobService")).toBe("NOT_SERVING");
    const refused = { code: "UNAVAILABLE", reason: "DRAINING", retryAfterMs: expect.any(Number) };
    await expect(client.reserve({ queues: ["work"] }, { repeatForMs: 0 })).rejects.toMatchObject(refused);
    await expect(client.subscribe({ queues: ["work"] }).next()).rejects.toMatchObject(refused);
    // What needs no new reservation goes on.
    expect(await client.put({ queue: "work", id: "put" })).toMatchObject({ created: true });
    expect(await client.release(held.leaseToken, { outcome: "completed" })).toMatchObject({ state: "COMPLETED" });

    expect(await broker.waitForEnd()).toMatchObject({ code: 0, signal: null });
    expect(await stream.ended).toBeUndefined();
    expect(stream.jobs()).toHaveLength(1);
    expect(await observer.get("work", "held")).toMatchObject({ state: "COMPLETED", attempt: 1 });
    expect(await observer.get("work", "later")).toMatchObject({ state: "READY", attempt: 0 });
    expect(await observer.get("work", "put")).toMatchObject({ state: "READY", attempt: 0 });
  });

  it("ends a Reserve that waits with DRAINING, so that its caller asks another broker", async () => {
    const waiting = client.reserve({ queues: ["wait"], waitMs: 30_000 }, { repeatForMs: 0 });
    const refused = expect(waiting).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "DRAINING" });
    // The broker listens for it as soon as it waits.
    await client.put({ queue: "listening" });
    broker.terminate();
    await refused;
    expect(await broker.waitForEnd()).toMatchObject({ code: 0 });
  });

  it("gives jobs that a slow worker has not taken back at once, as if they had never been handed out", async () => {
    const ids = Array.from({ length: 60 }, (_, index) => `job-${index}`);
    const payload = "x".repeat(400_000);
    for (const id of ids) await client.put({ queue: "slow", id, payload });
    const session = subscribeAndNeverRead(broker.address, { queues: [{ name: "slow" }], maxOutstanding: 60 });
    const reserved = async () => {
      const jobs = await Promise.all(ids.map((id) => observer.get("slow", id)));
      return jobs.filter(({ state }) => state === "RESERVED").map(({ id }) => id);
    };
    // Until the broker has one batch on its way to the worker, which does not read, and the next one at hand.
    let before = await reserved();
    await until(
      async () => {
        const now = await reserved();
        const isSteady = now.length > 0 && now.length === before.length;
        before = now;
        return isSteady;
      },
      { what: "the broker to hand out what it can", withinMs: 15_000 },
    );
    expect(before.length).toBeLessThan(ids.length);

    broker.terminate();
    await until(async () => (await reserved()).length < before.length, { what: "the jobs to come back" });
    const after = new Set(await reserved());
    expect(after.size).toBeGreaterThan(0);
    for (const id of before.filter((one) => !after.has(one))) {
      expect(await observer.get("slow", id)).toMatchObject({ state: "READY", attempt: 0, failures: 0 });
    }
    session.destroy();
    expect(await broker.waitForEnd()).toMatchObject({ code: 0 });
  });

  it("cuts the streams after its grace, and what they held comes back after theirs", async () => {
    const hasty = await startBrokerProcess("--redis-url", redis.url, "--drain-grace", "500ms");
    const hastyClient = new BatonClient({ address: hasty.address });
    try {
      await client.put({ queue: "hung", id: "1" });
      const stream = await openStream(hastyClient, { queues: ["hung"], disconnectGraceMs: 500 });
      await stream.got("1");
      hasty.terminate();
      expect(await hasty.waitForEnd()).toMatchObject({ code: 0, signal: null });
      await stream.ended;
      const isBack = async () => (await observer.get("hung", "1")).state === "READY";
      await until(isBack, { what: "the job to come back", withinMs: 10_000 });
      expect(await observer.get("hung", "1")).toMatchObject({ attempt: 1, failures: 1 });
    } finally {
      hastyClient.close();
      await hasty.kill();
    }
  });

  it("ends at once on a second signal, and the job that a worker held comes back when its lease ends", async () => {
    await client.put({ queue: "twice", id: "1" });
    const stream = await openStream(client, { queues: ["twice"], leaseMs: 1_000 });
    await stream.got("1");
    broker.terminate();
    await stream.saw("draining");
    broker.terminate();
    const ended = await within(broker.ended, { what: "the broker to end at once", withinMs: 3_000 });
    expect(ended.code).toBe(143);
    const isBack = async () => (await observer.get("twice", "1")).state === "READY";
    await until(isBack, { what: "the lease to end", withinMs: 10_000 });
  });
});

describe("a broker that is told to stop", () => {
  const ROOT = fileURLToPath(new URL("../../", import.meta.url));
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "baton-stop-"));
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it("through npm drains too, and npm ends with it", async () => {
    const npm = startProgram("npm", ["start", "--", "--grpc-addr", "127.0.0.1:0", "--data-dir", folder], {
      cwd: ROOT,
      group: true,
    });
    try {
      await npm.saw("baton ready");
      npm.child.kill("SIGTERM");
      expect(await within(npm.ended, { what: "npm to end", withinMs: 15_000 })).toMatchObject({ code: 0 });
      expect(npm.output()).toContain("stopped");
    } finally {
      await npm.kill();
    }
  });

  it("by the end of its terminal drains, and takes its Redis with it", async () => {
    const broker = await startBrokerProcess("--data-dir", folder);
    try {
      broker.child.kill("SIGHUP");
      expect(await broker.waitForEnd()).toMatchObject({ code: 0, signal: null });
      expect(() => process.kill(broker.redisPid ?? 0, 0)).toThrow("ESRCH");
    } finally {
      await broker.kill();
    }
  });

  it("while it starts ends at once", async () => {
    const address = "redis://127.0.0.1:1";
    const broker = startProgram(process.execPath, [
      join(ROOT, "src/cli/baton.js"),
      ...["serve", "--grpc-addr", "127.0.0.1:0", "--redis-url", address, "--redis-connect-timeout", "60s"],
    ]);
    try {
      await broker.saw("ECONNREFUSED");
      broker.child.kill("SIGTERM");
      expect(await within(broker.ended, { what: "the broker to end", withinMs: 5_000 })).toMatchObject({ code: 0 });
      expect(broker.output()).toContain("stopped before it was ready");
    } finally {
      await broker.kill();
    }
  });
});
