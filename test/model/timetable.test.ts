import { describe, expect, it } from "vitest";
import {
  checkTimetable,
  nextTick,
  previousTick,
  type Timetable,
  type TimetableViolation,
  ticksBetween,
} from "../../src/model/timetable.ts";

const DAY_MS = 86_400_000;

const cron = (expression: string, timeZone = ""): Timetable => ({ kind: "cron", expression, timeZone });
const every = (everyMs: number, start: string, timeZone = ""): Timetable => {
  return { kind: "every", everyMs, timeZone, startMs: Date.parse(start) };
};

/** The ticks after one instant and up to another, as they are written in UTC without the year and the seconds. */
function shown(timetable: Timetable, after: string, until: string): string[] {
  const ticks = ticksBetween(timetable, Date.parse(after), Date.parse(until), 1_000);
  return ticks.map((tick) => new Date(tick).toISOString().slice(5, 16));
}

function first(timetable: Timetable, after: string, count: number): string[] {
  const ticks = ticksBetween(timetable, Date.parse(after), Number.POSITIVE_INFINITY, count);
  return ticks.map((tick) => new Date(tick).toISOString().replace(".000Z", "Z"));
}

describe("an expression", () => {
  // 2026-01-01 is a Thursday.
  const START = "2026-01-01T00:00:00Z";
  it.each([
    ["five fields: at the minute", "30 9 * * *", ["2026-01-01T09:30:00Z", "2026-01-02T09:30:00Z"]],
    ["six fields: the second first", "15 30 9 * * *", ["2026-01-01T09:30:15Z", "2026-01-02T09:30:15Z"]],
    ["every second", "* * * * * *", ["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]],
    ["a list", "0 8,20 * * *", ["2026-01-01T08:00:00Z", "2026-01-01T20:00:00Z"]],
    ["a range", "0 9-10 * * *", ["2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z", "2026-01-02T09:00:00Z"]],
    ["a step", "*/25 * * * *", ["2026-01-01T00:25:00Z", "2026-01-01T00:50:00Z", "2026-01-01T01:00:00Z"]],
    ["a range with a step", "0 8-12/3 * * *", ["2026-01-01T08:00:00Z", "2026-01-01T11:00:00Z", "2026-01-02T08:00:00Z"]],
    ["names of days, in any case", "0 0 * * MON-wed", ["2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z"]],
    ["names of months", "0 0 1 feb,Dec *", ["2026-02-01T00:00:00Z", "2026-12-01T00:00:00Z"]],
    ["0 is Sunday", "0 0 * * 0", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]],
    ["7 is Sunday", "0 0 * * 7", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]],
    ["a range up to 7", "0 0 * * 6-7", ["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z", "2026-01-10T00:00:00Z"]],
    ["the second Friday", "0 0 * * fri#2", ["2026-01-09T00:00:00Z", "2026-02-13T00:00:00Z"]],
    ["the last Friday", "0 0 * * fri#L", ["2026-01-30T00:00:00Z", "2026-02-27T00:00:00Z"]],
    ["the last day of the month", "0 0 L * *", ["2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"]],
    ["either of both days", "0 0 3 * fri", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"]],
    ["both days, with a +", "0 0 3 * +fri", ["2026-04-03T00:00:00Z", "2026-07-03T00:00:00Z"]],
    ["29 February", "0 0 29 2 *", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]],
    ["spaces around and between", "  0   0  1 1 *  ", ["2027-01-01T00:00:00Z"]],
  ])("takes %s", (_, expression, ticks) => {
    expect(checkTimetable(cron(expression))).toBeUndefined();
    expect(first(cron(expression), START, ticks.length)).toEqual(ticks);
  });

  const NEVER_DUE = "must be due on some day, and never is";
  const FIELDS = /^must have 5 fields \(minute, .*\) or 6 .*, and has \d$/;
  const CHARACTERS = /^must be made of /;
  const INVALID = /^must be a valid cron expression \(.*\): \S+/;
  it.each<[string, string | RegExp]>([
    ["", FIELDS],
    ["   ", FIELDS],
    ["* * * *", FIELDS],
    ["* * * * * * *", FIELDS],
    ["0 0 0 1 1 * 2030", FIELDS],
    ["@daily", CHARACTERS],
    ["@reboot", CHARACTERS],
    ["2030-01-01T00:00:00Z", CHARACTERS],
    ["0 0 * * *\n", CHARACTERS],
    ["0 0 * * *\0", CHARACTERS],
    ["0\u00a00 * * *", CHARACTERS],
    ["0 0 * * $(id)", CHARACTERS],
    ["60 * * * *", INVALID],
    ["60 * * * * *", INVALID],
    ["* 24 * * *", INVALID],
    ["0 0 0 * *", INVALID],
    ["0 0 32 * *", INVALID],
    ["0 0 * 0 *", INVALID],
    ["0 0 * 13 *", INVALID],
    ["0 0 * * 8", INVALID],
    ["-1 * * * *", INVALID],
    ["1.5 * * * *", CHARACTERS],
    ["*/0 * * * *", INVALID],
    ["*/61 * * * *", INVALID],
    ["*/-5 * * * *", INVALID],
    ["50-10 * * * *", INVALID],
    ["1-2-3 * * * *", INVALID],
    ["1,,2 * * * *", INVALID],
    [", * * * *", INVALID],
    ["* * * foo *", INVALID],
    ["* * * * fri#6", INVALID],
    ["* * * * fri#0", INVALID],
    ["* * * * fri#", INVALID],
    ["L * * * *", INVALID],
    ["0 0 30 2 *", NEVER_DUE],
    ["0 0 31 4,6,9,11 *", NEVER_DUE],
    ["0 0 30-31 feb *", NEVER_DUE],
    ["* * * * * 99999999999999999999", INVALID],
    [`${"1,".repeat(130)}1 * * * *`, /^must be at most 256 bytes, and has 269$/],
    ["*".repeat(100_000), /^must be at most 256 bytes/],
  ])("is refused: %j", (expression, description) => {
    expect(checkTimetable(cron(expression))).toEqual<TimetableViolation>({
      field: "cron",
      description: typeof description === "string" ? description : expect.stringMatching(description),
    });
  });
});

describe("a time zone", () => {
  it.each(["", "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "Australia/Lord_Howe"])(
    "may be %j",
    (zone) => {
      expect(checkTimetable(cron("0 0 * * *", zone))).toBeUndefined();
    },
  );

  it.each(["Europe/Atlantis", "Mars", "+01:00", "-05", " ", "Europe/Berlin ", "Europe/Berlin\0", "a".repeat(10_000)])(
    "is refused: %j",
    (zone) => {
      const refused = { field: "time_zone", description: expect.stringMatching(/^must be an IANA time zone/) };
      expect(checkTimetable(cron("0 0 * * *", zone))).toEqual(refused);
      expect(checkTimetable(every(60_000, "2026-01-01T00:00Z", zone))).toEqual(refused);
    },
  );

  it("stays right when there are more zones than are remembered", () => {
    const zones = Intl.supportedValuesOf("timeZone");
    const after = Date.parse("2026-01-01T12:00Z");
    const ticksOfAll = () => zones.map((zone) => nextTick(cron("0 0 * * *", zone), after));
    const ticks = ticksOfAll();
    expect(ticksOfAll()).toEqual(ticks);
    expect(ticks[zones.indexOf("Europe/Berlin")]).toBe(Date.parse("2026-01-01T23:00Z"));
    expect(ticks[zones.indexOf("Asia/Tokyo")]).toBe(Date.parse("2026-01-01T15:00Z"));
  });
});

describe("at the changes of summer time, an expression", () => {
  const SPRING = ["2026-03-28T12:00Z", "2026-03-30T12:00Z"] as const;
  const AUTUMN = ["2026-10-24T12:00Z", "2026-10-26T12:00Z"] as const;

  it.each([
    // Berlin, 29 March: from 2:00 to 3:00, at 01:00 UTC.
    ["0 0 * * *", "Europe/Berlin", SPRING, "03-28T23:00 03-29T22:00"],
    ["30 2 * * *", "Europe/Berlin", SPRING, "03-29T01:00 03-30T00:30"],
    ["0 30 2 * * *", "Europe/Berlin", SPRING, "03-29T01:00 03-30T00:30"],
    ["0,30 2 * * *", "Europe/Berlin", SPRING, "03-29T01:00 03-30T00:00 03-30T00:30"],
    ["0 2-3 * * *", "Europe/Berlin", SPRING, "03-29T01:00 03-30T00:00 03-30T01:00"],
    [
      "0 */6 * * *",
      "Europe/Berlin",
      SPRING,
      "03-28T17:00 03-28T23:00 03-29T04:00 03-29T10:00 03-29T16:00 03-29T22:00 03-30T04:00 03-30T10:00",
    ],
    ["*/20 2 * * *", "Europe/Berlin", SPRING, "03-30T00:00 03-30T00:20 03-30T00:40"],
    // Berlin, 25 October: from 3:00 to 2:00, at 01:00 UTC.
    ["0 0 * * *", "Europe/Berlin", AUTUMN, "10-24T22:00 10-25T23:00"],
    ["30 2 * * *", "Europe/Berlin", AUTUMN, "10-25T00:30 10-26T01:30"],
    ["0 30 2 * * *", "Europe/Berlin", AUTUMN, "10-25T00:30 10-26T01:30"],
    ["0,30 2 * * *", "Europe/Berlin", AUTUMN, "10-25T00:00 10-25T00:30 10-26T01:00 10-26T01:30"],
    ["0 2-3 * * *", "Europe/Berlin", AUTUMN, "10-25T00:00 10-25T02:00 10-26T01:00 10-26T02:00"],
    [
      "*/20 2 * * *",
      "Europe/Berlin",
      AUTUMN,
      "10-25T00:00 10-25T00:20 10-25T00:40 10-25T01:00 10-25T01:20 10-25T01:40 10-26T01:00 10-26T01:20 10-26T01:40",
    ],
    // New York, 8 March and 1 November, at 07:00 and 06:00 UTC.
    ["30 2 * * *", "America/New_York", ["2026-03-07T12:00Z", "2026-03-09T12:00Z"], "03-08T07:00 03-09T06:30"],
    ["30 1 * * *", "America/New_York", ["2026-10-31T12:00Z", "2026-11-02T12:00Z"], "11-01T05:30 11-02T06:30"],
    ["0 0 * * *", "America/New_York", ["2026-10-31T12:00Z", "2026-11-02T12:00Z"], "11-01T04:00 11-02T05:00"],
    // Lord Howe, by half an hour: 4 October from 2:00 to 2:30, and 5 April from 2:00 to 1:30.
    ["15 2 * * *", "Australia/Lord_Howe", ["2026-10-03T06:00Z", "2026-10-05T06:00Z"], "10-03T15:30 10-04T15:15"],
    ["30 2 * * *", "Australia/Lord_Howe", ["2026-10-03T06:00Z", "2026-10-05T06:00Z"], "10-03T15:30 10-04T15:30"],
    ["45 1 * * *", "Australia/Lord_Howe", ["2026-04-04T06:00Z", "2026-04-06T06:00Z"], "04-04T14:45 04-05T15:15"],
    ["0 0 * * *", "Australia/Lord_Howe", ["2026-04-04T06:00Z", "2026-04-06T06:00Z"], "04-04T13:00 04-05T13:30"],
    // Santiago leaps over midnight, and Nuuk up to it.
    ["0 0 * * *", "America/Santiago", ["2026-09-05T12:00Z", "2026-09-07T12:00Z"], "09-06T04:00 09-07T03:00"],
    ["30 23 * * *", "America/Nuuk", ["2024-03-29T12:00Z", "2024-04-01T12:00Z"], "03-30T01:30 03-31T01:00 04-01T00:30"],
    // Apia had no 30 December 2011.
    ["0 12 * * fri", "Pacific/Apia", ["2011-12-20T12:00Z", "2012-01-08T12:00Z"], "12-23T22:00 12-30T10:00 01-05T22:00"],
  ])("of fixed times is due once: %s in %s", (expression, zone, [after, until], ticks) => {
    expect(shown(cron(expression, zone), after, until).join(" ")).toBe(ticks);
  });

  it("of fixed times has no tick in the second of two hours that show the same, seen from within it", () => {
    const daily = cron("30 2 * * *", "Europe/Berlin");
    for (const at of ["2026-10-25T01:00Z", "2026-10-25T01:10Z", "2026-10-25T01:30Z", "2026-10-25T01:50Z"]) {
      expect(nextTick(daily, Date.parse(at))).toBe(Date.parse("2026-10-26T01:30Z"));
      expect(previousTick(daily, Date.parse(at))).toBe(Date.parse("2026-10-25T00:30Z"));
      // The end of the repeated hour is not part of it.
      expect(nextTick(cron("0 3 * * *", "Europe/Berlin"), Date.parse(at))).toBe(Date.parse("2026-10-25T02:00Z"));
    }
  });

  it("of passing time has the ticks of both hours that show the same, seen from within the second", () => {
    const often = cron("*/20 * * * *", "Europe/Berlin");
    expect(previousTick(often, Date.parse("2026-10-25T01:10Z"))).toBe(Date.parse("2026-10-25T01:00Z"));
    expect(previousTick(often, Date.parse("2026-10-25T00:59Z"))).toBe(Date.parse("2026-10-25T00:40Z"));
    const once = cron("59 * * * *", "Europe/Berlin");
    expect(previousTick(once, Date.parse("2026-10-25T01:10Z"))).toBe(Date.parse("2026-10-25T00:59Z"));
    expect(previousTick(once, Date.parse("2026-03-29T01:10Z"))).toBe(Date.parse("2026-03-29T00:59Z"));
  });

  it.each([
    ["Europe/Berlin", "2026-03-29T01:00Z"],
    ["Europe/Berlin", "2026-10-25T01:00Z"],
    ["America/New_York", "2026-03-08T07:00Z"],
    ["America/New_York", "2026-11-01T06:00Z"],
    ["America/Santiago", "2026-09-06T04:00Z"],
    ["Asia/Kolkata", "2026-03-29T01:00Z"],
  ])("of every hour, every quarter or every second follows the time that passes: %s at %s", (zone, change) => {
    const changeMs = Date.parse(change);
    for (const [expression, stepMs] of [
      ["0 * * * *", 3_600_000],
      ["0 0-23 * * *", 3_600_000],
      ["0 */1 * * *", 3_600_000],
      ["*/15 * * * *", 900_000],
      ["* * * * *", 60_000],
      ["*/10 * * * * *", 10_000],
    ] as const) {
      const ticks = ticksBetween(
        cron(expression, zone),
        changeMs - 3 * 3_600_000 - 1,
        changeMs + 3 * 3_600_000,
        10_000,
      );
      const steps = ticks.slice(1).map((tick, i) => tick - (ticks[i] ?? 0));
      expect(ticks.length).toBeGreaterThanOrEqual(Math.floor((6 * 3_600_000) / stepMs));
      expect(new Set(steps)).toEqual(new Set([stepMs]));
    }
  });

  it("of every quarter follows the time that passes where the clock changes by half an hour", () => {
    for (const change of ["2026-04-04T15:00Z", "2026-10-03T15:30Z"]) {
      const from = Date.parse(change) - 2 * 3_600_000;
      const ticks = ticksBetween(cron("*/15 * * * *", "Australia/Lord_Howe"), from, from + 4 * 3_600_000, 100);
      expect(ticks).toEqual(Array.from({ length: 16 }, (_, i) => from + (i + 1) * 900_000));
    }
  });

  it("of every full hour is due whenever the clock shows one", () => {
    const zone = "Australia/Lord_Howe";
    const autumn = shown(cron("0 * * * *", zone), "2026-04-04T13:30Z", "2026-04-04T16:30Z");
    expect(autumn).toEqual(["04-04T14:00", "04-04T15:30", "04-04T16:30"]);
    const spring = shown(cron("0 * * * *", zone), "2026-10-03T14:00Z", "2026-10-03T17:00Z");
    expect(spring).toEqual(["10-03T14:30", "10-03T16:00", "10-03T17:00"]);
  });
});

describe("an interval", () => {
  it("is first due one interval after its start, and then at its multiples, to the millisecond", () => {
    const timetable = every(90_500, "2026-01-01T00:00:00.123Z", "Europe/Berlin");
    const ticks = ticksBetween(timetable, 0, Number.POSITIVE_INFINITY, 3);
    const start = Date.parse("2026-01-01T00:00:00.123Z");
    expect(ticks).toEqual([start + 90_500, start + 181_000, start + 271_500]);
  });

  it("of hours counts the time that passes, also over summer time", () => {
    const ticks = shown(
      every(12 * 3_600_000, "2026-03-28T08:00Z", "Europe/Berlin"),
      "2026-03-28T08:00Z",
      "2026-03-30T08:00Z",
    );
    expect(ticks).toEqual(["03-28T20:00", "03-29T08:00", "03-29T20:00", "03-30T08:00"]);
  });

  it.each([
    ["keeps 9:00 in spring", 1, "2026-03-27T08:00Z", "Europe/Berlin", "03-28T08:00 03-29T07:00 03-30T07:00"],
    ["keeps 9:00 in autumn", 1, "2026-10-23T07:00Z", "Europe/Berlin", "10-24T07:00 10-25T08:00 10-26T08:00"],
    ["moves 2:30 to the end of a gap", 1, "2026-03-27T01:30Z", "Europe/Berlin", "03-28T01:30 03-29T01:00 03-30T00:30"],
    ["takes the first of two 2:30", 1, "2026-10-23T00:30Z", "Europe/Berlin", "10-24T00:30 10-25T00:30 10-26T01:30"],
    ["started in the second of two 2:30", 1, "2026-10-25T01:30Z", "Europe/Berlin", "10-26T01:30 10-27T01:30"],
    ["of a week keeps 9:00", 7, "2026-03-24T08:00Z", "Europe/Berlin", "03-31T07:00 04-07T07:00"],
    ["keeps 2:15 on Lord Howe", 1, "2026-10-01T15:45Z", "Australia/Lord_Howe", "10-02T15:45 10-03T15:30 10-04T15:15"],
    ["counts a day that Apia left out", 2, "2011-12-28T22:00Z", "Pacific/Apia", "12-30T10:00 12-31T22:00 01-02T22:00"],
    ["of days in UTC", 1, "2026-03-27T08:00Z", "", "03-28T08:00 03-29T08:00 03-30T08:00"],
  ])("of whole days %s", (_, days, start, zone, ticks) => {
    const count = ticks.split(" ").length;
    const found = first(every(days * DAY_MS, start, zone), start, count);
    expect(found.map((tick) => tick.slice(5, 16)).join(" ")).toBe(ticks);
  });

  it("has no tick before its first", () => {
    for (const everyMs of [1_000, DAY_MS]) {
      const timetable = every(everyMs, "2026-01-01T00:00Z", "Europe/Berlin");
      const firstTick = Date.parse("2026-01-01T00:00Z") + everyMs;
      expect(nextTick(timetable, 0)).toBe(firstTick);
      expect(previousTick(timetable, firstTick - 1)).toBeUndefined();
      expect(previousTick(timetable, firstTick)).toBe(firstTick);
    }
  });

  it("must be 1 s to 365 days", () => {
    const check = (everyMs: number) => checkTimetable(every(everyMs, "2026-01-01T00:00Z"));
    for (const allowed of [1_000, 1_001, DAY_MS, 365 * DAY_MS]) expect(check(allowed)).toBeUndefined();
    for (const refused of [0, -1_000, 999, 365 * DAY_MS + 1, Number.NaN]) {
      expect(check(refused)).toEqual({
        field: "every",
        description: expect.stringMatching(/^must be 1 s to 365 days/),
      });
    }
  });
});

describe("after a long time", () => {
  it("the last tick is found without a walk", () => {
    const at = Date.parse("2026-06-01T12:00:00.500Z");
    const started = performance.now();
    for (let i = 0; i < 100; i++) {
      expect(previousTick(every(1_000, "1990-01-01T00:00Z", "Europe/Berlin"), at)).toBe(at - 500);
      expect(previousTick(every(DAY_MS, "1990-01-01T08:00Z", "Europe/Berlin"), at)).toBe(
        Date.parse("2026-06-01T07:00Z"),
      );
      expect(previousTick(cron("* * * * * *", "Europe/Berlin"), at)).toBe(at - 500);
      expect(previousTick(cron("0 9 * * *", "Europe/Berlin"), at)).toBe(Date.parse("2026-06-01T07:00Z"));
      expect(previousTick(cron("0 0 29 2 *", "Europe/Berlin"), at)).toBe(Date.parse("2024-02-28T23:00Z"));
    }
    // About 10 ms; a walk over a billion seconds would take minutes.
    expect(performance.now() - started).toBeLessThan(2_000);
  });

  it("as many ticks are listed as asked for, the oldest first, the end included", () => {
    const hourly = cron("0 * * * *");
    const [after, until] = [Date.parse("2026-01-01T00:00Z"), Date.parse("2026-01-01T05:00Z")];
    const hour = (n: number) => after + n * 3_600_000;
    expect(ticksBetween(hourly, after, until, 100)).toEqual([1, 2, 3, 4, 5].map(hour));
    expect(ticksBetween(hourly, after, until, 2)).toEqual([1, 2].map(hour));
    expect(ticksBetween(hourly, after, until, 0)).toEqual([]);
    expect(ticksBetween(hourly, until, after, 100)).toEqual([]);
  });
});
