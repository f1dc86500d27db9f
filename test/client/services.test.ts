/** The methods of the client for jobs, queues and schedules, on a broker. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient, type PutInput, RetryLater, Worker } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until } from "../support/wait.ts";

const HOUR_MS = 3_600_000;

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

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = [];
  for await (const item of items) collected.push(item);
  return collected;
}

describe("BatonClient.put() with keys", () => {
  it("throws UNIQUE_KEY_TAKEN with the earlier job's id, whether or not the job has an id of the user's", async () => {
    const unique = { key: "customer-7", until: "EXPIRY", expiresInMs: HOUR_MS } as const;
    const { jobId } = await client.put({ queue: "unique", unique });
    const taken = { code: "ALREADY_EXISTS", reason: "UNIQUE_KEY_TAKEN", metadata: { id: jobId, state: "READY" } };
    for (const id of [undefined, "mine"]) {
      await expect(client.put({ queue: "unique", id, unique })).rejects.toMatchObject(taken);
      const kept = await client.put({ queue: "unique", id, unique, onConflict: "KEEP" });
      expect(kept).toMatchObject({ jobId, created: false, state: "READY" });
    }
    const [bad, good] = await client.putMany([{ queue: "unique", unique }, { queue: "unique" }]);
    expect(bad).toMatchObject({ ok: false, error: taken });
    expect(good).toMatchObject({ ok: true, value: { created: true } });
    expect((await client.get("unique", jobId)).unique).toEqual(unique);
  });

  it("limits how many jobs of one concurrency key run at once, and shows the key", async () => {
    const job = { queue: "slots", concurrency: { key: "acme", limit: 2 } };
    await client.putMany(["1", "2", "3"].map((id) => ({ ...job, id })));
    expect(await client.reserve({ queues: ["slots"], maxJobs: 3 })).toHaveLength(2);
    expect(await client.get("slots", "3")).toMatchObject({ state: "HELD", concurrency: job.concurrency });
  });

  it("waits by exq's curve when that is asked for", async () => {
    await client.put({ queue: "exq", id: "1", retry: { curve: "EXQ" } });
    const [job] = await client.reserve({ queues: ["exq"] });
    const { runAt } = await client.release(job?.leaseToken ?? "", { outcome: "failed", message: "no" });
    const waitMs = (runAt?.getTime() ?? 0) - Date.now();
    expect(waitMs).toBeGreaterThan(10_000);
    expect(waitMs).toBeLessThan(80_000);
  });
});

describe("BatonClient.reserve()", () => {
  it("takes jobs that are due only later, up to availableBy", async () => {
    const runAt = new Date(Date.now() + HOUR_MS);
    await client.put({ queue: "ahead", id: "1", runAt });
    const early = new Date(runAt.getTime() - 1);
    expect(await client.reserve({ queues: ["ahead"], availableBy: early })).toEqual([]);
    expect(await client.reserve({ queues: ["ahead"], availableBy: runAt })).toMatchObject([{ id: "1" }]);
  });

  it("forgets a job as it is pulled", async () => {
    await client.put({ queue: "pull", id: "1", payload: "x" });
    const [job] = await client.reserve({ queues: ["pull"], mode: "PULL" });
    expect(job).toMatchObject({ id: "1", leaseExpiresAt: undefined });
    await expect(client.get("pull", "1")).rejects.toMatchObject({ reason: "JOB_NOT_FOUND" });
  });
});

describe("BatonClient.list(), cancel() and retry()", () => {
  it("lists a state page by page, or all of it", async () => {
    const jobs: PutInput[] = Array.from({ length: 25 }, (_, n) => ({ queue: "list", id: `j${n}` }));
    await client.putMany(jobs);
    const first = await client.list("list", "READY", { pageSize: 10 });
    expect(first.items.map(({ id }) => id)).toEqual(jobs.slice(0, 10).map(({ id }) => id));
    const { items } = await client.list("list", "READY", { pageSize: 10, pageToken: first.nextPageToken });
    expect(items[0]?.id).toBe("j10");
    expect((await all(client.listAll("list", "READY", { pageSize: 10 }))).map(({ id }) => id)).toEqual(
      jobs.map(({ id }) => id),
    );
    expect(await all(client.listAll("list", "FAILED"))).toEqual([]);
    expect((await client.list("list", "FAILED")).nextPageToken).toBeUndefined();
    expect(JSON.parse(JSON.stringify(first))).toMatchObject({
      jobs: expect.any(Array),
      nextPageToken: first.nextPageToken,
    });
  });

  it("cancels a job and lets it run again, alone or with all that failed", async () => {
    await client.putMany(["1", "2"].map((id) => ({ queue: "again", id })));
    for (const id of ["1", "2"]) {
      expect(await client.cancel("again", id, { message: "why" })).toMatchObject({
        cancelled: true,
        previousState: "READY",
      });
    }
    expect(await client.cancel("again", "1")).toMatchObject({ cancelled: false, previousState: "FAILED" });
    expect(await client.get("again", "1")).toMatchObject({ error: { type: "CANCELLED", message: "why" } });
    const [one, none] = await client.retry("again", ["1", "none"]);
    expect(one).toEqual({ ok: true, value: "READY" });
    expect(none).toMatchObject({ ok: false, error: { reason: "JOB_NOT_FOUND" } });
    expect(await client.retryAllFailed("again")).toBe(1);
  });
});

describe("BatonClient.queues", () => {
  it("shows, sets, pauses and purges", async () => {
    const { queues } = client;
    await client.put({ queue: "ops", id: "1" });
    await client.put({ queue: "ops", id: "2", delayMs: HOUR_MS });
    const shown = await queues.get("ops");
    expect(shown).toMatchObject({ name: "ops", counts: { ready: 1, scheduled: 1, failed: 0 }, totals: { put: 2 } });
    expect(shown.oldestReadyAgeMs).toBeGreaterThanOrEqual(0);
    expect(shown.days).toMatchObject([{ date: expect.stringMatching(/^\d{4}-\d\d-\d\d$/), counters: { put: 2 } }]);
    expect(shown.effectiveSettings).toMatchObject({ mode: "RELIABLE", leaseMs: 30_000, retry: { maxAttempts: 25 } });

    const change = { leaseMs: 60_000, deadLetterMax: 5, retry: { maxAttempts: 3, jitter: 0 } };
    const { settings } = await queues.update("ops", change);
    expect(settings).toMatchObject({ leaseMs: 60_000, deadLetterMax: 5, retry: { maxAttempts: 3, jitter: 0 } });
    const back = await queues.update("ops", { leaseMs: null, retry: { jitter: null } });
    expect(back.settings).toMatchObject({ leaseMs: undefined, deadLetterMax: 5, retry: { maxAttempts: 3 } });
    expect(back.settings.retry?.jitter).toBeUndefined();
    expect((await queues.update("ops", { retry: null })).settings.retry?.maxAttempts).toBeUndefined();

    expect(await queues.pause("ops")).toBe(true);
    expect(await queues.pause("ops")).toBe(false);
    expect(await client.reserve({ queues: ["ops"] })).toEqual([]);
    expect(await queues.resume("ops")).toBe(true);
    expect(await queues.requeue("ops", { limit: 10 })).toBe(0);
    expect(await queues.purge("ops", ["READY", "SCHEDULED"])).toBe(2);
    await expect(queues.get("none")).rejects.toMatchObject({ reason: "QUEUE_NOT_FOUND" });
  });

  it("lists all queues in the order of their names", async () => {
    const names = ["page-a", "page-b", "page-c"];
    for (const queue of names) await client.put({ queue });
    const listed = (await all(client.queues.listAll({ pageSize: 2 }))).map(({ name }) => name);
    expect(listed.filter((name) => names.includes(name))).toEqual(names);
    expect(listed).toEqual([...listed].sort());
    expect((await client.queues.list({ pageSize: 2 })).items).toHaveLength(2);
  });

  it("lists workers, and keeps jobs from one", async () => {
    const ids: string[] = [];
    const worker = new Worker(client, { queues: ["crew"], workerId: "ben", handler: ({ id }) => void ids.push(id) });
    await worker.start();
    try {
      const workers = () => all(client.queues.allWorkers({ queue: "crew" }));
      const [ben] = await until(async () => ((await workers()).length > 0 ? workers() : undefined), {
        what: "the worker",
      });
      expect(ben).toMatchObject({ workerId: "ben", queues: ["crew"], streaming: true, quiet: false });
      expect(await client.queues.quiet("ben")).toBe(true);
      expect(await client.queues.quiet("ben")).toBe(false);
      expect(await workers()).toMatchObject([{ workerId: "ben", quiet: true }]);
      expect(await client.queues.resumeWorker("ben")).toBe(true);
      await client.put({ queue: "crew", id: "1" });
      await until(() => ids.length === 1, { what: "the job" });
    } finally {
      await worker.stop();
    }
  });
});

describe("BatonClient.schedules", () => {
  it("puts, changes, shows, triggers, pauses and deletes", async () => {
    const { schedules } = client;
    const input = { queue: "cron", id: "s", cron: "0 8 * * mon-fri", timeZone: "Europe/Berlin" } as const;
    const job = { payload: { json: { a: 1 } }, headers: { x: "y" }, priority: 3, retry: { maxAttempts: 2 } };
    const first = await schedules.put({ ...input, catchUp: "ALL", overlap: "SKIP", job });
    expect(first).toMatchObject({ created: true, schedule: { ...input, catchUp: "ALL", overlap: "SKIP", runs: 0 } });
    expect(first.schedule.nextRunAt?.getTime()).toBeGreaterThan(Date.now());
    expect(first.schedule.job).toMatchObject({ headers: { x: "y" }, priority: 3, retry: { maxAttempts: 2 } });
    expect(first.schedule.job.payload.json()).toEqual({ a: 1 });

    const second = await schedules.put({ queue: "cron", id: "s", everyMs: 60_000, job });
    expect(second).toMatchObject({
      created: false,
      schedule: { cron: undefined, everyMs: 60_000, timeZone: "UTC", catchUp: "ONE", overlap: "ALLOW" },
    });
    const jobId = await schedules.trigger("cron", "s");
    expect((await client.get("cron", jobId)).payload.json()).toEqual({ a: 1 });
    expect(await schedules.get("cron", "s")).toMatchObject({ runs: 1, lastJobId: jobId, lastRunAt: expect.any(Date) });
    expect(await schedules.pause("cron", "s")).toBe(true);
    expect(await schedules.get("cron", "s")).toMatchObject({ paused: true, nextRunAt: undefined });
    expect(await schedules.resume("cron", "s")).toBe(true);
    expect((await all(schedules.listAll("cron"))).map(({ id }) => id)).toEqual(["s"]);
    expect(await schedules.delete("cron", "s")).toBe(true);
    expect(await schedules.delete("cron", "s")).toBe(false);
    await expect(schedules.get("cron", "s")).rejects.toMatchObject({ reason: "SCHEDULE_NOT_FOUND" });
  });

  it("says which field of a schedule is bad", async () => {
    const bad = client.schedules.put({ queue: "cron", id: "bad", cron: "0 8 30 2 *" });
    await expect(bad).rejects.toMatchObject({ code: "INVALID_ARGUMENT", violations: [{ field: "schedule.cron" }] });
  });
});

describe("payloads", () => {
  it("carry a media type of their own, and can be sent on as they came", async () => {
    await client.put({ queue: "types", id: "text", payload: { text: "<p>", contentType: "text/html" } });
    await client.put({
      queue: "types",
      id: "data",
      payload: { data: new Uint8Array([1, 255]), contentType: "image/x" },
    });
    await client.put({ queue: "types", id: "json", payload: { json: 1, contentType: "application/x+json" } });
    const got = async (id: string) => (await client.get("types", id)).payload;
    expect([(await got("text")).text(), (await got("text")).contentType]).toEqual(["<p>", "text/html"]);
    expect([...(await got("data")).bytes()]).toEqual([1, 255]);
    expect((await got("json")).contentType).toBe("application/x+json");
    await client.put({ queue: "types", id: "copy", payload: await got("data") });
    await client.put({ queue: "types", id: "named", payload: await got("data"), contentType: "image/y" });
    expect([...(await got("copy")).bytes(), (await got("copy")).contentType]).toEqual([1, 255, "image/x"]);
    expect((await got("named")).contentType).toBe("image/y");
    expect((await got("data")).contentType).toBe("image/x");
  });

  it("that a handler returns become results with their media type, and RetryLater names its type", async () => {
    await client.put({ queue: "handler", id: "1" });
    await client.put({ queue: "handler", id: "2" });
    const worker = new Worker(client, {
      queues: ["handler"],
      maxJobs: 2,
      handler: ({ id }) => {
        if (id === "2") throw new RetryLater(HOUR_MS, "not now", { type: "BUSY" });
        return { text: "<p>", contentType: "text/html" };
      },
    });
    await worker.start();
    await worker.closed;
    expect((await client.get("handler", "1")).result?.contentType).toBe("text/html");
    expect((await client.get("handler", "2")).error).toMatchObject({ type: "BUSY", message: "not now" });
  });
});
