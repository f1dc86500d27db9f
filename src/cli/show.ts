/** Answers for people: aligned lines, and payloads as text where they are text. */
import type { Job, JobPayload, JobProgress, UniqueInput } from "../client/index.ts";

/** The names and values of one thing; a value that is undefined or empty is left out. */
export type Rows = readonly (readonly [name: string, value: string | undefined])[];

export function showJob(job: Job): string {
  return showRows([
    ["queue", job.queue],
    ["id", job.id],
    ["state", job.state],
    ["priority", String(job.priority)],
    ["put at", time(job.putAt)],
    ["runs at", time(job.runAt)],
    ["attempt", String(job.attempt)],
    ["failures", String(job.failures)],
    ["worker", job.workerId],
    ["reserved at", time(job.reservedAt)],
    ["lease until", time(job.leaseExpiresAt)],
    ["progress", job.progress && printable(showProgress(job.progress))],
    ["finished at", time(job.finishedAt)],
    ["kept until", time(job.retainedUntil)],
    ["concurrency", job.concurrency && `${printable(job.concurrency.key)}, at most ${job.concurrency.limit} at once`],
    ["unique", job.unique && showUnique(job.unique)],
    ...headerRows(job.headers),
    ["payload", job.payloadOmitted ? "(left out beside the result: --omit-result shows it)" : showPayload(job.payload)],
    ["result", job.result && showPayload(job.result)],
    ["error", job.error && showError(job.error)],
  ]);
}

export function headerRows(headers: Readonly<Record<string, string>>): Rows {
  return Object.entries(headers).map(([key, value]) => [`header ${key}`, printable(value)]);
}

export function showUnique({ key, until, expiresInMs }: UniqueInput): string {
  const ends = [until ?? "SUCCESS", expiresInMs === undefined ? "" : `${roughly(expiresInMs)} at most`];
  return `${printable(key)}, until ${ends.filter((part) => part !== "").join(", ")}`;
}

export function showRows(rows: Rows): string {
  const shown = rows.filter((row): row is [string, string] => row[1] !== undefined && row[1] !== "");
  const width = Math.max(...shown.map(([name]) => name.length));
  const indent = " ".repeat(width + 2);
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${value.replaceAll("\n", `\n${indent}`)}`).join("\n");
}

/** Text as it is; other bytes in base64, after their number. */
export function showPayload(payload: JobPayload): string {
  const bytes = Buffer.from(payload.bytes());
  if (bytes.length === 0) return "(empty)";
  const text = asText(bytes);
  const content = text === undefined ? `${bytes.length} bytes, base64: ${bytes.toString("base64")}` : printable(text);
  return payload.contentType === "" ? content : `${content}\n(${payload.contentType})`;
}

export function showProgress({ percent, note }: JobProgress): string {
  return note === "" ? `${percent} %` : `${percent} %  ${note}`;
}

export function showError({ message, type, permanent }: NonNullable<Job["error"]>): string {
  return `${type === "" ? "" : `${type}: `}${printable(message)}${permanent ? " (permanent)" : ""}`;
}

/** The text that these bytes are in UTF-8, or undefined where they are none. */
export function asText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** What a job holds must not steer the reader's terminal: control characters show as escapes, but line break and tab. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

/** As above, and on one line of at most `limit` characters. */
export function oneLine(text: string, limit = Number.POSITIVE_INFINITY): string {
  const line = printable(text).replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  return line.length > limit ? `${line.slice(0, limit - 1)}…` : line;
}

export function time(date: Date | undefined): string | undefined {
  return date?.toISOString();
}

/** To the second, for tables. */
export function shortTime(date: Date | undefined): string {
  return date?.toISOString().replace(/\.\d+Z$/, "Z") ?? "";
}

const UNITS: readonly (readonly [string, number])[] = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1_000],
];

/** A duration in its two largest units: 3m12s, 2d4h; exact below a second. */
export function roughly(ms: number): string {
  const first = UNITS.findIndex(([, size]) => ms >= size);
  if (first === -1) return `${Math.round(ms)}ms`;
  let left = ms;
  const parts = UNITS.slice(first, first + 2).map(([unit, size]) => {
    const count = Math.floor(left / size);
    left -= count * size;
    return count === 0 ? "" : `${count}${unit}`;
  });
  return parts.join("");
}
