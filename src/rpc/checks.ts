/**
 * Checks the fields of one request, and collects what is wrong with them: a caller is told everything at once.
 * Each method takes the field's path as the caller knows it, and returns the value in the broker's terms; what it
 * returns for a bad field is of no use, because `done()` throws.
 */
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import { badRequest, type FieldViolation } from "../model/errors.ts";

const QUEUE_NAME = /^[A-Za-z0-9._:-]{1,128}$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for.
const CONTROL_CHARACTERS = /[\u0000-\u001f\u007f-\u009f]/;

export const ID_BYTES = 255;
export const NAME_BYTES = 255;
const MS_PER_DAY = 86_400_000;

/** What the contract allows at most, anywhere. */
export const LONGEST_MS = 36_525 * MS_PER_DAY;
export const YEAR_MS = 365 * MS_PER_DAY;
export const SHORTEST_LEASE_MS = 100;
export const LONGEST_LEASE_MS = 7 * MS_PER_DAY;

export class Checks {
  readonly #violations: FieldViolation[] = [];

  refuse(field: string, description: string): void {
    this.#violations.push({ field, description });
  }

  /** Throws INVALID_ARGUMENT with all that was refused, if anything was. */
  done(): void {
    if (this.#violations.length > 0) throw badRequest(this.#violations);
  }

  queue(field: string, name: string): string {
    if (!isQueueName(name)) this.refuse(field, "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -");
    return name;
  }

  id(field: string, id: string): string {
    const bytes = Buffer.byteLength(id);
    if (bytes === 0 || bytes > ID_BYTES)
      this.refuse(field, `must be 1 to ${ID_BYTES} bytes of UTF-8, and has ${bytes}`);
    else if (CONTROL_CHARACTERS.test(id)) this.refuse(field, "must not contain control characters");
    return id;
  }

  /** A short text for people: a worker's id, an error's type, a media type. May be empty. */
  name(field: string, text: string): string {
    this.bytes(field, text, NAME_BYTES);
    if (CONTROL_CHARACTERS.test(text)) this.refuse(field, "must not contain control characters");
    return text;
  }

  bytes(field: string, text: string, most: number): string {
    const bytes = Buffer.byteLength(text);
    if (bytes > most) this.refuse(field, `must be at most ${most} bytes, and has ${bytes}`);
    return text;
  }

  integer(field: string, value: number, least: number, most: number): number {
    if (value < least || value > most) this.refuse(field, `must be ${least} to ${most}, and is ${value}`);
    return value;
  }

  number(field: string, value: number, least: number, most: number): number {
    // Also refuses NaN.
    if (!(value >= least && value <= most)) this.refuse(field, `must be ${least} to ${most}, and is ${value}`);
    return value;
  }

  count(field: string, count: number, most: number): void {
    if (count === 0 || count > most) this.refuse(field, `must have 1 to ${most} entries, and has ${count}`);
  }

  /** In whole ms, a fraction rounded up; undefined when not set, or refused: no check goes by a bad value. */
  duration(field: string, value: Duration | undefined, leastMs: number, mostMs: number): number | undefined {
    if (!value) return undefined;
    const seconds = Number(value.seconds);
    const { nanos } = value;
    if (Math.abs(nanos) > 999_999_999 || seconds * nanos < 0) {
      this.refuse(field, "is no valid Duration: nanos must be within ±999,999,999 and of the same sign as seconds");
      return undefined;
    }
    const ms = seconds * 1_000 + Math.ceil(nanos / 1_000_000);
    if (seconds < 0 || nanos < 0 || ms < leastMs || ms > mostMs) {
      this.refuse(field, `must be ${showMs(leastMs)} to ${showMs(mostMs)}, and is ${showSeconds(seconds, nanos)}`);
      return undefined;
    }
    return ms;
  }

  /** In whole ms since 1970, a fraction rounded up, so that nothing runs early; a past time is allowed. */
  runAt(field: string, value: Timestamp): number {
    const { nanos } = value;
    const ms = Number(value.seconds) * 1_000 + Math.ceil(nanos / 1_000_000);
    if (nanos < 0 || nanos > 999_999_999) this.refuse(field, "is no valid Timestamp: nanos must be 0 to 999,999,999");
    else if (ms > Date.now() + LONGEST_MS) this.refuse(field, `must be at most ${showMs(LONGEST_MS)} ahead`);
    return Math.max(0, ms);
  }

  /** An enum is open in proto3: an unknown number arrives as it is. */
  choice<T>(field: string, value: number, choices: ReadonlyMap<number, T>, names: string): T {
    const choice = choices.get(value);
    if (choice === undefined) this.refuse(field, `must be one of ${names}, and is ${value}`);
    return choice as T;
  }
}

export function isQueueName(name: string): boolean {
  return QUEUE_NAME.test(name);
}

function showSeconds(seconds: number, nanos: number): string {
  return `${seconds + nanos / 1e9} s`;
}

function showMs(ms: number): string {
  if (ms % MS_PER_DAY === 0 && ms > 0) return `${(ms / MS_PER_DAY).toLocaleString("en")} days`;
  if (ms % 3_600_000 === 0 && ms > 0) return `${ms / 3_600_000} h`;
  if (ms % 60_000 === 0 && ms > 0) return `${ms / 60_000} min`;
  return ms % 1_000 === 0 ? `${ms / 1_000} s` : `${ms} ms`;
}
