/**
 * Wall clocks: what a clock in a time zone shows at an instant, and back. A wall time is held as the ms since 1970 of
 * a clock in UTC that shows the same, so that arithmetic on it is plain.
 *
 * Intl tells only the offset at an instant. A zone's change of offset is found by comparing instants at most two weeks
 * apart (no zone changes twice within that time), and then by bisection.
 */

const HOUR_MS = 3_600_000;
/** No zone is, or has been, further from UTC than 15 h 57 min, so no wall time is further from its instant. */
const FURTHEST_OFFSET_MS = 16 * HOUR_MS;
/** More than the largest step back that a zone has made: a whole day, across the date line. */
const LARGEST_STEP_MS = 25 * HOUR_MS;
const BETWEEN_CHANGES_MS = 14 * 24 * HOUR_MS;
/** A formatter takes some 50 µs to make, and 25 KB; few brokers have schedules in more zones than these. */
const MOST_CLOCKS = 128;
/** Intl also takes offsets such as +01:00, which are no names. The longest name has 32 characters. */
const NAME = /^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/;

const clocks = new Map<string, Intl.DateTimeFormat>();

/** Of IANA's database, as Intl has it. */
export function isTimeZone(name: string): boolean {
  if (!NAME.test(name)) return false;
  try {
    clockOf(name);
    return true;
  } catch {
    return false;
  }
}

/** What is added to an instant for the wall time. `zone` is a name that isTimeZone() takes, or empty for UTC. */
export function offsetAt(zone: string, atMs: number): number {
  if (zone === "" || zone === "UTC") return 0;
  const second = Math.floor(atMs / 1_000) * 1_000;
  const shown: Record<string, number> = {};
  for (const { type, value } of clockOf(zone).formatToParts(second)) shown[type] = Number.parseInt(value, 10);
  const { year = 0, month = 0, day = 0, hour = 0, minute = 0, second: seconds = 0 } = shown;
  return Date.UTC(year, month - 1, day, hour, minute, seconds) - second;
}

/**
 * The latest wall time that there has been until this instant. It is what the clock shows, except while it shows times
 * for the second time: then it stands at the end of the first.
 */
export function latestWallTime(zone: string, atMs: number): number {
  const offset = offsetAt(zone, atMs);
  const beforeMs = atMs - LARGEST_STEP_MS;
  const offsetBefore = offsetAt(zone, beforeMs);
  if (offsetBefore <= offset) return atMs + offset;
  return Math.max(atMs + offset, changeBetween(zone, beforeMs, atMs) - 1 + offsetBefore);
}

/** The first instant at which the clock shows this wall time or, where it leaves it out, a later one. */
export function firstInstantOf(zone: string, wallMs: number): number {
  const earliestMs = wallMs - FURTHEST_OFFSET_MS;
  const latestMs = wallMs + FURTHEST_OFFSET_MS;
  const offset = offsetAt(zone, earliestMs);
  const offsetAfter = offsetAt(zone, latestMs);
  if (offset === offsetAfter) return wallMs - offset;
  const changeMs = changeBetween(zone, earliestMs, latestMs);
  return wallMs < changeMs + offset ? wallMs - offset : Math.max(changeMs, wallMs - offsetAfter);
}

/** The first instant after `fromMs`, and not after `untilMs`, with another offset than the one before. */
export function firstChange(zone: string, fromMs: number, untilMs: number): number | undefined {
  const offset = offsetAt(zone, fromMs);
  for (let atMs = fromMs; atMs < untilMs; ) {
    const nextMs = Math.min(untilMs, atMs + BETWEEN_CHANGES_MS);
    if (offsetAt(zone, nextMs) !== offset) return changeBetween(zone, atMs, nextMs);
    atMs = nextMs;
  }
  return undefined;
}

/** The last instant after `fromMs`, and not after `untilMs`, with another offset than the one before. */
export function lastChange(zone: string, fromMs: number, untilMs: number): number | undefined {
  const offset = offsetAt(zone, untilMs);
  for (let atMs = untilMs; atMs > fromMs; ) {
    const previousMs = Math.max(fromMs, atMs - BETWEEN_CHANGES_MS);
    if (offsetAt(zone, previousMs) !== offset) return changeBetween(zone, previousMs, atMs);
    atMs = previousMs;
  }
  return undefined;
}

/** The instant of the one change between two instants whose offsets differ: the first with the new offset. */
function changeBetween(zone: string, fromMs: number, untilMs: number): number {
  const offset = offsetAt(zone, fromMs);
  // Zones change at whole seconds.
  let before = Math.floor(fromMs / 1_000);
  let after = Math.floor(untilMs / 1_000);
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2);
    if (offsetAt(zone, middle * 1_000) === offset) before = middle;
    else after = middle;
  }
  return after * 1_000;
}

/** Throws RangeError for a name that Intl does not know. */
function clockOf(zone: string): Intl.DateTimeFormat {
  const known = clocks.get(zone);
  if (known) return known;
  const clock = new Intl.DateTimeFormat("en-US", {
    timeZone: zone,
    calendar: "gregory",
    numberingSystem: "latn",
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    second: "numeric",
  });
  const [oldest] = clocks.keys();
  if (clocks.size >= MOST_CLOCKS && oldest !== undefined) clocks.delete(oldest);
  clocks.set(zone, clock);
  return clock;
}
