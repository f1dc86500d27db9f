/**
 * What becomes of the ticks that are due. Those of the last 10 s are on time: each is put. Older ones were missed, since
 * no broker was up, and the schedule says what becomes of them:
 *   none  they are left out
 *   one   one job makes up for the whole time: of all that are due, only the last is put
 *   all   each is put, the oldest first
 */
import type { CatchUp } from "./schedule.ts";
import { nextTick, type Timetable, ticksBetween } from "./timetable.ts";

export type DueTicks = {
  /** To be put, the oldest first. */
  readonly put: readonly number[];
  readonly leftOut: number;
  /** Due already when there were more than could be dealt with at once; undefined: there is none. */
  readonly next: number | undefined;
};

export type CatchUpOptions = {
  readonly catchUp: CatchUp;
  /** The first tick that nothing has become of, at or before `nowMs`. */
  readonly tickMs: number;
  readonly nowMs: number;
  /** At most so many are put, at least 1. */
  readonly most: number;
};

const ON_TIME_MS = 10_000;
/** Walking through this many ticks takes some 5 ms, in time zones 20: nobody has to wait long for the rest. */
const MOST_TICKS = 1_000;

export function dueTicks(timetable: Timetable, { catchUp, tickMs, nowMs, most }: CatchUpOptions): DueTicks {
  const due = ticksFrom(timetable, tickMs, nowMs);
  const missed = due.filter((tick) => tick < nowMs - ON_TIME_MS);
  const isMore = due.length === MOST_TICKS;
  if (isMore && catchUp !== "all") {
    // The last one missed stands for all of them: by it, the next call knows that some were.
    return { put: [], leftOut: missed.length - 1, next: missed.at(-1) };
  }
  const wanted = chosen(catchUp, due, missed.length);
  const put = wanted.slice(0, most);
  const next = wanted[put.length] ?? nextTick(timetable, isMore ? (due.at(-1) ?? nowMs) : nowMs);
  return { put, leftOut: due.length - wanted.length, next };
}

function chosen(catchUp: CatchUp, due: readonly number[], missed: number): readonly number[] {
  if (missed === 0 || catchUp === "all") return due;
  return catchUp === "none" ? due.slice(missed) : due.slice(-1);
}

/** The first tick itself and those after it. It counts even where other rules of the time zone put it elsewhere today. */
function ticksFrom(timetable: Timetable, tickMs: number, untilMs: number): number[] {
  return [tickMs, ...ticksBetween(timetable, tickMs, untilMs, MOST_TICKS - 1)];
}
