import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until, within } from "../support/wait.ts";
import { cli, type Running, startCli } from "./run-cli.ts";

let broker: TestBroker;
let client: BatonClient;
let redis: Redis;

beforeAll(async () => {
  broker = await startBroker();
  client = new BatonClient({ address: broker.address });
  redis = new Redis(broker.redis.socketPath);
});

afterAll(async () => {
  client.close();
  redis.disconnect();
  await broker.stop();
});

const env = () => ({ BATON_ADDR: broker.address });
const baton = (...args: string[]) => cli(args, { env: env() });

async function finish(queue: string, result: string | Uint8Array): Promise<void> {
  const [job] = await client.reserve({ queues: [queue] });
  await client.release(job?.leaseToken ?? "", { outcome: "completed", result });
}

/** SIGINT as a terminal sends it; the process must end by itself, with nothing left that keeps it. */
async function interrupt(running: Running) {
  running.child.kill("SIGINT");
  try {
    return await within(running.finished, { what: "the command to end after SIGINT", withinMs: 3_000 });
  } finally {
    running.child.kill("SIGKILL");
  }
}

describe("baton await", () => {
  it("waits for the job and writes its result byte for byte, also when it was done before", async () => {
    await client.put({ queue: "await", id: "1" });
    const waiting = startCli(["await", "await", "1"], { env: env() });
    await finish("await", "done\nwell");
    expect(await within(waiting.finished, { what: "the result", withinMs: 10_000 })).toMatchObject({
      code: 0,
      stdout: "done\nwell",
      stderr: "",
    });
    expect((await baton("await", "await", "1")).stdout).toBe("done\nwell");
    expect(JSON.parse((await baton("await", "await", "1", "--json")).stdout)).toMatchObject({
      state: "JOB_STATE_COMPLETED",
      result: { text: "done\nwell" },
    });
  });

  it("exits with 1 and the error when the job failed, is not there, or takes too long", async () => {
    await client.put({ queue: "sad", id: "1" });
    const [job] = await client.reserve({ queues: ["sad"] });
    expect(await baton("await", "sad", "1", "--wait", "50ms")).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringContaining("AWAIT_TIMEOUT"),
    });
    const outcome = { outcome: "failed", type: "Bounced", message: "no such user", permanent: true } as const;
    await client.release(job?.leaseToken ?? "", outcome);
    expect(await baton("await", "sad", "1")).toMatchObject({
      code: 1,
      stdout: "",
      stderr: "baton: the job 1 is FAILED: Bounced: no such user (permanent)\n",
    });
    expect(await baton("await", "sad", "none")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("JOB_NOT_FOUND"),
    });
  });

  it("waits for a job that is still to come with --expect, and ends at once on SIGINT", async () => {
    const waiting = startCli(["await", "coming", "1", "--expect", "--wait", "1h"], { env: env() });
    await client.put({ queue: "coming", id: "1", retentionMs: 60_000 });
    await finish("coming", "here");
    expect((await within(waiting.finished, { what: "the result", withinMs: 10_000 })).stdout).toBe("here");

    const forever = startCli(["await", "never", "1", "--expect", "--wait", "1h"], { env: env() });
    await until(() => isAwaited("never"), { what: "the Await to arrive", withinMs: 10_000 });
    expect(await interrupt(forever)).toMatchObject({
      code: 1,
      signal: null,
      stdout: "",
      stderr: "baton: interrupted\n",
    });
  });
});

describe("baton watch", () => {
  it("shows each transition of a job on a line, and ends with 0 on SIGINT", async () => {
    const watching = startCli(["watch", "life", "other"], { env: env() });
    await until(() => watching.stderr().includes("watching"), { what: "the stream", withinMs: 10_000 });
    await client.put({ queue: "life", id: "1" });
    await finish("life", "x");
    await until(() => watching.stdout().includes("complete"), { what: "the events" });
    const { code, signal, stdout, stderr } = await interrupt(watching);
    expect({ code, signal }).toEqual({ code: 0, signal: null });
    expect(stdout.trimEnd().split("\n")).toEqual([
      expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z {2}life {2}1 {2}put {7}READY$/),
      expect.stringMatching(/ {2}reserve {3}RESERVED by \S+, attempt 1$/),
      expect.stringMatching(/ {2}complete {2}COMPLETED$/),
    ]);
    expect(stderr).toBe("watching; Ctrl-C ends it\n");
  });

  it("prints events as JSON, of some jobs only, and goes on after a cursor", async () => {
    const args = ["watch", "json", "--json", "--id", "a"];
    const first = startCli(args, { env: env() });
    // With --json nothing is said but events: the first that comes shows that the stream is open.
    const seen = (running: Running) =>
      running
        .stdout()
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line));
    let puts = 0;
    await until(
      async () => {
        await client.put({ queue: "json", id: "a", onConflict: "REPLACE" });
        await client.put({ queue: "json", id: "b", onConflict: "REPLACE" });
        puts++;
        return seen(first).length > 0;
      },
      { what: "an event", withinMs: 10_000 },
    );
    await interrupt(first);
    const events = seen(first);
    expect(events.every(({ id, transition }) => id === "a" && transition === "put")).toBe(true);
    expect(puts).toBeGreaterThan(0);
    await client.delete("json", "a");
    const second = startCli([...args, "--resume-after", events[0].cursor], { env: env() });
    await until(() => seen(second).some(({ transition }) => transition === "delete"), {
      what: "what was missed",
      withinMs: 10_000,
    });
    expect(seen(second).at(-1)).toMatchObject({ id: "a", state: "JOB_STATE_UNSPECIFIED" });
    await interrupt(second);
  });

  it("says which cursor is none", async () => {
    const { code, stderr } = await baton("watch", "json", "--resume-after", "nonsense");
    expect(code).toBe(1);
    expect(stderr).toContain("  resume_after[0]: ");
  });
});

/** The broker follows the queue's completion events for this Await: so the command waits, and hears signals. */
async function isAwaited(queue: string): Promise<boolean> {
  const [, listeners] = await redis.pubsub("NUMSUB", `baton:{${queue}}:events`);
  return Number(listeners) > 0;
}
