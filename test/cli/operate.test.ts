import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient, Worker } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until } from "../support/wait.ts";
import { runMain } from "./run-cli.ts";

let broker: TestBroker;
let client: BatonClient;

beforeAll(async () => {
  broker = await startBroker();
  client = new BatonClient({ address: broker.address });
});

afterAll(async () => {
  client.close();
  await broker.stop();
});

const baton = (...args: string[]) => runMain(args, { env: { BATON_ADDR: broker.address } });
const lines = (text: string) => text.trimEnd().split("\n");
const json = (text: string) => lines(text).map((line) => JSON.parse(line));

async function reserve(queue: string, leaseMs?: number): Promise<string> {
  const [job] = await client.reserve({ queues: [queue], leaseMs });
  return job?.leaseToken ?? "";
}

async function failForGood(queue: string, message: string): Promise<void> {
  await client.release(await reserve(queue), { outcome: "failed", type: "Bad", message, permanent: true });
}

describe("baton put", () => {
  it("names keys: a second job with the unique key is refused, or the first kept", async () => {
    const args = ["put", "keys", "x", "--unique-key", "customer 7", "--unique-until", "expiry", "--unique-for", "1h"];
    const first = (await baton(...args)).stdout.trim();
    expect(await baton(...args)).toMatchObject({ code: 1, stderr: expect.stringContaining("UNIQUE_KEY_TAKEN") });
    expect((await baton(...args, "--on-conflict", "keep")).stdout.trim()).toBe(first);
    const shown = await baton("get", "keys", first);
    expect(shown.stdout).toMatch(/^unique +customer 7, until EXPIRY, 1h at most$/m);
  });

  it("limits how many jobs of one concurrency key run at once", async () => {
    for (const id of ["1", "2"]) {
      await baton("put", "slots", "x", "--id", id, "--concurrency-key", "acme", "--concurrency-limit", "1");
    }
    await reserve("slots");
    expect(await client.reserve({ queues: ["slots"] })).toEqual([]);
    const { stdout } = await baton("jobs", "slots", "--state", "HELD");
    expect(lines(stdout).map((line) => line.split(/ {2,}/)[0])).toEqual(["ID", "2"]);
    expect(stdout).toContain("acme");
    expect((await baton("get", "slots", "2")).stdout).toMatch(/^concurrency +acme, at most 1 at once$/m);
  });
});

describe("baton jobs", () => {
  it("shows the next jobs without touching them, and says when there are more", async () => {
    await client.putMany([1, 2, 3].map((n) => ({ queue: "peek", id: `j${n}`, payload: `line\n${n}`, priority: n })));
    const { code, stdout, stderr } = await baton("jobs", "peek", "--limit", "2");
    expect(code).toBe(0);
    expect(lines(stdout)).toEqual([
      expect.stringMatching(/^ID {2}PRIORITY {2}PUT AT {2,}ATTEMPT {2}FAILURES {2}PAYLOAD$/),
      expect.stringMatching(/^j3 {9}3 {2}\S+Z {8}0 {9}0 {2}line\\n3$/),
      expect.stringMatching(/^j2 /),
    ]);
    expect(stderr).toBe("there are more: --limit shows more than 2\n");
    expect((await baton("jobs", "peek", "--limit", "3")).stderr).toBe("");
    expect((await client.get("peek", "j3")).attempt).toBe(0);
  });

  it("prints the contract's JSON, one job a line, and nothing where there is none", async () => {
    await client.put({ queue: "peek-json", id: "later", delayMs: 3_600_000 });
    const { stdout } = await baton("jobs", "peek-json", "--state", "scheduled", "--json");
    expect(json(stdout)).toMatchObject([{ id: "later", state: "JOB_STATE_SCHEDULED", runAt: expect.any(String) }]);
    expect(await baton("jobs", "peek-json", "--json")).toMatchObject({ code: 0, stdout: "", stderr: "" });
    expect(await baton("jobs", "peek-json")).toMatchObject({
      code: 0,
      stdout: "",
      stderr: "no job of peek-json is READY\n",
    });
  });

  it("shows who holds a job and until when, and what an odd payload is, without steering the terminal", async () => {
    await client.put({ queue: "odd", id: "esc\u202e", payload: "\u001b[2J" });
    await client.put({ queue: "odd", id: "bytes", payload: new Uint8Array([255, 0]) });
    const { stdout } = await baton("jobs", "odd");
    expect(stdout).toContain("\\x1b[2J");
    expect(stdout).toContain("(2 bytes)");
    await client.reserve({ queues: ["odd"], workerId: "w1" });
    expect((await baton("jobs", "odd", "--state", "reserved")).stdout).toMatch(/w1 +\d{4}-\d\d-\d\dT[\d:]+Z +1/);
  });
});

describe("baton failed and retry", () => {
  it("show the dead letter, run one or all again, and delete all", async () => {
    await client.putMany([1, 2, 3].map((n) => ({ queue: "dead", id: `d${n}` })));
    for (let n = 1; n <= 3; n++) await failForGood("dead", `reason ${n}`);
    const shown = await baton("failed", "dead");
    expect(lines(shown.stdout)).toHaveLength(4);
    expect(shown.stdout).toMatch(/^d1 .*Bad: reason 1$/m);
    expect(json((await baton("failed", "dead", "--json")).stdout)).toHaveLength(3);

    const mixed = await baton("retry", "dead", "d1", "no-such-job");
    expect(mixed).toMatchObject({ code: 1, stdout: "d1: READY\n" });
    expect(mixed.stderr).toContain("baton: no-such-job: ");
    const again = await baton("retry", "dead", "d1", "--json");
    expect(again.code).toBe(1);
    expect(json(again.stdout)).toMatchObject([
      { id: "d1", error: { reason: "JOB_NOT_FINISHED", metadata: { state: "READY" } } },
    ]);
    expect((await baton("retry", "dead", "--all")).stdout).toBe("2 jobs READY again\n");

    await failForGood("dead", "again");
    expect((await baton("failed", "dead", "--delete-all")).stdout).toBe("1 job deleted\n");
    expect((await baton("failed", "dead")).stderr).toBe("no job of dead is FAILED\n");
  });
});

describe("baton cancel", () => {
  it("ends a job, and says what it was", async () => {
    await client.put({ queue: "cancel", id: "1" });
    const token = await reserve("cancel");
    expect((await baton("cancel", "cancel", "1", "--message", "not wanted")).stdout).toBe("cancelled, was RESERVED\n");
    await expect(client.release(token, { outcome: "completed" })).rejects.toMatchObject({ reason: "LEASE_LOST" });
    expect(await client.get("cancel", "1")).toMatchObject({ error: { type: "CANCELLED", message: "not wanted" } });
    expect(await baton("cancel", "cancel", "1")).toMatchObject({ code: 0, stdout: "it was FAILED already\n" });
    expect(await baton("cancel", "cancel", "2")).toMatchObject({ code: 0, stdout: "there was no such job\n" });
    expect(json((await baton("cancel", "cancel", "1", "--json")).stdout)).toEqual([
      { cancelled: false, previousState: "JOB_STATE_FAILED" },
    ]);
  });
});

describe("baton queues", () => {
  it("shows all queues with their counts, aligned", async () => {
    await client.put({ queue: "all-a", id: "1" });
    await client.put({ queue: "all-b-with-a-long-name", id: "1", delayMs: 60_000 });
    const { stdout } = await baton("queues");
    const [heading = "", ...rows] = lines(stdout);
    expect(heading).toMatch(/^QUEUE +READY +SCHEDULED +HELD +RESERVED +RETRYING +COMPLETED +FAILED +OLDEST/);
    const end = heading.indexOf("READY") + "READY".length;
    const row = rows.find((line) => line.startsWith("all-a ")) ?? "";
    expect(row.slice(0, end)).toMatch(/ 1$/);
    expect(rows.some((line) => /^all-b-with-a-long-name +0 +1 /.test(line))).toBe(true);
    const { stdout: all } = await baton("queues", "--json");
    expect(json(all)).toContainEqual(expect.objectContaining({ name: "all-a", counts: expect.anything() }));
    expect((await baton("queues", "--limit", "1")).stderr).toContain("there are more");
  });

  it("shows one queue: states, counters by day, and its settings", async () => {
    await client.put({ queue: "detail", id: "1" });
    await client.release(await reserve("detail"), { outcome: "completed" });
    const { stdout } = await baton("queues", "show", "detail");
    expect(stdout).toMatch(/^queue +detail$/m);
    expect(stdout).toMatch(/^ +PUT +COMPLETED +FAILED +PULLED$/m);
    expect(stdout).toMatch(/^\d{4}-\d\d-\d\d +1 +1 +0 +0$/m);
    expect(stdout).toMatch(/^in total +1 +1 +0 +0$/m);
    expect(stdout).toMatch(/^retention +5m +default$/m);
    expect((await baton("queues", "show", "detail", "--days", "0")).stdout).not.toMatch(/^\d{4}-/m);
    expect(await baton("queues", "show", "nobody")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("QUEUE_NOT_FOUND"),
    });
  });

  it("sets what holds for a queue, and takes it back to the default", async () => {
    const set = ["--retention", "1h", "--mode", "simple", "--max-attempts", "3", "--backoff-curve", "exq"];
    const { stdout } = await baton("queues", "set", "tuned", ...set, "--dead-letter-max", "0");
    expect(stdout).toMatch(/^retention +1h +set$/m);
    expect(stdout).toMatch(/^lease +30s +default$/m);
    const { settings } = await client.queues.get("tuned");
    expect(settings).toMatchObject({ mode: "SIMPLE", retentionMs: 3_600_000, deadLetterMax: 0 });
    expect(settings.retry).toMatchObject({ maxAttempts: 3, curve: "EXQ", jitter: undefined });
    expect((await baton("queues")).stdout).toMatch(/^tuned .* SIMPLE$/m);
    const back = await baton("queues", "set", "tuned", "--default", "retention", "--default", "max-attempts", "--json");
    expect(JSON.parse(back.stdout)).toMatchObject({ name: "tuned", settings: { mode: "QUEUE_MODE_SIMPLE" } });
    const changed = (await client.queues.get("tuned")).settings;
    expect(changed).toMatchObject({ retentionMs: undefined, retry: { maxAttempts: undefined, curve: "EXQ" } });
  });

  it("says which setting the broker refused, by its field", async () => {
    const { code, stderr } = await baton("queues", "set", "tuned", "--lease", "1ms");
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^baton: the broker refused this \(INVALID_ARGUMENT\/BAD_REQUEST\):\n {2}settings\.lease_duration: /,
    );
  });

  it("purges by state", async () => {
    await client.putMany([1, 2, 3].map((n) => ({ queue: "purge", id: String(n), delayMs: n === 3 ? 60_000 : 0 })));
    expect((await baton("queues", "purge", "purge", "--state", "ready", "--state", "READY")).stdout).toBe(
      "2 jobs deleted\n",
    );
    expect((await client.queues.get("purge")).counts).toMatchObject({ ready: 0, scheduled: 1 });
    expect(json((await baton("queues", "purge", "purge", "--state", "scheduled", "--json")).stdout)).toEqual([
      { purged: "1" },
    ]);
  });
});

describe("baton pause, resume and requeue", () => {
  it("stop and start the handing out of a queue's jobs", async () => {
    await client.put({ queue: "stop", id: "1" });
    expect((await baton("pause", "stop")).stdout).toBe("paused\n");
    expect((await baton("pause", "stop")).stdout).toBe("it was paused already\n");
    expect(await client.reserve({ queues: ["stop"] })).toEqual([]);
    expect((await baton("queues")).stdout).toMatch(/^stop .* paused$/m);
    expect(json((await baton("resume", "stop", "--json")).stdout)).toEqual([{ changed: true }]);
    expect((await baton("resume", "stop")).stdout).toBe("it was not paused\n");
    expect(await client.reserve({ queues: ["stop"] })).toHaveLength(1);
  });

  it("requeue gives back what a recoverable queue's workers have left", async () => {
    await client.queues.update("recover", { mode: "RECOVERABLE" });
    await client.put({ queue: "recover", id: "1" });
    await reserve("recover", 100);
    await until(async () => (await baton("requeue", "recover")).stdout === "1 job given back\n", {
      what: "the lease to end and to be given back",
      withinMs: 10_000,
    });
    expect(await client.get("recover", "1")).toMatchObject({ state: "READY", failures: 1 });
  });
});

describe("baton workers", () => {
  it("shows who works where, and keeps jobs from a worker until it may have them again", async () => {
    const done: string[] = [];
    const worker = new Worker(client, { queues: ["crew"], workerId: "anna", handler: (job) => void done.push(job.id) });
    await worker.start();
    try {
      await until(async () => /^anna +\S+ .* crew +0 /m.test((await baton("workers", "--queue", "crew")).stdout), {
        what: "the worker to be listed",
        withinMs: 10_000,
      });
      expect(json((await baton("workers", "--json")).stdout)).toContainEqual(
        expect.objectContaining({ workerId: "anna", queues: ["crew"], streaming: true, quiet: false }),
      );
      expect((await baton("workers", "quiet", "anna")).stdout).toBe("quiet\n");
      expect((await baton("workers", "quiet", "anna")).stdout).toBe("it was quiet already\n");
      expect((await baton("workers")).stdout).toMatch(/^anna .* quiet$/m);
      await client.put({ queue: "crew", id: "1" });
      expect((await client.get("crew", "1")).state).toBe("READY");
      expect((await baton("workers", "resume", "anna")).stdout).toBe("resumed\n");
      await until(() => done.length === 1, { what: "the job" });
      expect((await baton("workers", "resume", "anna")).stdout).toBe("it was not quiet\n");
    } finally {
      await worker.stop();
    }
    expect((await baton("workers", "--queue", "nobody-here")).stderr).toBe("there are no workers at nobody-here\n");
  });
});
