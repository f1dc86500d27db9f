/** Timetables against what must hold for all of them, and against a clock that is watched minute by minute. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { nextTick, previousTick, type Timetable, ticksBetween } from "../../src/model/timetable.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

// With changes by an hour or half an hour, at night, at midnight or up to it; twice a year, around Ramadan, or none;
// and one back and one forward of each.
const CHANGES: Readonly<Record<string, readonly string[]>> = {
  "": [],
  "Asia/Kathmandu": [],
  "Europe/Berlin": ["2026-10-25T01:00Z", "2026-03-29T01:00Z"],
  "America/New_York": ["2026-11-01T06:00Z", "2026-03-08T07:00Z"],
  "America/Santiago": ["2025-04-06T03:00Z", "2025-09-07T04:00Z"],
  "America/Nuuk": ["2024-10-27T01:00Z", "2024-03-31T01:00Z"],
  "America/St_Johns": ["2025-11-02T04:30Z", "2025-03-09T05:30Z"],
  "Australia/Lord_Howe": ["2026-04-04T15:00Z", "2026-10-03T15:30Z"],
  "Africa/Cairo": ["2025-10-30T21:00Z", "2025-04-24T22:00Z"],
  "Africa/Casablanca": ["2025-02-23T02:00Z", "2025-04-06T02:00Z"],
  "Pacific/Chatham": ["2026-04-04T14:00Z", "2026-09-26T14:00Z"],
};
const HOUR_MS = 3_600_000;

const zones = fc.constantFrom(...Object.keys(CHANGES));
const anyInstants = fc.integer({ min: Date.UTC(2023, 0, 1), max: Date.UTC(2027, 0, 1) });

/** Half of them within hours of a change, where mistakes are made. */
function instantsIn(zone: string): fc.Arbitrary<number> {
  const changes = (CHANGES[zone] ?? []).map((change) => Date.parse(change));
  if (changes.length === 0) return anyInstants;
  const nearby = fc.tuple(fc.constantFrom(...changes), fc.integer({ min: -3 * HOUR_MS, max: 3 * HOUR_MS }));
  return fc.oneof(
    anyInstants,
    nearby.map(([changeMs, awayMs]) => changeMs + awayMs),
  );
}

function field(least: number, most: number): fc.Arbitrary<string> {
  const number = fc.integer({ min: least, max: most });
  return fc.oneof(
    { weight: 3, arbitrary: fc.constant("*") },
    { weight: 3, arbitrary: number.map(String) },
    fc.uniqueArray(number, { minLength: 2, maxLength: 4 }).map((numbers) => numbers.join(",")),
    fc.tuple(number, number).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
    fc.integer({ min: 2, max: most }).map((step) => `*/${step}`),
  );
}

const crons = fc
  .record({
    second: fc.oneof(fc.constant(""), field(0, 59)),
    minute: field(0, 59),
    hour: field(0, 23),
    // Days that every month has: others may make an expression that is never due.
    day: field(1, 28),
    month: field(1, 12),
    weekday: field(0, 7),
    timeZone: zones,
  })
  .map(({ second, minute, hour, day, month, weekday, timeZone }): Timetable => {
    const expression = `${second} ${minute} ${hour} ${day} ${month} ${weekday}`;
    return { kind: "cron", expression, timeZone };
  });

const everies = fc
  .record({
    everyMs: fc.oneof(
      fc.integer({ min: 1_000, max: 40 * DAY_MS }),
      fc.integer({ min: 1, max: 365 }).map((days) => days * DAY_MS),
    ),
    startMs: anyInstants,
    timeZone: zones,
  })
  .map((interval): Timetable => ({ kind: "every", ...interval }));

const timetablesAndInstants = fc
  .oneof(crons, everies)
  .chain((timetable) => fc.tuple(fc.constant(timetable), instantsIn(timetable.timeZone)));

describe("for every timetable", () => {
  it("the next and the last tick fit together, and there is none between them", () => {
    const property = fc.property(timetablesAndInstants, ([timetable, atMs]) => {
      const next = nextTick(timetable, atMs);
      if (next === undefined) throw new Error("a timetable without an end has a next tick");
      expect(next).toBeGreaterThan(atMs);
      expect(previousTick(timetable, next)).toBe(next);
      expect(nextTick(timetable, next - 1)).toBe(next);

      const previous = previousTick(timetable, atMs);
      expect(previousTick(timetable, next - 1)).toBe(previous);
      if (previous !== undefined) {
        expect(previous).toBeLessThanOrEqual(atMs);
        expect(nextTick(timetable, previous)).toBe(next);
      }
    });
    fc.assert(property, { numRuns: 1_000 });
  });

  it("ticks strictly increase, and are the same from wherever one looks back", () => {
    const property = fc.property(timetablesAndInstants, ([timetable, afterMs]) => {
      const ticks = ticksBetween(timetable, afterMs, Number.POSITIVE_INFINITY, 20);
      expect(ticks).toHaveLength(20);
      const backwards = [];
      for (let tick = ticks.at(-1); tick !== undefined && tick > afterMs; tick = previousTick(timetable, tick - 1)) {
        backwards.unshift(tick);
      }
      expect(backwards).toEqual(ticks);
      expect(new Set(ticks).size).toBe(20);
      expect(ticks).toEqual(ticks.toSorted((a, b) => a - b));
    });
    fc.assert(property, { numRuns: 300 });
  });
});

it("a daily job runs once for every day of the year, in every zone and at every time of the day", () => {
  const property = fc.property(zones, fc.nat(23), fc.nat(59), (timeZone, hour, minute) => {
    const daily: Timetable = { kind: "cron", expression: `${minute} ${hour} * * *`, timeZone };
    const ticks = ticksBetween(daily, Date.UTC(2025, 0, 1), Date.UTC(2026, 0, 1), 1_000);
    expect(ticks).toHaveLength(365);
    for (const [i, tick] of ticks.slice(1).entries()) {
      const hours = (tick - (ticks[i] ?? 0)) / HOUR_MS;
      expect(hours).toBeGreaterThanOrEqual(22.5);
      expect(hours).toBeLessThanOrEqual(25.5);
    }
  });
  fc.assert(property, { numRuns: 30 });
});

/** What a clock on the wall of that zone shows: `2026-03-29 02:30`. */
function wallClock(timeZone: string): (atMs: number) => string {
  // Swedish is written as ISO 8601 is.
  const format = new Intl.DateTimeFormat("sv-SE", {
    timeZone: timeZone || "UTC",
    dateStyle: "short",
    timeStyle: "short",
  });
  return (atMs) => format.format(atMs);
}

const isoMinute = (wallMs: number) => new Date(wallMs).toISOString().slice(0, 16).replace("T", " ");
const wallOf = (shown: string) => Date.parse(`${shown.replace(" ", "T")}Z`);

type Watched = { expression: string; matches: (shown: string) => boolean };
const minuteOf = (shown: string) => Number(shown.slice(14));
const hourOf = (shown: string) => Number(shown.slice(11, 13));

const OF_PASSING_TIME: Watched[] = [
  { expression: "* * * * *", matches: () => true },
  { expression: "*/15 * * * *", matches: (shown) => minuteOf(shown) % 15 === 0 },
  { expression: "7 * * * *", matches: (shown) => minuteOf(shown) === 7 },
  { expression: "*/20 0-2 * * *", matches: (shown) => minuteOf(shown) % 20 === 0 && hourOf(shown) <= 2 },
];

const OF_FIXED_TIMES: Watched[] = [
  { expression: "0 0 * * *", matches: (shown) => shown.endsWith(" 00:00") },
  { expression: "30 2 * * *", matches: (shown) => shown.endsWith(" 02:30") },
  { expression: "45 1,23 * * *", matches: (shown) => /(01|23):45$/.test(shown) },
  { expression: "10,50 */2 * * *", matches: (shown) => /:[15]0$/.test(shown) && hourOf(shown) % 2 === 0 },
];

describe.each([
  ["Europe/Berlin", "2026-03-27"],
  ["Europe/Berlin", "2026-10-23"],
  ["America/New_York", "2026-03-06"],
  ["America/New_York", "2026-10-30"],
  ["Australia/Lord_Howe", "2026-04-03"],
  ["Australia/Lord_Howe", "2026-10-02"],
  ["America/Santiago", "2025-04-04"],
  ["America/Santiago", "2025-09-05"],
  ["America/Nuuk", "2024-03-29"],
  ["America/Nuuk", "2024-10-25"],
])("in the four days around a change in %s, from %s", (timeZone, from) => {
  const fromMs = Date.parse(from);
  const untilMs = fromMs + 4 * DAY_MS;
  const ticksOf = (expression: string) => {
    return ticksBetween({ kind: "cron", expression, timeZone }, fromMs, untilMs, 10_000);
  };
  const minutes = Array.from({ length: (untilMs - fromMs) / MINUTE_MS }, (_, i) => fromMs + (i + 1) * MINUTE_MS);
  const show = wallClock(timeZone);
  const shownAt = minutes.map((atMs) => ({ atMs, shown: show(atMs) }));

  it.each(OF_PASSING_TIME)("$expression is due whenever the clock shows a time of it", ({ expression, matches }) => {
    const due = shownAt.filter(({ shown }) => matches(shown)).map(({ atMs }) => atMs);
    expect(ticksOf(expression)).toEqual(due);
  });

  it.each(OF_FIXED_TIMES)("$expression is due once the clock has come to a time of it", ({ expression, matches }) => {
    const due: number[] = [];
    let reachedMs = wallOf(show(fromMs));
    for (const { atMs, shown } of shownAt) {
      let isDue = false;
      for (; reachedMs < wallOf(shown); reachedMs += MINUTE_MS) isDue ||= matches(isoMinute(reachedMs + MINUTE_MS));
      if (isDue) due.push(atMs);
    }
    expect(ticksOf(expression)).toEqual(due);
  });
});
