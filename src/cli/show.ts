/** Answers for people: aligned lines, and payloads as text where they are text. */
import type { Job, JobPayload } from "../client/index.ts";

export function showJob(job: Job): string {
  const rows: [string, string | undefined][] = [
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
    ["finished at", time(job.finishedAt)],
    ["kept until", time(job.retainedUntil)],
    ...Object.entries(job.headers).map(([key, value]): [string, string] => [`header ${key}`, printable(value)]),
    ["payload", showPayload(job.payload)],
    ["result", job.result && showPayload(job.result)],
    ["error", job.error && showError(job.error)],
  ];
  const shown = rows.filter((row): row is [string, string] => row[1] !== undefined && row[1] !== "");
  const width = Math.max(...shown.map(([name]) => name.length));
  const indent = " ".repeat(width + 2);
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${value.replaceAll("\n", `\n${indent}`)}`).join("\n");
}

/** Text as it is; other bytes in base64, after their number. */
function showPayload(payload: JobPayload): string {
  const bytes = Buffer.from(payload.bytes());
  if (bytes.length === 0) return "(empty)";
  const text = asText(bytes);
  const content = text === undefined ? `${bytes.length} bytes, base64: ${bytes.toString("base64")}` : printable(text);
  return payload.contentType === "" ? content : `${content}\n(${payload.contentType})`;
}

function showError({ message, type, permanent }: NonNullable<Job["error"]>): string {
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
function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (character) => {
    return `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

function time(date: Date | undefined): string | undefined {
  return date?.toISOString();
}
