/** What Allora's users had: schedules, each of whose ticks puts one job, however many processes there are. */
import { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { CatchUp, Overlap, ScheduleService, type ScheduleView } from "../../gen/baton/v1/schedule_service_pb.js";
import { startBrokerProcess } from "../e2e/broker-process.ts";
import { at, days, expectBadRequest, hours, ms, startFixture } from "../rpc/fixture.ts";
import { QueueClient } from "../rpc/queue-client.ts";
import { RawClient } from "../rpc/raw-client.ts";
import { type RequestOf, ServiceClient } from "../rpc/service-client.ts";
import { startBroker } from "../support/broker.ts";
import { startRedis } from "../support/redis.ts";
import { dumpRedis } from "../support/redis-dump.ts";
import { until } from "../support/wait.ts";
import { COMPLETED, idsOf, Room, text } from "./support.ts";

type ScheduleInit = NonNullable<RequestOf<typeof ScheduleService, "putSchedule">["schedule"]>;
type Timing = NonNullable<ScheduleInit["timing"]>;

const SECOND_MS = 1_000;
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;

const room = new Room({ brokers: 3, settings: { sweepIntervalMs: 200 } });

const schedulesOf = (client = room.client) => new ServiceClient(client, ScheduleService);
const cron = (value: string): Timing => ({ case: "cron", value });
const every = (value: ReturnType<typeof ms>): Timing => ({ case: "every", value });
const EACH_SECOND = cron("* * * * * *");

/** In the test's queue, with an empty template. */
async function put(timing: Timing, more: Partial<ScheduleInit> = {}, client = room.client): Promise<ScheduleView> {
  const init = { queue: room.queue, id: "s", timing, template: {}, ...more } as ScheduleInit;
  const { schedule } = await schedulesOf(client).good("putSchedule", { schedule: init });
  return schedule ?? expect.fail("PutSchedule answered without a schedule");
}

async function view(id = "s", queue = room.queue, client = room.client): Promise<ScheduleView> {
  const { schedule } = await schedulesOf(client).good("getSchedule", { queue, id });
  return schedule ?? expect.fail("GetSchedule answered without a schedule");
}

/** The ticks whose jobs are there, in ms, as their ids say them. */
async function ticks(id = "s", queue = room.queue, client = room.client): Promise<number[]> {
  const ids: string[] = [];
  let pageToken = "";
  do {
    const page = await client.good("list", { queue, state: JobState.READY, pageSize: 1_000, pageToken });
    ids.push(...idsOf(page.jobs));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return ids
    .filter((jobId) => jobId.startsWith(`${id}@`))
    .map((jobId) => Date.parse(jobId.slice(id.length + 1)))
    .sort((a, b) => a - b);
}

/** What Redis holds of a schedule whose next tick nobody has been there for since then. */
async function rewind(redis: Redis, queue: string, id: string, toMs: number): Promise<void> {
  await redis.multi().zadd(`baton:{${queue}}:ticks`, toMs, id).hset(`baton:{${queue}}:meta`, "next_tick", toMs).exec();
}

/** One after the other, without a gap; and no job was put twice. */
async function expectOneJobPerTick(client = room.client, queue = room.queue, ids = ["s"]): Promise<void> {
  let jobs = 0;
  for (const id of ids) {
    await schedulesOf(client).good("pauseSchedule", { queue, id });
    const put = await ticks(id, queue, client);
    expect(put).toEqual(put.map((_, i) => (put[0] ?? 0) + i * SECOND_MS));
    expect(await view(id, queue, client)).toMatchObject({ runs: BigInt(put.length), skipped: 0n });
    jobs += put.length;
  }
  const { queue: shown } = await new QueueClient(client).good("getQueue", { queue });
  expect(shown?.totals?.put).toBe(BigInt(jobs));
}

const shownTicks = (list: readonly number[]) => list.map((tick) => new Date(tick).toISOString().slice(0, 16));

describe("Schedules: cron with 5 or 6 fields and `every`, each with a time zone", () => {
  type Fits = (time: Date) => boolean;
  const clock = (time: Date) => `${time.getUTCHours()}:${time.getUTCMinutes()}`;
  const midnight = (time: Date) => clock(time) === "0:0";

  /** The first time after that for which it is so. */
  function first(afterMs: number, stepMs: number, fits: Fits): number {
    const from = Math.floor(afterMs / stepMs) * stepMs + stepMs;
    for (let time = from; time < from + 367 * DAY_MS; time += stepMs) if (fits(new Date(time))) return time;
    return expect.fail("there is no such time within a year");
  }

  it.each<[string, string, number, Fits, string?]>([
    ["five fields", "30 9 * * *", MINUTE_MS, (time) => clock(time) === "9:30"],
    ["six fields", "15 30 9 * * *", SECOND_MS, (time) => clock(time) === "9:30" && time.getUTCSeconds() === 15],
    ["lists", "0 8,20 * * *", MINUTE_MS, (time) => ["8:0", "20:0"].includes(clock(time))],
    ["ranges", "0 9-11 * * *", MINUTE_MS, (time) => ["9:0", "10:0", "11:0"].includes(clock(time))],
    ["steps", "*/25 * * * *", MINUTE_MS, (time) => time.getUTCMinutes() % 25 === 0],
    [
      "names",
      "0 12 * jan,jul mon-wed",
      MINUTE_MS,
      (time) => clock(time) === "12:0" && time.getUTCMonth() % 6 === 0 && [1, 2, 3].includes(time.getUTCDay()),
    ],
    ["7 as Sunday", "0 0 * * 7", MINUTE_MS, (time) => midnight(time) && time.getUTCDay() === 0],
    [
      "fri#2",
      "0 0 * * fri#2",
      MINUTE_MS,
      (time) => midnight(time) && time.getUTCDay() === 5 && Math.ceil(time.getUTCDate() / 7) === 2,
    ],
    ["L", "0 0 L * *", MINUTE_MS, (time) => midnight(time) && new Date(time.getTime() + DAY_MS).getUTCDate() === 1],
    ["a time zone", "0 8 * * *", MINUTE_MS, (time) => clock(time) === "23:0", "Asia/Tokyo"],
  ])("%s: %s", async (_, expression, stepMs, fits, timeZone = "") => {
    const { createdAt, nextRunAt } = await put(cron(expression), { timeZone });
    // The broker looks at the time a moment before it writes the schedule down.
    const expected = [at(createdAt), at(createdAt) - 500].map((after) => first(after, stepMs, fits));
    expect(expected).toContain(at(nextRunAt));
  });

  it("`every`", async () => {
    const { createdAt, nextRunAt } = await put(every(ms(90_000)));
    expect(Math.abs(at(nextRunAt) - at(createdAt) - 90_000)).toBeLessThan(500);
  });

  describe("correct over both changes of summer time", () => {
    // Berlin, 2025: 30 March from 2:00 to 3:00, and 26 October from 3:00 to 2:00, both at 01:00 UTC.
    it.each([
      {
        expression: "30 2 * * *",
        from: "2025-03-29T01:30Z",
        spring: ["2025-03-29T01:30", "2025-03-30T01:00", "2025-03-31T00:30"],
        autumn: ["2025-10-25T00:30", "2025-10-26T00:30", "2025-10-27T01:30"],
      },
      {
        expression: "*/30 2 25-31 3,10 *",
        from: "2025-03-29T01:00Z",
        spring: ["2025-03-29T01:00", "2025-03-29T01:30", "2025-03-31T00:00", "2025-03-31T00:30"],
        autumn: [
          ...["2025-10-25T00:00", "2025-10-25T00:30"],
          ...["2025-10-26T00:00", "2025-10-26T00:30", "2025-10-26T01:00", "2025-10-26T01:30"],
          ...["2025-10-27T01:00", "2025-10-27T01:30"],
        ],
      },
    ])("$expression in Berlin", async ({ expression, from, spring, autumn }) => {
      await put(cron(expression), { timeZone: "Europe/Berlin", catchUp: CatchUp.ALL });
      await rewind(room.fixture.redis, room.queue, "s", Date.parse(from));
      await until(async () => at((await view()).nextRunAt) > (await room.fixture.nowMs()), {
        what: "all ticks since then to be put",
        withinMs: 10_000,
      });
      const all = shownTicks(await ticks());
      const between = (first: string, last: string) => all.filter((tick) => tick >= first && tick < last);
      expect(between("2025-03-29", "2025-04-01").slice(0, spring.length)).toEqual(spring);
      expect(between("2025-10-25", "2025-10-28")).toEqual(autumn);
    });

    // In one of them summer begins next, in the other it ends.
    it.each(["Europe/Berlin", "Australia/Sydney"])("`every` so many days in %s", async (timeZone) => {
      const offset = (time: number) => {
        const zoned = new Date(time).toLocaleString("sv-SE", { timeZone }).replace(" ", "T");
        return Date.parse(`${zoned}Z`) - Math.floor(time / SECOND_MS) * SECOND_MS;
      };
      const now = await room.fixture.nowMs();
      let count = 1;
      while (count < 364 && offset(now + count * DAY_MS) === offset(now)) count += 1;
      // Not on the very day of the change, whose times of day may not be there.
      count += 1;
      const { createdAt, nextRunAt } = await put(every(days(count)), { timeZone });
      const shift = offset(now) - offset(now + count * DAY_MS);
      expect(Math.abs(shift)).toBe(HOUR_MS);
      expect(Math.abs(at(nextRunAt) - at(createdAt) - count * DAY_MS - shift)).toBeLessThan(500);
    });
  });

  it.each<[string, Timing, string, string?]>([
    ["four fields", cron("* * * *"), "cron"],
    ["words", cron("every day at noon"), "cron"],
    ["an hour 24", cron("0 24 * * *"), "cron"],
    ["30 February", cron("0 0 30 2 *"), "cron"],
    ["an interval of zero", every({}), "every"],
    ["an unknown time zone", cron("0 0 * * *"), "time_zone", "Europe/Atlantis"],
  ])("impossible or malformed ones are INVALID_ARGUMENT when put: %s", async (_, timing, field, timeZone = "") => {
    const schedule = { queue: room.queue, id: "s", timing, timeZone, template: {} };
    expectBadRequest(await schedulesOf().bad("putSchedule", { schedule }), `schedule.${field}`);
    expect(await room.fixture.redis.keys(`*{${room.queue}}*`)).toEqual([]);
  });
});

describe("Any number of brokers: one enqueue per tick", () => {
  it("claim and enqueue in one atomic step; the tick's job id is made from schedule and tick", async () => {
    const ids = ["a", "b", "c"];
    for (const [i, id] of ids.entries()) {
      await put(EACH_SECOND, { id, template: { payload: text(id), priority: 3 } }, room.clients[i]);
    }
    await until(async () => (await ticks("c")).length >= 4, { what: "four ticks", withinMs: 10_000 });
    const [tick = 0] = await ticks("a");
    const id = `a@${new Date(tick).toISOString().replace(".000Z", "Z")}`;
    expect(await room.job(id)).toMatchObject({ payload: text("a"), priority: 3 });
    await expectOneJobPerTick(room.client, room.queue, ids);
  });

  it("a crash between loses nothing", { timeout: 60_000 }, async () => {
    const redis = await startRedis();
    const start = () => startBrokerProcess("--redis-url", redis.url);
    let broker = await start();
    const look = new Redis(redis.socketPath);
    try {
      const client = new RawClient(broker.address);
      await put(EACH_SECOND, { queue: "q", catchUp: CatchUp.ALL }, client);
      client.close();
      const jobs = () => look.hlen("baton:{q}:spec");
      // In µs of a second: before the tick, while it is put, and just after.
      for (const [from, to] of [
        [980_000, 1_000_000],
        [0, 20_000],
        [20_000, 40_000],
      ] as const) {
        const before = await jobs();
        await until(async () => (await jobs()) > before, { what: "a tick", withinMs: 10_000 });
        const isNow = async () => {
          const [, micros] = await look.time();
          return Number(micros) >= from && Number(micros) < to;
        };
        await until(isNow, { what: "the moment", withinMs: 10_000 });
        await broker.kill();
        broker = await start();
      }
      const after = await jobs();
      await until(async () => (await jobs()) > after + 1, { what: "more ticks", withinMs: 10_000 });
      const last = new RawClient(broker.address);
      await expectOneJobPerTick(last, "q");
      last.close();
    } finally {
      look.disconnect();
      await broker.kill();
      await redis.stop();
    }
  });

  it("a starting broker changes nothing", async () => {
    const fixture = await startFixture();
    try {
      const queue = "q";
      for (const [id, timing] of [
        ["cron", cron("0 0 1 1 *")],
        ["every", every(hours(1))],
      ] as const) {
        await put(timing, { queue, id }, fixture.client);
      }
      await put(every(hours(1)), { queue, id: "paused", paused: true }, fixture.client);
      await fixture.broker.server.stop();
      const before = await fixture.dump();
      expect(Object.keys(before)).toContain("baton:{q}:ticks");
      await fixture.redis.hdel("baton:{q}:meta", "samples");
      const other = await startBroker({ redis: fixture.broker.redis });
      await until(() => fixture.redis.hexists("baton:{q}:meta", "samples"), { what: "its first sweep" });
      expect(await dumpRedis(fixture.redis)).toEqual(before);
      await other.stop();
    } finally {
      await fixture.stop();
    }
  });

  it("down over k ticks: by its catch-up setting none, one (the default) or all of them, then the future", async () => {
    const fixture = await startFixture();
    try {
      const queue = "q";
      const CATCH_UPS = [CatchUp.NONE, CatchUp.UNSPECIFIED, CatchUp.ONE, CatchUp.ALL];
      // Hourly and half an hour away, so that no tick comes while this runs.
      const minute = (new Date(await fixture.nowMs()).getUTCMinutes() + 30) % 60;
      const next: number[] = [];
      for (const catchUp of CATCH_UPS) {
        const { nextRunAt } = await put(
          cron(`${minute} * * * *`),
          { queue, id: `s${catchUp}`, catchUp },
          fixture.client,
        );
        next.push(at(nextRunAt));
      }
      const [future = 0] = next;
      expect(next).toEqual(CATCH_UPS.map(() => future));
      await fixture.broker.server.stop();
      const DOWN = 5;
      for (const catchUp of CATCH_UPS) await rewind(fixture.redis, queue, `s${catchUp}`, future - DOWN * HOUR_MS);

      const other = await startBroker({ redis: fixture.broker.redis });
      const client = new RawClient(other.address);
      try {
        const viewed = () => Promise.all(CATCH_UPS.map((catchUp) => view(`s${catchUp}`, queue, client)));
        await until(async () => (await viewed()).every(({ nextRunAt }) => at(nextRunAt) === future), {
          what: "the future",
        });
        const missed = Array.from({ length: DOWN }, (_, i) => future - (DOWN - i) * HOUR_MS);
        const made = await Promise.all(CATCH_UPS.map((catchUp) => ticks(`s${catchUp}`, queue, client)));
        expect(made).toEqual([[], missed.slice(-1), missed.slice(-1), missed]);
        expect((await viewed()).map(({ runs, skipped }) => [runs, skipped])).toEqual([
          [0n, 5n],
          [1n, 4n],
          [1n, 4n],
          [5n, 0n],
        ]);
      } finally {
        client.close();
        await other.stop();
      }
    } finally {
      await fixture.stop();
    }
  });

  it("overlap: allow, or skip while the last run is unfinished", async () => {
    await put(EACH_SECOND, { id: "allow", overlap: Overlap.ALLOW });
    await put(EACH_SECOND, { id: "default" });
    await put(EACH_SECOND, { id: "skip", overlap: Overlap.SKIP, template: { priority: 9 } });
    const { leaseToken, id } = await room.client.reserveOne(room.queue, { leaseDuration: hours(1) });
    expect(id).toMatch(/^skip@/);
    await until(async () => (await view("skip")).skipped >= 2n, { what: "two ticks to be left out" });
    expect((await view("skip")).runs).toBe(1n);
    for (const other of ["allow", "default"]) {
      const { runs, skipped } = await view(other);
      expect(Number(runs)).toBeGreaterThanOrEqual(2);
      expect(skipped).toBe(0n);
    }
    await room.client.good("release", { leaseToken, outcome: COMPLETED });
    await until(async () => (await view("skip")).runs === 2n, { what: "the next run" });
    for (const one of ["allow", "default", "skip"]) {
      await schedulesOf().good("deleteSchedule", { queue: room.queue, id: one });
    }
  });

  it("pause, trigger now, last and next runs shown", async () => {
    const request = { queue: room.queue, id: "s" };
    const fresh = await put(every(hours(1)), { template: { payload: text("report") } });
    expect([fresh.lastRunAt, fresh.lastJobId, fresh.runs]).toEqual([undefined, "", 0n]);
    expect(at(fresh.nextRunAt)).toBeGreaterThan(await room.fixture.nowMs());

    const began = await room.fixture.nowMs();
    const { jobId } = await schedulesOf().good("triggerSchedule", request);
    expect(await room.take()).toMatchObject([{ id: jobId, payload: text("report") }]);
    const triggered = await view();
    expect(triggered).toMatchObject({ lastJobId: jobId, runs: 1n, nextRunAt: fresh.nextRunAt });
    expect(at(triggered.lastRunAt)).toBeGreaterThanOrEqual(began);

    expect((await schedulesOf(room.clients[1]).good("pauseSchedule", request)).changed).toBe(true);
    const paused = await view();
    expect([paused.schedule?.paused, paused.nextRunAt]).toEqual([true, undefined]);
    // Where a tick would come, none does, at no broker.
    await put(EACH_SECOND, { paused: true });
    await put(EACH_SECOND, { id: "other" });
    await until(async () => (await view("other")).runs >= 2n, { what: "ticks of another schedule" });
    expect((await view()).runs).toBe(1n);
    await schedulesOf().good("resumeSchedule", request);
    await until(async () => (await view()).runs >= 2n, { what: "ticks again" });
    const running = await view();
    expect(running.lastJobId).toBe(`s@${new Date(at(running.lastRunAt)).toISOString().replace(".000Z", "Z")}`);
    expect(at(running.nextRunAt)).toBeGreaterThan(at(running.lastRunAt));
    for (const id of ["s", "other"]) await schedulesOf().good("deleteSchedule", { queue: room.queue, id });
  });
});
