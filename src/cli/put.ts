/** `baton put`: puts one job, from an argument or from stdin. */
import { fstatSync } from "node:fs";
import type { PayloadInput } from "../client/index.ts";
import { choice, decimal, duration, instant, integer, type Kind, text } from "../setting-values.ts";
import { command, type Io, print } from "./command.ts";
import { list, UsageError, value } from "./options.ts";
import { asText } from "./show.ts";
import { clientOptions, withClient } from "./with-client.ts";

/** More than any broker takes; it only keeps an endless stdin from filling the memory. */
const STDIN_LIMIT_BYTES = 512 * 1024 * 1024;

const DAY_MS = 86_400_000;
const anyDuration = duration(0, 36_525 * DAY_MS);

const header: Kind<readonly [string, string]> = {
  parse: (written) => {
    const equals = written.indexOf("=");
    return equals < 1 ? undefined : [written.slice(0, equals), written.slice(equals + 1)];
  },
  show: ([key, content]) => `${key}=${content}`,
  ask: "a header such as tenant=acme",
  placeholder: "KEY=VALUE",
};

export const put = command({
  name: "put",
  usage: "QUEUE [TEXT | -] [options]",
  summary: "Puts a job and prints its id. Without TEXT, or with -, the payload is read from stdin.",
  options: {
    id: value(text(/./s, "an id", "ID"), "The job's id within its queue. [default: a new UUIDv7]"),
    delay: value(anyDuration, "The job may run so long from now."),
    runAt: value(instant, "The job may run at this time, such as 2027-01-31T08:00:00Z."),
    priority: value(integer(0, 9), "0 to 9, higher first. [default 0]"),
    header: list(header, "A header for the worker; can be repeated."),
    contentType: value(text(/./, "a media type", "TYPE"), "The payload's media type."),
    lease: value(anyDuration, "How long a worker may hold the job without sign of life. [default 30s]"),
    runTimeout: value(anyDuration, "How long one attempt may take. [default: no limit]"),
    maxAttempts: value(integer(1, 1_000), "How many failed attempts the job may have. [default 25]"),
    initialBackoff: value(anyDuration, "The wait after the first failure. [default 1s]"),
    maxBackoff: value(anyDuration, "The longest wait after a failure. [default 1h]"),
    multiplier: value(decimal(1, 100), "By what each wait is longer than the one before. [default 2]"),
    jitter: value(decimal(0, 1), "What part of each wait is left to chance. [default 0.2]"),
    retention: value(anyDuration, "How long the job is kept once completed. [default 5m]"),
    expiresIn: value(anyDuration, "How long the job may wait for its first worker. [default: for ever]"),
    onConflict: value(choice("reject", "keep", "replace"), "What to do when the id is taken. [default reject]"),
    ...clientOptions,
  },
  async run(values, args, io) {
    const [queue, content, ...rest] = args;
    if (queue === undefined) throw new UsageError("write a queue: baton put QUEUE [TEXT | -]");
    if (rest.length > 0) throw new UsageError(`${rest[0]}: one payload only; put a TEXT with spaces in quotes`);
    if (values.delay !== undefined && values.runAt !== undefined) {
      throw new UsageError("write --delay or --run-at, not both");
    }
    const payload = content === undefined || content === "-" ? await readStdin(io, content === "-") : content;
    const { initialBackoff, maxBackoff, maxAttempts, multiplier, jitter } = values;
    return await withClient(values, io, async (client) => {
      const result = await client.put({
        queue,
        id: values.id,
        payload,
        contentType: values.contentType,
        headers: Object.fromEntries(values.header),
        priority: values.priority,
        delayMs: values.delay,
        runAt: values.runAt,
        leaseMs: values.lease,
        runTimeoutMs: values.runTimeout,
        retry: { maxAttempts, initialBackoffMs: initialBackoff, maxBackoffMs: maxBackoff, multiplier, jitter },
        retentionMs: values.retention,
        expiresInMs: values.expiresIn,
        onConflict: toUpperCase(values.onConflict),
      });
      print(io, values.json ? JSON.stringify(result) : result.jobId);
      return 0;
    });
  },
});

function toUpperCase<T extends string>(word: T | undefined): Uppercase<T> | undefined {
  return word?.toUpperCase() as Uppercase<T> | undefined;
}

/** Text where it is UTF-8, so that people can read it later; any other bytes as they are. */
async function readStdin(io: Io, asked: boolean): Promise<PayloadInput> {
  if (!asked && io.stdin.isTTY) throw new UsageError("write the payload as TEXT, or - to type it, or pipe it in");
  if (!asked && io.stdin === process.stdin && fstatSync(0).isCharacterDevice()) return "";
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of io.stdin) {
    const bytes = Buffer.from(chunk);
    size += bytes.length;
    if (size > STDIN_LIMIT_BYTES)
      throw new Error(`stdin holds more than ${STDIN_LIMIT_BYTES} bytes: no broker takes that`);
    chunks.push(bytes);
  }
  const bytes = Buffer.concat(chunks);
  return asText(bytes) ?? bytes;
}
