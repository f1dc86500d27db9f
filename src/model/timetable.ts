/**
 * When a schedule is due: at the times of a cron expression, or at an interval. Ticks are ms since 1970, and strictly
 * increase. There are two kinds of timetables, which differ where summer time begins and ends:
 *
 * 1. Those of fixed times: expressions such as `30 2 * * *` or `0,30 9-17 * * *` (cron.ts says which), and intervals of
 *    whole days. Each wall time is due when the clock first shows it or, where it leaves it out, at the first moment
 *    after the gap; so each is due once. Those that meet at the end of a gap are one tick. In other words: a wall time
 *    is due as soon as the latest wall time so far has reached it, and that never goes back.
 * 2. Those of passing time: expressions such as `0 * * * *`, and other intervals. An expression is due whenever the clock
 *    shows a time that matches: in a repeated hour twice, in one that is left out not at all.
 *
 * croner has the same two kinds, but its own walk through a zone is not used. It skips a daily 23:30 where the clock leaps
 * from 23:00 to 0:00 (America/Nuuk), and `0 0-23/6 * * *` where it leaps over midnight. Of its two rules for telling the
 * kinds apart, one skips `0 2,14 * * *`, and the other runs `0 0-23 * * *` once in two hours that show the same.
 */
import { calendarOf, checkCron } from "./cron.ts";
import { firstChange, firstInstantOf, isTimeZone, lastChange, latestWallTime, offsetAt } from "./time-zone.ts";

/** The time zone is an IANA name, or empty for UTC. An interval's first tick is one interval after its start. */
export type Timetable =
  | { readonly kind: "cron"; readonly expression: string; readonly timeZone: string }
  | { readonly kind: "every"; readonly everyMs: number; readonly timeZone: string; readonly startMs: number };

export type TimetableViolation = {
  readonly field: "cron" | "every" | "time_zone";
  readonly description: string;
};

/** The ticks of one timetable: the first after an instant, and the last at or before it. */
type Ticks = {
  next(afterMs: number): number | undefined;
  previous(atMs: number): number | undefined;
};

const DAY_MS = 86_400_000;
const SHORTEST_INTERVAL_MS = 1_000;
const LONGEST_INTERVAL_MS = 365 * DAY_MS;

/** What is wrong with it, if anything is. The functions below take no timetable that is refused here. */
export function checkTimetable(timetable: Timetable): TimetableViolation | undefined {
  const { timeZone } = timetable;
  if (timeZone !== "" && !isTimeZone(timeZone)) {
    return { field: "time_zone", description: "must be an IANA time zone such as Europe/Berlin, or empty for UTC" };
  }
  if (timetable.kind === "every") {
    const { everyMs } = timetable;
    const isAllowed = everyMs >= SHORTEST_INTERVAL_MS && everyMs <= LONGEST_INTERVAL_MS;
    return isAllowed ? undefined : { field: "every", description: `must be 1 s to 365 days, and is ${everyMs} ms` };
  }
  const description = checkCron(timetable.expression);
  return description === undefined ? undefined : { field: "cron", description };
}

/** The first tick after this instant. */
export function nextTick(timetable: Timetable, afterMs: number): number | undefined {
  return ticksOf(timetable).next(afterMs);
}

/** The last tick at or before this instant, however long ago; undefined: there is none. */
export function previousTick(timetable: Timetable, atMs: number): number | undefined {
  return ticksOf(timetable).previous(atMs);
}

/** The first `limit` ticks after `afterMs`, up to and including `untilMs`. */
export function ticksBetween(timetable: Timetable, afterMs: number, untilMs: number, limit: number): number[] {
  const ticks = ticksOf(timetable);
  const found: number[] = [];
  let tick = ticks.next(afterMs);
  while (tick !== undefined && tick <= untilMs && found.length < limit) {
    found.push(tick);
    tick = ticks.next(tick);
  }
  return found;
}

function ticksOf(timetable: Timetable): Ticks {
  const { timeZone } = timetable;
  if (timetable.kind === "cron") {
    const calendar = calendarOf(timetable.expression);
    return calendar.hasFixedTimes ? ticksOfFixedTimes(timeZone, calendar) : ticksOfPassingTime(timeZone, calendar);
  }
  const { everyMs, startMs } = timetable;
  if (everyMs % DAY_MS !== 0) return multiples(startMs, everyMs);
  return ticksOfFixedTimes(timeZone, multiples(startMs + offsetAt(timeZone, startMs), everyMs));
}

/** `start + interval`, `start + 2 × interval`, … */
function multiples(start: number, interval: number): Ticks {
  return {
    next: (after) => start + Math.max(1, Math.floor((after - start) / interval) + 1) * interval,
    previous: (at) => {
      const count = Math.floor((at - start) / interval);
      return count >= 1 ? start + count * interval : undefined;
    },
  };
}

/** From here on, `wall` is a calendar: ticks in wall times, which these functions turn into instants. */
function ticksOfFixedTimes(zone: string, wall: Ticks): Ticks {
  const dueAt = (wallMs: number | undefined) => (wallMs === undefined ? undefined : firstInstantOf(zone, wallMs));
  return {
    next: (afterMs) => dueAt(wall.next(latestWallTime(zone, afterMs))),
    previous: (atMs) => dueAt(wall.previous(latestWallTime(zone, atMs))),
  };
}

/** Searches period by period of one offset, within which the clock runs evenly. */
function ticksOfPassingTime(zone: string, wall: Ticks): Ticks {
  return {
    next(afterMs) {
      let fromMs = afterMs;
      let afterWallMs = afterMs + offsetAt(zone, afterMs);
      for (;;) {
        const offset = offsetAt(zone, fromMs);
        const wallMs = wall.next(afterWallMs);
        if (wallMs === undefined) return undefined;
        const tickMs = wallMs - offset;
        const changeMs = firstChange(zone, fromMs, tickMs);
        if (changeMs === undefined) return tickMs;
        fromMs = changeMs;
        // The change itself may be a tick.
        afterWallMs = changeMs + offsetAt(zone, changeMs) - 1;
      }
    },
    previous(atMs) {
      let untilMs = atMs;
      for (;;) {
        const offset = offsetAt(zone, untilMs);
        const wallMs = wall.previous(untilMs + offset);
        if (wallMs === undefined) return undefined;
        const tickMs = wallMs - offset;
        const changeMs = lastChange(zone, tickMs, untilMs);
        if (changeMs === undefined) return tickMs;
        untilMs = changeMs - 1;
      }
    },
  };
}
