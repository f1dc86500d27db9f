/**
 * The headers by which a web hook learns which job it gets.
 *
 * A job's own headers may hold anything, and HTTP's may not. One whose name and value HTTP carries unchanged becomes
 * `baton-header-<name>`; the prefix keeps it from being taken for one of the post's own. Any other (line breaks, control
 * characters, spaces around the value, no ASCII, two names that differ only in case) stands in `baton-headers`, a JSON
 * object in ASCII. So nothing is lost, and no job can write a header, or a second request, of its own.
 */
import { PermanentError, type WorkerJob } from "../client/index.ts";
import { asText } from "./show.ts";
import { isHeaderName, isHeaderValue } from "./web-hook-target.ts";

/** The broker's default for a job's headers. Most servers take 8 to 32 KiB in all and answer 431 to more. */
const HEADERS_LIMIT_BYTES = 64 * 1024;

export function headersOf(job: WorkerJob, body: Uint8Array): Record<string, string> {
  const { queue, id, attempt, putAt } = job;
  const contentType = contentTypeOf(job, body);
  return {
    "user-agent": "baton",
    ...(contentType !== undefined && { "content-type": contentType }),
    "content-length": String(body.length),
    "baton-queue": inAscii(queue),
    "baton-job-id": inAscii(id),
    "baton-attempt": String(attempt),
    // The same in every attempt, and another one for the next job that gets this id.
    "idempotency-key": `${inAscii(queue)}/${inAscii(id)}/${putAt.getTime()}`,
    ...ownHeadersOf(job),
  };
}

/** The one that was put; else what the bytes show. An empty payload is of no type. */
function contentTypeOf({ payload: { contentType } }: WorkerJob, body: Uint8Array): string | undefined {
  if (contentType !== "" && isHeaderValue(contentType)) return contentType;
  if (body.length === 0) return undefined;
  return asText(body) === undefined ? "application/octet-stream" : "text/plain; charset=utf-8";
}

function ownHeadersOf({ headers }: WorkerJob): Record<string, string> {
  const spellings = Map.groupBy(Object.keys(headers), (name) => name.toLowerCase());
  const isUnique = (name: string) => spellings.get(name.toLowerCase())?.length === 1;
  const sent: Record<string, string> = {};
  const others: [string, string][] = [];
  for (const [name, value] of Object.entries(headers)) {
    if (isHeaderName(name) && isHeaderValue(value) && isUnique(name))
      sent[`baton-header-${name.toLowerCase()}`] = value;
    else others.push([name, value]);
  }
  if (others.length > 0) sent["baton-headers"] = asciiJson(Object.fromEntries(others));
  const size = Object.entries(sent).reduce((sum, [name, value]) => sum + name.length + value.length, 0);
  if (size <= HEADERS_LIMIT_BYTES) return sent;
  const message = `the job's headers take ${size} bytes in HTTP, and a post carries at most ${HEADERS_LIMIT_BYTES}`;
  throw new PermanentError(message, { type: "HEADERS_TOO_LARGE" });
}

/** Unchanged where it is visible ASCII, as most ids are; else, and for %, in percent-encoding. */
function inAscii(text: string): string {
  return text.replace(/[^\x21-\x24\x26-\x7e]/gu, encodeURIComponent);
}

function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(/[^\x20-\x7e]/g, (unit) => {
    return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
