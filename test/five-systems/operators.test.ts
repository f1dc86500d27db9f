/** What all five were to get beside what they had: namespaces, a complete QueueService, and a command line for it. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import { type Job, JobState } from "../../gen/baton/v1/job_pb.js";
import { QueueMode, type QueueSettingsSchema } from "../../gen/baton/v1/queue_service_pb.js";
import { ScheduleService } from "../../gen/baton/v1/schedule_service_pb.js";
import { type Running, runMain, startCli } from "../cli/run-cli.ts";
import { expectBadRequest, hours, inMs, ms } from "../rpc/fixture.ts";
import { QueueClient } from "../rpc/queue-client.ts";
import { RawClient, type RawStream } from "../rpc/raw-client.ts";
import { ServiceClient } from "../rpc/service-client.ts";
import { WatchClient } from "../rpc/watch-client.ts";
import { startBroker } from "../support/broker.ts";
import { startRedis } from "../support/redis.ts";
import { until, within } from "../support/wait.ts";
import { BURIED, COMPLETED, idsOf, numbered, Room, text } from "./support.ts";

const room = new Room({ brokers: 2 });

const LATER = { case: "delay", value: hours(1) } as const;

/** What a call costs until its answer, beside what was measured within it. */
const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

describe("Namespaces: two on one Redis never see each other", () => {
  it("in no call, stream, schedule or list", async () => {
    const redis = await startRedis();
    const brokers = await Promise.all(["one", "two"].map((namespace) => startBroker({ redis, namespace })));
    const clients = brokers.map(({ address }) => new RawClient(address));
    const [one, two] = clients as [RawClient, RawClient];
    const watcher = new WatchClient(brokers[1]?.address ?? "");
    try {
      const job = { queue: "q", id: "job" };
      const unique = { unique: { key: "k" }, concurrency: { key: "c", limit: 1 } };
      const stream = two.subscribe({ queues: [{ name: "q" }], workerId: "of two", maxOutstanding: 9 });
      await stream.saw("started");
      const watched = await watcher.started({ queues: ["q"] });
      const timing = { case: "every", value: hours(1) } as const;
      const schedulesOf = (client: RawClient) => new ServiceClient(client, ScheduleService);
      await schedulesOf(one).good("putSchedule", { schedule: { queue: "q", id: "s", timing, template: {} } });

      expect((await one.good("put", { ...job, ...unique, payload: text("of one") })).created).toBe(true);
      expect((await two.bad("get", job)).reason).toBe("JOB_NOT_FOUND");
      expect((await two.good("delete", job)).deleted).toBe(false);
      const [queuesOne, queuesTwo] = clients.map((client) => new QueueClient(client)) as [QueueClient, QueueClient];
      expect((await queuesTwo.bad("getQueue", { queue: "q" })).reason).toBe("QUEUE_NOT_FOUND");
      expect((await queuesTwo.good("listQueues", {})).queues).toEqual([]);
      expect((await schedulesOf(two).good("listSchedules", { queue: "q" })).schedules).toEqual([]);
      expect((await queuesOne.good("listWorkers", {})).workers).toEqual([]);

      // The same id, keys and settings, each for itself.
      await queuesOne.good("pauseQueue", { queue: "q" });
      expect((await two.good("put", { ...job, ...unique, payload: text("of two") })).created).toBe(true);
      const [taken] = await stream.got(1);
      expect(taken?.payload).toMatchObject(text("of two"));
      await queuesOne.good("resumeQueue", { queue: "q" });
      const own = await one.reserveOne("q", { leaseDuration: hours(1) });
      expect(own.payload).toMatchObject(text("of one"));
      const foreign = { leaseToken: own.leaseToken, outcome: COMPLETED };
      expectBadRequest(await two.bad("release", foreign), "lease_token");
      expect((await one.good("release", foreign)).state).toBe(JobState.COMPLETED);
      expect((await watched.got(2)).map(({ transition }) => transition)).toEqual(["put", "reserve"]);
      expect(stream.all("revoked")).toEqual([]);

      const look = new Redis(redis.socketPath);
      const keys = await look.keys("*");
      look.disconnect();
      expect(keys.filter((key) => !/^(one|two):/.test(key))).toEqual([]);
      stream.cancel();
    } finally {
      watcher.close();
      for (const client of clients) client.close();
      for (const broker of brokers) await broker.stop();
      await redis.stop();
    }
  });
});

describe("QueueService complete", () => {
  type Settings = MessageInitShape<typeof QueueSettingsSchema>;
  const update = async (settings: Settings, paths: readonly string[] = []) => {
    const request = { queue: room.queue, settings, updateMask: { paths: [...paths] } };
    const { queue } = await room.queues.good("updateQueue", request);
    return queue ?? expect.fail("UpdateQueue answered without a queue");
  };

  it("list, get", async () => {
    const names = ["b", "a", "c"].map((name) => `${room.queue}-${name}`);
    for (const queue of names) await room.client.good("put", { queue });
    const listed: string[] = [];
    let pageToken = "";
    do {
      const page = await room.queues.good("listQueues", { pageSize: 1, pageToken });
      expect(page.queues.length).toBeLessThanOrEqual(1);
      listed.push(...page.queues.map(({ name }) => name));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(listed.filter((name) => names.includes(name))).toEqual(names.toSorted());
    expect(new Set(listed).size).toBe(listed.length);
    const { queue } = await room.queues.good("getQueue", { queue: names[0] ?? "" });
    expect(queue).toMatchObject({ name: names[0], counts: { ready: 1n }, totals: { put: 1n }, settings: {} });
    expect(queue?.effectiveSettings).toMatchObject({ paused: false, mode: QueueMode.RELIABLE, deadLetterMax: 10_000 });
    expect(inMs(queue?.oldestReadyAge)).toBeLessThan(10_000);
  });

  it("update (defaults, limits, paused)", async () => {
    const settings = { leaseDuration: hours(2), retry: { maxAttempts: 1 }, deadLetterMax: 1, retention: hours(3) };
    expect((await update(settings)).settings).toMatchObject(settings);
    // Defaults: what a job does not say. Limits: how long the dead letter may be.
    await room.putMany(["1", "2", "3"]);
    const jobs = await room.take(2);
    const leaseMs = Number(jobs[0]?.leaseExpiresAt?.seconds) * 1_000 - (await room.fixture.nowMs());
    expect(Math.abs(leaseMs - 7_200_000)).toBeLessThan(5_000);
    for (const job of jobs) await room.release(job, { case: "failed", value: {} });
    await until(async () => (await room.shown()).counts.failed === 1n, { what: "the dead letter to be trimmed" });
    await update({ paused: true });
    expect(await room.take()).toEqual([]);
    await update({}, ["paused", "lease_duration"]);
    expect((await room.shown()).settings).toMatchObject({ paused: false, deadLetterMax: 1 });
    const [job] = await room.take();
    expect(Number(job?.leaseExpiresAt?.seconds) * 1_000 - (await room.fixture.nowMs())).toBeLessThanOrEqual(30_000);
  });

  it("pause and resume (running jobs unaffected, seen by every broker within 100 ms)", async () => {
    const workers: RawStream[] = [];
    for (const client of room.clients) workers.push(await room.opened({ maxOutstanding: 100 }, client));
    const handedOut = () => workers.flatMap((worker) => worker.jobs());
    await room.put("running");
    await until(() => handedOut().length === 1, { what: "the first job" });
    const [running] = handedOut();
    const others = room.clients.map((client) => new QueueClient(client));

    const resumed: number[] = [];
    for (let round = 0; round < 10; round++) {
      // Paused at one broker, and from then on nothing comes from any.
      const asked = others[round % 2] ?? expect.fail("no broker");
      expect((await asked.good("pauseQueue", { queue: room.queue })).changed).toBe(true);
      for (const [i, client] of room.clients.entries()) {
        await client.good("put", { queue: room.queue, id: `${round}-${i}` });
        expect(await client.reserve({ queues: [{ name: room.queue }] })).toEqual([]);
        expect((await others[i]?.good("getQueue", { queue: room.queue }))?.queue?.settings?.paused).toBe(true);
      }
      expect(handedOut()).toHaveLength(1 + round * 2);
      const began = performance.now();
      expect((await asked.good("resumeQueue", { queue: room.queue })).changed).toBe(true);
      await until(() => handedOut().length === 1 + (round + 1) * 2, { what: "workers to go on" });
      resumed.push(performance.now() - began);
    }
    // The test polls every 10 ms, and the machine may be busy: the middle one tells what the brokers do.
    expect(median(resumed)).toBeLessThan(100);
    await room.queues.good("pauseQueue", { queue: room.queue });
    expect(await room.release(running ?? expect.fail("no job"))).toMatchObject({ state: JobState.COMPLETED });
    for (const worker of workers) expect(worker.all("revoked")).toEqual([]);
  });

  it("purge by state", async () => {
    await room.putMany(["buried", "done", "running"]);
    const [buried, done] = await room.take(3, { leaseDuration: hours(1) });
    await room.release(buried ?? expect.fail("no job"), BURIED);
    await room.release(done ?? expect.fail("no job"));
    await room.putMany(numbered(1_500));
    await room.putMany(["later"], { start: LATER });
    const purge = async (...states: JobState[]) =>
      (await room.queues.good("purgeQueue", { queue: room.queue, states })).purged;
    expect(await purge(JobState.READY)).toBe(1_500n);
    expect((await room.shown()).counts).toMatchObject({
      ready: 0n,
      scheduled: 1n,
      reserved: 1n,
      completed: 1n,
      failed: 1n,
    });
    expect(await purge(JobState.SCHEDULED, JobState.FAILED, JobState.RESERVED)).toBe(3n);
    expect((await room.shown()).counts).toMatchObject({ scheduled: 0n, reserved: 0n, failed: 0n, completed: 1n });
    expect(await purge(JobState.READY)).toBe(0n);
  });
});

describe("List pages through any state by opaque tokens, stable while jobs move", () => {
  // Padded: those of one moment stand by their ids.
  const STAY = numbered(60).map((n) => `stay ${n.padStart(2, "0")}`);
  const MOVE = numbered(60).map((n) => `move ${n.padStart(2, "0")}`);
  const both = STAY.flatMap((id, i) => [id, MOVE[i] ?? ""]);

  /** Brings all jobs into the state; some of them leave it while the pages are read. */
  async function bring(state: JobState): Promise<void> {
    const start = state === JobState.SCHEDULED ? { start: LATER } : {};
    const held = state === JobState.HELD ? { concurrency: { key: "k", limit: 1 } } : {};
    if (state === JobState.HELD) await room.put("holder", { ...held, priority: 9 });
    await room.putMany(both, { retention: hours(1), ...start, ...held });
    if (state === JobState.SCHEDULED || state === JobState.READY) return;
    const jobs = await room.take(1_000, { leaseDuration: hours(1) });
    const outcome = {
      [JobState.RETRYING]: { case: "failed", value: { retryAfter: hours(1) } } as const,
      [JobState.COMPLETED]: COMPLETED,
      [JobState.FAILED]: BURIED,
    }[state as number];
    if (outcome) for (const job of jobs) await room.release(job, outcome);
    if (state === JobState.HELD) expect(idsOf(jobs)).toEqual(["holder"]);
  }

  it.each([
    ["SCHEDULED", JobState.SCHEDULED],
    ["READY", JobState.READY],
    ["HELD", JobState.HELD],
    ["RESERVED", JobState.RESERVED],
    ["RETRYING", JobState.RETRYING],
    ["COMPLETED", JobState.COMPLETED],
    ["FAILED", JobState.FAILED],
  ])("%s", async (_, state) => {
    await bring(state);
    const seen: Job[] = [];
    let pageToken = "";
    for (let page = 0; page === 0 || pageToken !== ""; page++) {
      // From page to page at another broker.
      const client = room.clients[page % 2] ?? room.client;
      const answer = await client.good("list", { queue: room.queue, state, pageSize: 17, pageToken });
      expect(answer.jobs.length).toBeLessThanOrEqual(17);
      seen.push(...answer.jobs);
      pageToken = answer.nextPageToken;
      expect(pageToken).toMatch(/^[\w-]*$/);
      // Ahead of where the reader is, and behind.
      for (const id of [MOVE[page], MOVE[MOVE.length - 1 - page]]) {
        await room.client.good("delete", { queue: room.queue, id: id ?? "" });
      }
    }
    expect(seen.every((job) => job.state === state)).toBe(true);
    const ids = idsOf(seen);
    expect(ids.filter((id) => id.startsWith("stay"))).toEqual(STAY);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it("no KEYS or SMEMBERS of unbounded sets, in all that the broker is asked for", async () => {
    const redis = await startRedis();
    const broker = await startBroker({ redis, sweepIntervalMs: 100 });
    const client = new RawClient(broker.address);
    const queues = new QueueClient(client);
    const schedules = new ServiceClient(client, ScheduleService);
    const watcher = new WatchClient(broker.address);
    const look = new Redis(redis.socketPath);
    try {
      await look.config("RESETSTAT");
      const queue = "q";
      const timing = { case: "every", value: ms(1_000) } as const;
      await schedules.good("putSchedule", { schedule: { queue, id: "s", timing, template: {} } });
      const watched = await watcher.started({ queues: [queue] });
      const stream = client.subscribe({ queues: [{ name: queue }], maxOutstanding: 2 });
      const jobs = numbered(500).map((id) => ({ queue, id, unique: { key: id }, concurrency: { key: "k", limit: 3 } }));
      await client.good("putMany", { jobs });
      await stream.got(2);
      for (const { leaseToken } of await client.reserve({ queues: [{ name: queue }], maxJobs: 100 })) {
        await client.good("release", { leaseToken, outcome: BURIED });
      }
      for (let state = 1; state <= 7; state++) await client.good("list", { queue, state, pageSize: 10 });
      await client.bad("await", { queue, id: "499", timeout: ms(10) });
      await client.good("retry", { queue, allFailed: true });
      await client.good("cancel", { queue, id: "498" });
      await queues.good("listQueues", {});
      await queues.good("getQueue", { queue });
      await queues.good("updateQueue", { queue, settings: { deadLetterMax: 5 } });
      await queues.good("listWorkers", {});
      await queues.good("quietWorker", { workerId: "w" });
      await queues.good("requeue", { queue });
      await schedules.good("listSchedules", { queue });
      await queues.good("purgeQueue", { queue, states: [1, 2, 3, 4, 5, 6, 7] });
      await until(async () => (await schedules.good("getSchedule", { queue, id: "s" })).schedule?.runs, {
        what: "a tick",
      });
      expect(watched.events().length).toBeGreaterThan(0);
      stream.cancel();
      // Redis counts what scripts call, too.
      const used = [...(await look.info("commandstats")).matchAll(/^cmdstat_([\w|]+):/gm)].map(([, name]) => name);
      expect(used).toContain("evalsha");
      expect(
        used.filter((name) => /^(keys|scan|smembers|sinter|sunion|sdiff|sort|hvals|lrange)$/.test(name ?? "")),
      ).toEqual([]);
    } finally {
      watcher.close();
      client.close();
      look.disconnect();
      await broker.stop();
      await redis.stop();
    }
  });
});

describe("CLI for all of it", () => {
  const env = () => ({ BATON_ADDR: room.fixture.broker.address });
  const baton = async (...args: string[]) => {
    const { code, stdout, stderr } = await runMain(args, { env: env() });
    expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: "" });
    return stdout;
  };

  async function failForGood(id: string): Promise<void> {
    await room.put(id);
    await room.release((await room.take(1))[0] ?? expect.fail("no job"), BURIED);
  }

  it("`baton queues`", async () => {
    await room.putMany(["1", "2"]);
    expect(await baton("queues")).toMatch(new RegExp(`^${room.queue} +2 `, "m"));
    await baton("queues", "set", room.queue, "--retention", "1h");
    expect(await baton("queues", "show", room.queue)).toMatch(/retention +1h/);
    expect(await baton("queues", "purge", room.queue, "--state", "ready")).toBe("2 jobs deleted\n");
    expect((await room.shown()).counts.ready).toBe(0n);
  });

  it("`baton jobs`", async () => {
    await room.put("now", { payload: text("hello") });
    await room.put("later", { start: LATER });
    expect(await baton("jobs", room.queue)).toMatch(/^now .*hello$/m);
    expect(await baton("jobs", room.queue, "--state", "scheduled")).toMatch(/^later /m);
  });

  it("`baton failed` and `baton retry`", async () => {
    for (const id of ["a", "b", "c"]) await failForGood(id);
    expect(await baton("failed", room.queue)).toMatch(/^a .*Bad: broken$/m);
    expect(await baton("retry", room.queue, "a")).toBe("a: READY\n");
    expect((await room.job("a")).state).toBe(JobState.READY);
    expect(await baton("retry", room.queue, "--all")).toBe("2 jobs READY again\n");
    expect((await room.shown()).counts).toMatchObject({ ready: 3n, failed: 0n });
  });

  it("`baton pause`", async () => {
    await room.put("job");
    expect(await baton("pause", room.queue)).toBe("paused\n");
    expect(await room.take()).toEqual([]);
    await baton("resume", room.queue);
    expect(idsOf(await room.take())).toEqual(["job"]);
  });

  it("`baton schedule`", async () => {
    const q = room.queue;
    await baton("schedule", "put", q, "s", "text", "--cron", "0 8 * * mon-fri", "--time-zone", "Europe/Berlin");
    expect(await baton("schedule", "list", q)).toMatch(/^s +0 8 \* \* mon-fri +Europe\/Berlin/m);
    const id = (await baton("schedule", "trigger", q, "s")).trim();
    expect(await room.job(id)).toMatchObject({ payload: text("text") });
    await baton("schedule", "pause", q, "s");
    await baton("schedule", "resume", q, "s");
    expect(await baton("schedule", "get", q, "s")).toMatch(new RegExp(id));
    expect(await baton("schedule", "delete", q, "s")).toBe("deleted\n");
  });

  it("`baton watch`", async () => {
    const watching: Running = startCli(["watch", room.queue], { env: env() });
    try {
      await until(() => watching.stderr().includes("watching"), { what: "the stream", withinMs: 10_000 });
      await room.put("job");
      await room.release((await room.take(1))[0] ?? expect.fail("no job"));
      await until(() => watching.stdout().includes("complete"), { what: "the events" });
      expect(watching.stdout().trimEnd().split("\n")).toEqual([
        expect.stringMatching(/job +put +READY$/),
        expect.stringMatching(/job +reserve +RESERVED/),
        expect.stringMatching(/job +complete +COMPLETED$/),
      ]);
    } finally {
      watching.child.kill("SIGINT");
    }
    expect((await within(watching.finished, { what: "the command to end" })).code).toBe(0);
  });

  it("`baton await`", async () => {
    await room.put("job");
    const waiting = baton("await", room.queue, "job", "--wait", "8s");
    const result = text("the result");
    await room.release((await room.take(1))[0] ?? expect.fail("no job"), { case: "completed", value: { result } });
    expect(await waiting).toBe("the result");
    expect(await baton("await", room.queue, "job")).toBe("the result");
  });

  it("`baton workers`", async () => {
    const stream = await room.opened({ workerId: "anna", host: "box" });
    const listed = () => baton("workers", "--queue", room.queue);
    await until(async () => (await room.queues.good("listWorkers", { queue: room.queue })).workers.length > 0, {
      what: "the worker to be listed",
    });
    expect(await listed()).toMatch(/^anna +box /m);
    expect(await baton("workers", "quiet", "anna")).toBe("quiet\n");
    await room.put("job");
    expect(await listed()).toMatch(/^anna .* quiet$/m);
    expect(stream.jobs()).toEqual([]);
    expect(await baton("workers", "resume", "anna")).toBe("resumed\n");
    expect(idsOf(await stream.got(1))).toEqual(["job"]);
  });
});
