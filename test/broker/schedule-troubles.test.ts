/** Schedules among several brokers, and what stands in the way of one must not stand in the way of others. */
import { create, fromBinary } from "@bufbuild/protobuf";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CatchUp, ScheduleSchema } from "../../gen/baton/v1/schedule_service_pb.js";
import { readSchedule } from "../../src/rpc/schedule.ts";
import { scheduleBytes } from "../../src/rpc/schedule-message.ts";
import { readSettings } from "../../src/settings.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { ScheduleClock, type ScheduleInit } from "./schedule-clock.ts";

const UNKNOWN_ZONE = "Mars/Olympus_Mons";
const SETTINGS = readSettings([], {});

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

afterEach(async () => {
  await clock.redis.config("SET", "maxmemory", "0");
  clock.stop();
});

const every = (seconds: number): NonNullable<ScheduleInit["timing"]> => ({
  case: "every",
  value: { seconds: BigInt(seconds) },
});

/** As another broker has put it, which knows more time zones. */
async function putInUnknownZone(id: string): Promise<void> {
  const timing = { case: "cron" as const, value: "* * * * *" };
  const schedule = create(ScheduleSchema, { queue, id, timing, timeZone: UNKNOWN_ZONE, template: {} });
  const outcome = await clock.store.schedules.put(
    queue,
    {
      id,
      revision: 0,
      definition: scheduleBytes(schedule),
      skipOverlap: false,
      paused: false,
      nextTickMs: Date.parse("2026-11-21T08:01:00Z"),
      startMs: clock.nowMs,
    },
    100,
  );
  expect(outcome.kind).toBe("created");
}

const read = (definition: Uint8Array) => readSchedule(definition, SETTINGS);

/** One that knows the zone: its clocks show UTC. */
const worldlyBroker = () =>
  clock.anotherBroker((definition) => {
    const schedule = fromBinary(ScheduleSchema, definition);
    return read(scheduleBytes({ ...schedule, timeZone: schedule.timeZone.replace(UNKNOWN_ZONE, "Etc/UTC") }));
  });

describe("several brokers", () => {
  it("that see the same tick put one job, and count it once", async () => {
    await clock.put({ queue, id: "s", timing: every(60) });
    const brokers = [clock.ticks, clock.anotherBroker(read), clock.anotherBroker(read)];
    for (let tick = 1; tick <= 20; tick++) {
      clock.nowMs += 60_000;
      const seen = await Promise.all(brokers.map(() => clock.store.sweep(queue)));
      expect(seen.map(({ due }) => due.length)).toEqual([1, 1, 1]);
      await Promise.all(brokers.map((broker, i) => broker.run(seen[i]?.due ?? [], clock.nowMs)));
      expect(await clock.view(queue, "s")).toMatchObject({ runs: BigInt(tick), skipped: 0n });
    }
    expect(new Set(await clock.ready(queue)).size).toBe(20);
  });

  it("put nothing for a tick that was found before a change, a pause or a deletion", async () => {
    const changes = [
      () => clock.put({ queue, id: "s", timing: every(3_600) }),
      () => clock.call("pauseSchedule", { queue, id: "s" }),
      () => clock.call("deleteSchedule", { queue, id: "s" }),
      async () => {
        await clock.call("deleteSchedule", { queue, id: "s" });
        await clock.put({ queue, id: "s", timing: every(60) });
      },
    ];
    for (const change of changes) {
      await clock.call("deleteSchedule", { queue, id: "s" });
      await clock.put({ queue, id: "s", timing: every(60) });
      clock.nowMs += 60_000;
      const { due, nowMs } = await clock.store.sweep(queue);
      expect(due).toHaveLength(1);
      await change();
      await clock.ticks.run(due, nowMs);
      expect(await clock.ready(queue)).toEqual([]);
    }
  });

  it("that send a call twice, since its answer was lost, get the answer of the first", async () => {
    const { schedules } = clock.store;
    const template = create(ScheduleSchema, { queue, id: "s", timing: every(60), template: {} });
    const schedule = {
      id: "s",
      revision: 0,
      definition: scheduleBytes(template),
      skipOverlap: false,
      paused: false,
      nextTickMs: clock.nowMs + 60_000,
      startMs: clock.nowMs,
    };
    expect(await schedules.put(queue, schedule, 100, 7)).toMatchObject({ kind: "created" });
    expect(await schedules.put(queue, schedule, 100, 7)).toMatchObject({ kind: "created" });
    expect(await schedules.put(queue, schedule, 100, 8)).toEqual({ kind: "changed meanwhile" });
    expect(await schedules.pause(queue, "s", 7, true, undefined, 9)).toBe("changed");
    expect(await schedules.pause(queue, "s", 7, true, undefined, 9)).toBe("changed");
    expect(await schedules.pause(queue, "s", 7, false, undefined, 10)).toBe("changed meanwhile");
    const job = read(schedule.definition).job("s@now");
    expect(await schedules.trigger(queue, "s", 9, 1, job)).toEqual({ kind: "triggered" });
    expect(await schedules.trigger(queue, "s", 9, 1, job)).toEqual({ kind: "triggered" });
    expect(await clock.view(queue, "s")).toMatchObject({ runs: 1n });
    await schedules.pause(queue, "s", 9, false, clock.nowMs + 60_000);
    clock.nowMs += 60_000;
    const [due] = (await clock.store.sweep(queue)).due;
    if (!due) throw new Error("the schedule is not due");
    const next = { nextTickMs: undefined, leftOut: 0, nonce: 1 };
    const runs = [{ tickMs: due.tickMs, job: read(due.definition).job("s@tick") }];
    expect(await schedules.tick(due, next, runs)).toBe(1);
    expect(await schedules.tick(due, next, runs)).toBeUndefined();
    expect(await clock.view(queue, "s")).toMatchObject({ runs: 2n });
  });
});

describe("a schedule that cannot be run here", () => {
  it("is put off with one logged error, and does not hinder others, however many they are", async () => {
    for (let i = 0; i < 30; i++) await putInUnknownZone(`unknown-${i}`);
    await clock.put({ queue, id: "good", timing: every(60) });
    clock.set("2026-11-21T08:01:00Z");
    const { nextDueMs } = await clock.sweep(queue);
    expect(nextDueMs).toBe(10_000);
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z"]);
    await clock.runUntil(queue, "2026-11-21T08:02:00Z");
    const errors = clock.log.filter(({ level }) => level === "error");
    expect(errors).toHaveLength(30);
    expect(errors[0]).toMatchObject({
      message: "a schedule cannot be run; it is tried again and again",
      fields: { queue, error: expect.stringContaining("schedule.time_zone") },
    });
    expect((await clock.view(queue, "unknown-0")).nextRunAt?.seconds).toBe(
      BigInt(Date.parse("2026-11-21T08:01:00Z") / 1_000),
    );
  });

  it("is run by a broker that can, for the tick that it was due at", async () => {
    await putInUnknownZone("unknown");
    clock.set("2026-11-21T08:01:00Z");
    await clock.sweep(queue);
    expect(await clock.ready(queue)).toEqual([]);
    clock.set("2026-11-21T08:01:10Z");
    await clock.sweep(queue, worldlyBroker());
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z"]);
    expect(await clock.view(queue, "unknown")).toMatchObject({ runs: 1n, skipped: 0n });
  });

  it("can be paused, deleted and put again", async () => {
    await putInUnknownZone("unknown");
    clock.set("2026-11-21T08:01:00Z");
    await clock.sweep(queue);
    expect(await clock.call("pauseSchedule", { queue, id: "unknown" })).toMatchObject({ changed: true });
    await expect(clock.call("resumeSchedule", { queue, id: "unknown" })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    await clock.put({ queue, id: "unknown", timing: every(60) });
    await clock.runUntil(queue, "2026-11-21T08:02:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:02:00Z"]);
  });

  it("since Redis is full, is run when there is memory again", async () => {
    await clock.put({ queue, id: "s", timing: every(60), catchUp: CatchUp.ALL });
    await clock.redis.config("SET", "maxmemory", "1");
    clock.set("2026-11-21T08:01:00Z");
    expect((await clock.sweep(queue)).nextDueMs).toBe(10_000);
    await clock.redis.config("SET", "maxmemory", "0");
    await clock.runUntil(queue, "2026-11-21T08:02:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z", "2026-11-21T08:02:00Z"]);
  });
});

describe("a record that is no schedule", () => {
  it("is set aside and told of once, and the others are run and listed", async () => {
    await clock.put({ queue, id: "bad", timing: every(60) });
    await clock.put({ queue, id: "good", timing: every(60) });
    const key = `clock:{${queue}}:schedules`;
    await clock.redis.hset(key, "bad", "no MessagePack at all");
    expect((await clock.call("listSchedules", { queue })).schedules).toHaveLength(1);
    clock.set("2026-11-21T08:01:00Z");
    const swept = await clock.store.sweep(queue);
    expect(swept.setAside).toEqual(["schedule bad"]);
    expect(swept.due.map(({ id }) => id)).toEqual(["good"]);
    expect((await clock.sweep(queue)).setAside).toEqual([]);
    expect(await clock.redis.hkeys(key)).toEqual(["good"]);
    expect(await clock.redis.hget(`clock:{${queue}}:aside`, "schedule bad")).toBe("no MessagePack at all");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z"]);
  });

  it("whose definition is no Schedule is put off, and shown without what it should be", async () => {
    await clock.put({ queue, id: "good", timing: every(60) });
    const next = { nextTickMs: clock.nowMs + 60_000, startMs: clock.nowMs, skipOverlap: false, paused: false };
    const definition = Buffer.from("\x0a\xff no Schedule");
    await clock.store.schedules.put(queue, { id: "bad", revision: 0, definition, ...next }, 100);
    await clock.runUntil(queue, "2026-11-21T08:01:00Z");
    expect(await clock.ready(queue)).toEqual(["2026-11-21T08:01:00Z"]);
    expect(clock.log).toHaveLength(1);
    const { schedules } = await clock.call("listSchedules", { queue });
    expect(schedules.map(({ schedule }) => schedule?.id)).toEqual(["bad", "good"]);
  });
});
