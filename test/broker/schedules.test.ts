/** When schedules put jobs, and when not: to the second, on a clock of the test's own. */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CatchUp, Overlap } from "../../gen/baton/v1/schedule_service_pb.js";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { ScheduleClock, type ScheduleInit } from "./schedule-clock.ts";

let server: TestRedis;
let clock: ScheduleClock;
let queue: string;
let count = 0;

beforeAll(async () => {
  server = await startRedis({ config: ["maxmemory-policy noeviction"] });
});

afterAll(() => server?.stop());

beforeEach(() => {
  queue = `queue-${++count}`;
  clock = new ScheduleClock(server, "2026-11-21T08:00:00Z");
});

afterEach(() => clock.stop());

type Timing = NonNullable<ScheduleInit["timing"]>;
const cron = (value: string): Timing => ({ case: "cron", value });
const every = (seconds: number): Timing => ({ case: "every", value: { seconds: BigInt(seconds) } });
const time = (stamp: Parameters<typeof timestampMs>[0] | undefined) =>
  stamp && new Date(timestampMs(stamp)).toISOString().replace(".000Z", "Z");

describe("a schedule", () => {
  it("puts one job for each tick, named after it, and shows its last run and its next", async () => {
    await clock.put({ queue, id: "s", timing: cron("*/15 9 * * *") });
    const fresh = await clock.view(queue, "s");
    expect(fresh).toMatchObject({ runs: 0n, skipped: 0n, lastJobId: "" });
    expect(fresh.lastRunAt).toBeUndefined();
    await clock.runUntil(queue, "2026-11-21T09:35:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T09:00:00Z", "2026-11-21T09:15:00Z", "2026-11-21T09:30:00Z"]);
    const view = await clock.view(queue, "s");
    expect(view).toMatchObject({ runs: 3n, skipped: 0n, lastJobId: "s@2026-11-21T09:30:00Z" });
    expect(time(view.lastRunAt)).toBe("2026-11-21T09:30:00Z");
    expect(time(view.nextRunAt)).toBe("2026-11-21T09:45:00Z");
  });

  it("of an interval ticks first one interval after it was put", async () => {
    clock.set("2026-11-21T08:00:00.250Z");
    await clock.put({ queue, id: "s", timing: every(90) });
    await clock.runUntil(queue, "2026-11-21T08:03:10Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:30.250Z", "2026-11-21T08:03:00.250Z"]);
  });

  it("puts its template, byte for byte and with all that it asks for", async () => {
    const template = {
      payload: { content: { case: "data" as const, value: Uint8Array.of(0, 32, 255, 254) }, contentType: "x/y" },
      headers: { a: "b" },
      priority: 7,
      concurrency: { key: "k", limit: 3 },
    };
    await clock.put({ queue, id: "s", timing: every(60), template });
    await clock.runUntil(queue, "2026-11-21T08:01:00Z");
    const claims = [{ count: 5, leaseMs: 60_000, workerId: "w" }];
    const { jobs } = await clock.store.reserve(queue, "caller", 1, claims);
    expect(jobs.flat()).toHaveLength(1);
    const job = await clock.store.get(queue, "s@2026-11-21T08:01:00Z");
    expect(job).toMatchObject({ state: "RESERVED", concurrency: { key: "k", limit: 3 } });
    expect(Buffer.from(job?.spec ?? []).includes(Buffer.from([0, 32, 255, 254]))).toBe(true);
  });

  it("that is deleted puts nothing more, and its jobs stay", async () => {
    await clock.put({ queue, id: "s", timing: every(60) });
    await clock.runUntil(queue, "2026-11-21T08:01:30Z");
    expect(await clock.call("deleteSchedule", { queue, id: "s" })).toMatchObject({ deleted: true });
    expect(await clock.call("deleteSchedule", { queue, id: "s" })).toMatchObject({ deleted: false });
    await clock.runUntil(queue, "2026-11-21T09:00:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z"]);
    await expect(clock.view(queue, "s")).rejects.toMatchObject({ code: "NOT_FOUND", reason: "SCHEDULE_NOT_FOUND" });
  });
});

describe("after an outage over k ticks", () => {
  it.each([
    { catchUp: CatchUp.NONE, made: [], skipped: 5n },
    { catchUp: CatchUp.UNSPECIFIED, made: ["2026-11-21T08:05:00Z"], skipped: 4n },
    { catchUp: CatchUp.ONE, made: ["2026-11-21T08:05:00Z"], skipped: 4n },
    { catchUp: CatchUp.ALL, made: [1, 2, 3, 4, 5].map((n) => `2026-11-21T08:0${n}:00Z`), skipped: 0n },
  ])("catch-up $catchUp puts $made.length of 5, and then the future", async ({ catchUp, made, skipped }) => {
    await clock.put({ queue, id: "s", timing: cron("* * * * *"), catchUp });
    clock.set("2026-11-21T08:05:30Z");
    await clock.sweep(queue);
    expect(await clock.ready(queue)).toEqual(made);
    expect(await clock.view(queue, "s")).toMatchObject({ runs: BigInt(made.length), skipped });
    await clock.runUntil(queue, "2026-11-21T08:07:00Z");
    expect(await clock.ready(queue)).toEqual([...made, "2026-11-21T08:06:00Z", "2026-11-21T08:07:00Z"]);
  });

  it("ticks of the last 10 s are on time, whatever the catch-up", async () => {
    await clock.put({ queue, id: "s", timing: every(4), catchUp: CatchUp.NONE });
    clock.set("2026-11-21T08:00:12Z");
    await clock.sweep(queue);
    expect(await clock.ready(queue)).toHaveLength(3);
  });

  it("thousands of ticks are all put in steps of at most 1,000, with catch-up ALL", async () => {
    await clock.put({ queue, id: "s", timing: every(1), catchUp: CatchUp.ALL });
    clock.set("2026-11-21T08:40:00Z");
    const { due, nowMs } = await clock.store.sweep(queue);
    await clock.ticks.run(due, nowMs);
    expect(await clock.ready(queue)).toHaveLength(1_000);
    await clock.sweep(queue);
    const all = await clock.ready(queue);
    expect(new Set(all).size).toBe(2_400);
    expect(all).toEqual([...all].sort());
  });

  it("thousands of ticks make one job with catch-up ONE, and the others are counted", async () => {
    await clock.put({ queue, id: "s", timing: every(1) });
    clock.set("2026-11-21T08:40:00Z");
    await clock.sweep(queue);
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:40:00Z"]);
    expect(await clock.view(queue, "s")).toMatchObject({ runs: 1n, skipped: 2_399n });
  });

  it("large templates are put in steps of at most 16 MiB", async () => {
    const template = { payload: { content: { case: "data" as const, value: new Uint8Array(3_000_000) } } };
    await clock.put({ queue, id: "s", timing: every(60), catchUp: CatchUp.ALL, template });
    clock.set("2026-11-21T08:08:00Z");
    const { due, nowMs } = await clock.store.sweep(queue);
    await clock.ticks.run(due, nowMs);
    expect(await clock.view(queue, "s")).toMatchObject({ runs: 5n });
    await clock.sweep(queue);
    expect(await clock.view(queue, "s")).toMatchObject({ runs: 8n, skipped: 0n });
  });
});

describe("overlap", () => {
  it("SKIP leaves out ticks while the last run's job is unfinished, and only then", async () => {
    await clock.put({ queue, id: "s", timing: every(60), overlap: Overlap.SKIP });
    await clock.runUntil(queue, "2026-11-21T08:03:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z"]);
    expect(await clock.view(queue, "s")).toMatchObject({ runs: 1n, skipped: 2n });
    await clock.complete(queue);
    await clock.runUntil(queue, "2026-11-21T08:04:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:04:00Z"]);
    await clock.store.delete(queue, "s@2026-11-21T08:04:00Z");
    await clock.runUntil(queue, "2026-11-21T08:05:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:05:00Z"]);
  });

  it("SKIP also holds between ticks that are made up for together", async () => {
    await clock.put({ queue, id: "s", timing: every(60), overlap: Overlap.SKIP, catchUp: CatchUp.ALL });
    clock.set("2026-11-21T08:05:00Z");
    await clock.sweep(queue);
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z"]);
    expect(await clock.view(queue, "s")).toMatchObject({ runs: 1n, skipped: 4n });
  });

  it("ALLOW, which is the default, puts every tick", async () => {
    await clock.put({ queue, id: "s", timing: every(60) });
    await clock.runUntil(queue, "2026-11-21T08:03:00Z");
    expect(await clock.ready(queue)).toHaveLength(3);
  });

  it("of a unique key leaves out a tick whose key is taken, and counts it", async () => {
    await clock.put({ queue, id: "s", timing: every(60), template: { unique: { key: "report" } } });
    await clock.runUntil(queue, "2026-11-21T08:03:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z"]);
    expect(await clock.view(queue, "s")).toMatchObject({ runs: 1n, skipped: 2n });
    await expect(clock.call("triggerSchedule", { queue, id: "s" })).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
      reason: "UNIQUE_KEY_TAKEN",
      details: { metadata: { id: "s@2026-11-21T08:01:00Z", state: "READY" } },
    });
    await clock.complete(queue);
    await clock.runUntil(queue, "2026-11-21T08:04:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:04:00Z"]);
  });
});

describe("pause, resume and trigger", () => {
  it("a paused schedule puts nothing; resumed, it makes up for nothing", async () => {
    await clock.put({ queue, id: "s", timing: every(60), catchUp: CatchUp.ALL });
    await clock.runUntil(queue, "2026-11-21T08:01:10Z");
    expect(await clock.call("pauseSchedule", { queue, id: "s" })).toMatchObject({ changed: true });
    expect(await clock.call("pauseSchedule", { queue, id: "s" })).toMatchObject({ changed: false });
    const paused = await clock.view(queue, "s");
    expect(paused.schedule?.paused).toBe(true);
    expect(paused.nextRunAt).toBeUndefined();
    await clock.runUntil(queue, "2026-11-21T08:04:20Z");
    expect(await clock.call("resumeSchedule", { queue, id: "s" })).toMatchObject({ changed: true });
    expect(await clock.call("resumeSchedule", { queue, id: "s" })).toMatchObject({ changed: false });
    const resumed = await clock.view(queue, "s");
    expect(resumed.schedule?.paused).toBe(false);
    expect(time(resumed.nextRunAt)).toBe("2026-11-21T08:05:00Z");
    await clock.runUntil(queue, "2026-11-21T08:05:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z", "2026-11-21T08:05:00Z"]);
  });

  it("a pause during an outage drops what was missed", async () => {
    await clock.put({ queue, id: "s", timing: every(60), catchUp: CatchUp.ALL });
    clock.set("2026-11-21T08:03:30Z");
    await clock.call("pauseSchedule", { queue, id: "s" });
    await clock.call("resumeSchedule", { queue, id: "s" });
    await clock.runUntil(queue, "2026-11-21T08:04:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:04:00Z"]);
  });

  it("PutSchedule can make it paused, pause it and resume it, too", async () => {
    const schedule: ScheduleInit = { queue, id: "s", timing: every(60) };
    expect((await clock.put({ ...schedule, paused: true })).nextRunAt).toBeUndefined();
    await clock.runUntil(queue, "2026-11-21T08:05:10Z");
    expect(await clock.ready(queue)).toEqual([]);
    expect(time((await clock.put(schedule)).nextRunAt)).toBe("2026-11-21T08:06:00Z");
    expect((await clock.put({ ...schedule, paused: true })).nextRunAt).toBeUndefined();
    await clock.call("resumeSchedule", { queue, id: "s" });
    await clock.runUntil(queue, "2026-11-21T08:06:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:06:00Z"]);
  });

  it("TriggerSchedule puts a job of its own at once, each time, also when paused or overlapping", async () => {
    await clock.put({ queue, id: "s", timing: every(60), overlap: Overlap.SKIP, paused: true });
    clock.set("2026-11-21T08:00:01.500Z");
    const one = await clock.call("triggerSchedule", { queue, id: "s" });
    const other = await clock.call("triggerSchedule", { queue, id: "s" });
    expect(one.jobId).toMatch(/^s@2026-11-21T08:00:01\.500Z-trigger-[0-9a-f]{8}$/);
    expect(other.jobId).not.toBe(one.jobId);
    expect(await clock.ready(queue)).toHaveLength(2);
    const view = await clock.view(queue, "s");
    expect(view).toMatchObject({ runs: 2n, lastJobId: other.jobId });
    expect(view.nextRunAt).toBeUndefined();
    expect(time(view.lastRunAt)).toBe("2026-11-21T08:00:01.500Z");
  });

  it.each(["triggerSchedule", "pauseSchedule", "resumeSchedule"] as const)(
    "%s answers SCHEDULE_NOT_FOUND for one that there is not",
    async (method) => {
      await expect(clock.call(method, { queue, id: "s" })).rejects.toMatchObject({
        code: "NOT_FOUND",
        reason: "SCHEDULE_NOT_FOUND",
        details: { metadata: { queue, id: "s" } },
      });
    },
  );
});

describe("putting a schedule again", () => {
  it("as it was changes no tick: intervals go on, and what was missed is made up for", async () => {
    const schedule: ScheduleInit = { queue, id: "s", timing: every(600), catchUp: CatchUp.ALL };
    await clock.put(schedule);
    await clock.runUntil(queue, "2026-11-21T08:09:00Z");
    expect(await clock.putAnswer(schedule)).toMatchObject({ created: false });
    expect(time((await clock.view(queue, "s")).nextRunAt)).toBe("2026-11-21T08:10:00Z");
    clock.set("2026-11-21T08:35:00Z");
    const again = await clock.put({ ...schedule, template: { priority: 3 } });
    expect(time(again.createdAt)).toBe("2026-11-21T08:00:00Z");
    expect(time(again.updatedAt)).toBe("2026-11-21T08:35:00Z");
    await clock.sweep(queue);
    expect(await clock.ready(queue)).toEqual([1, 2, 3].map((n) => `2026-11-21T08:${n}0:00Z`));
  });

  it("with other times lets the next tick follow from now, and keeps what it has done", async () => {
    await clock.put({ queue, id: "s", timing: every(60), catchUp: CatchUp.ALL });
    await clock.runUntil(queue, "2026-11-21T08:02:00Z");
    clock.set("2026-11-21T08:05:00Z");
    const changed = await clock.put({ queue, id: "s", timing: every(120), catchUp: CatchUp.ALL });
    expect(time(changed.nextRunAt)).toBe("2026-11-21T08:07:00Z");
    expect(changed).toMatchObject({ runs: 2n, lastJobId: "s@2026-11-21T08:02:00Z" });
    const zoned = await clock.put({ queue, id: "s", timing: cron("0 10 * * *"), timeZone: "Europe/Berlin" });
    expect(time(zoned.nextRunAt)).toBe("2026-11-21T09:00:00Z");
    expect(time((await clock.put({ queue, id: "s", timing: cron("0 10 * * *") })).nextRunAt)).toBe(
      "2026-11-21T10:00:00Z",
    );
    await clock.runUntil(queue, "2026-11-21T10:30:00Z");
    expect((await clock.ready(queue)).slice(2)).toEqual(["2026-11-21T10:00:00Z"]);
  });

  it("many times at once makes one schedule, and every answer but one says that it was there", async () => {
    const puts = Array.from({ length: 12 }, () => clock.putAnswer({ queue, id: "s", timing: every(60) }));
    const answers = await Promise.all(puts);
    expect(answers.filter(({ created }) => created)).toHaveLength(1);
    await clock.runUntil(queue, "2026-11-21T08:01:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z"]);
  });
});

describe("summer time", () => {
  const BERLIN = "Europe/Berlin";
  const run = async (schedule: ScheduleInit, from: string, until: string) => {
    clock.set(from);
    await clock.put({ queue, id: "s", timeZone: BERLIN, ...schedule });
    await clock.runUntil(queue, until);
    return await clock.ready(queue);
  };

  it("begins: a daily job in the hour that is left out runs once, at the first moment after it", async () => {
    const ids = await run({ timing: cron("30 2 * * *") }, "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z");
    expect(ids).toEqual(["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
  });

  it("ends: a daily job in the hour that comes twice runs once", async () => {
    const ids = await run({ timing: cron("30 2 * * *") }, "2026-10-23T12:00:00Z", "2026-10-26T12:00:00Z");
    expect(ids).toEqual(["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
  });

  it.each([
    ["begins", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z", 22],
    ["ends", "2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z", 24],
  ])("%s: an hourly job runs every hour that passes", async (_, from, until, runs) => {
    const ids = await run({ timing: cron("0 * * * *") }, from, until);
    expect(ids).toHaveLength(runs);
    const times = ids.map((id) => Date.parse(id));
    expect(times.slice(1).every((at, i) => at - (times[i] ?? 0) === 3_600_000)).toBe(true);
  });

  it("an interval of a day keeps its time of day over both changes", async () => {
    const spring = await run({ timing: every(86_400) }, "2026-03-27T08:00:00Z", "2026-03-30T08:00:00Z");
    expect(spring).toEqual(["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z", "2026-03-30T07:00:00Z"]);
  });

  it("an outage over the change is made up for by the ticks that there were", async () => {
    clock.set("2026-10-24T12:00:00Z");
    await clock.put({ queue, id: "s", timeZone: BERLIN, timing: cron("30 2 * * *"), catchUp: CatchUp.ALL });
    clock.set("2026-10-26T12:00:00Z");
    await clock.sweep(queue);
    expect(await clock.ready(queue)).toEqual(["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
  });
});
