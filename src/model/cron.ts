/**
 * Cron expressions as a calendar of wall times; of time zones it knows nothing. croner reads them and walks the
 * calendar, in UTC, where every wall time exists once; what a tick's wall time means in a zone, timetable.ts says.
 *
 * Days: when both the day of the month and the day of the week are given, either is enough, as in classic cron
 * (croner's domAndDow false); a + before the day of the week asks for both. Besides the contract's, croner knows
 * 15W (the working day nearest to the 15th), LW, friL (as fri#L) and ? (as *).
 */
import { Cron, CronPattern } from "croner";

export type Calendar = {
  /**
   * Its hours are some of the day's, its minutes and seconds numbers, lists or ranges: each of its times is meant once
   * a day. Otherwise it goes by passing time: every hour, or by * or steps within the hour.
   */
  readonly hasFixedTimes: boolean;
  /** The first tick after a wall time; undefined when there is none in 400 years, thus none ever. */
  next(wallMs: number): number | undefined;
  /** The last tick at or before a wall time. */
  previous(wallMs: number): number | undefined;
};

const LONGEST_BYTES = 256;
/** Of these characters only: keeps out nicknames (@daily) and dates, which croner would take, too. */
const CHARACTERS = /^[A-Za-z0-9*,/#+?\- ]*$/;
const RANGES = "minute 0-59, hour 0-23, day of month 1-31, month 1-12, day of week 0-7";
/** Any: the calendar repeats itself every 400 years. */
const SOME_DAY_MS = Date.UTC(2026, 0, 1);
/** Reading an expression takes some 20 µs, finding a tick 4. When there are more, the one read first makes room. */
const MOST_CALENDARS = 1_000;

const calendars = new Map<string, Calendar>();

/** What is wrong with an expression, as a sentence that begins with "must"; undefined: nothing. */
export function checkCron(expression: string): string | undefined {
  if (!CHARACTERS.test(expression)) return "must be made of A-Z a-z 0-9 * , / # + ? - and spaces";
  const bytes = expression.length;
  if (bytes > LONGEST_BYTES) return `must be at most ${LONGEST_BYTES} bytes, and has ${bytes}`;
  const fields = fieldsOf(expression).length;
  if (fields !== 5 && fields !== 6) {
    return `must have 5 fields (minute, hour, day of month, month, day of week) or 6 (second first), and has ${fields}`;
  }
  try {
    if (calendarOf(expression).next(SOME_DAY_MS) === undefined) return "must be due on some day, and never is";
    return undefined;
  } catch (error) {
    return `must be a valid cron expression (${RANGES}): ${reasonOf(error)}`;
  }
}

/** In croner's words, without what is about its own code. */
function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/^CronPattern: /, "").replace(/\. Value: (.*), Type: \w+$/, ", and is $1");
}

/** Throws for an expression that checkCron() refuses. */
export function calendarOf(expression: string): Calendar {
  const known = calendars.get(expression);
  if (known) return known;
  const calendar = readCalendar(expression);
  const [oldest] = calendars.keys();
  if (calendars.size >= MOST_CALENDARS && oldest !== undefined) calendars.delete(oldest);
  calendars.set(expression, calendar);
  return calendar;
}

function readCalendar(expression: string): Calendar {
  const cron = new Cron(expression, { mode: "5-or-6-parts", utcOffset: 0, domAndDow: false });
  return {
    hasFixedTimes: hasFixedTimes(expression),
    next: (wallMs) => cron.nextRun(new Date(wallMs))?.getTime(),
    // croner looks strictly before.
    previous: (wallMs) => cron.previousRuns(1, new Date(wallMs + 1))[0]?.getTime(),
  };
}

function hasFixedTimes(expression: string): boolean {
  const { second, minute, hour } = new CronPattern(expression, undefined, { mode: "5-or-6-parts" });
  const fields = fieldsOf(expression);
  const [secondField = "0", minuteField = ""] = fields.length === 6 ? fields : ["0", ...fields];
  // By their values, not their spelling: 0-23 and */1 are every hour, */12 is 0,12, and */60 in the minutes is 0.
  const recurs = (field: string, values: readonly number[]) => /[*?/]/.test(field) && values.filter(Boolean).length > 1;
  return !hour.every(Boolean) && !recurs(minuteField, minute) && !recurs(secondField, second);
}

function fieldsOf(expression: string): string[] {
  return expression.split(" ").filter((field) => field !== "");
}
