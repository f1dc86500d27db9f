/** The options that say what a job is like: of a put, and of the job that a schedule puts. */
import type { TemplateInput } from "../client/index.ts";
import { choice, decimal, duration, integer, type Kind, text } from "../setting-values.ts";
import { list, type OptionValues, UsageError, value } from "./options.ts";

const DAY_MS = 86_400_000;

export const anyDuration = duration(0, 36_525 * DAY_MS);

const header: Kind<readonly [string, string]> = {
  parse: (written) => {
    const equals = written.indexOf("=");
    return equals < 1 ? undefined : [written.slice(0, equals), written.slice(equals + 1)];
  },
  show: ([key, content]) => `${key}=${content}`,
  ask: "a header such as tenant=acme",
  placeholder: "KEY=VALUE",
};

/** Of a job, and of a queue for the jobs that don't say. */
export const retryOptions = {
  maxAttempts: value(integer(1, 1_000), "How many failed attempts a job may have. [default 25]"),
  initialBackoff: value(anyDuration, "The wait after the first failure. [default 1s]"),
  maxBackoff: value(anyDuration, "The longest wait after a failure. [default 1h]"),
  multiplier: value(decimal(1, 100), "By what each wait is longer than the one before. [default 2]"),
  jitter: value(decimal(0, 1), "What part of each wait is left to chance. [default 0.2]"),
  backoffCurve: value(choice("exponential", "exq"), "exq: n⁴ + 15 s and some chance. [default exponential]"),
};

export const jobOptions = {
  priority: value(integer(0, 9), "0 to 9, higher first. [default 0]"),
  header: list(header, "A header for the worker; can be repeated."),
  contentType: value(text(/./, "a media type", "TYPE"), "The payload's media type."),
  lease: value(anyDuration, "How long a worker may hold the job without sign of life. [default 30s]"),
  runTimeout: value(anyDuration, "How long one attempt may take. [default: no limit]"),
  ...retryOptions,
  retention: value(anyDuration, "How long the job is kept once completed. [default 5m]"),
  expiresIn: value(anyDuration, "How long the job may wait for its first worker. [default: for ever]"),
  concurrencyKey: value(
    text(/./s, "a key", "KEY"),
    "Of the jobs with this key, at most --concurrency-limit run at once.",
  ),
  concurrencyLimit: value(integer(1, 1_000_000), "How many; required with --concurrency-key."),
  uniqueKey: value(text(/./s, "a key", "KEY"), "Keeps other jobs with this key out of the queue."),
  uniqueUntil: value(
    choice("start", "success", "expiry"),
    "Until a worker has it, it is completed, or --unique-for has passed. [default success]",
  ),
  uniqueFor: value(anyDuration, "The unique key is free at the latest after so long. [default: no limit]"),
};

export function toTemplate(values: OptionValues<typeof jobOptions>): TemplateInput {
  return {
    contentType: values.contentType,
    headers: Object.fromEntries(values.header),
    priority: values.priority,
    leaseMs: values.lease,
    runTimeoutMs: values.runTimeout,
    retry: toRetry(values),
    retentionMs: values.retention,
    expiresInMs: values.expiresIn,
    concurrency: toConcurrency(values),
    unique: toUnique(values),
  };
}

/** Undefined where nothing was written. */
export function toRetry(values: OptionValues<typeof retryOptions>): TemplateInput["retry"] {
  const retry = {
    maxAttempts: values.maxAttempts,
    initialBackoffMs: values.initialBackoff,
    maxBackoffMs: values.maxBackoff,
    multiplier: values.multiplier,
    jitter: values.jitter,
    curve: upperCase(values.backoffCurve),
  };
  return Object.values(retry).some((setting) => setting !== undefined) ? retry : undefined;
}

export function upperCase<T extends string>(word: T | undefined): Uppercase<T> | undefined {
  return word?.toUpperCase() as Uppercase<T> | undefined;
}

function toConcurrency(values: OptionValues<typeof jobOptions>): TemplateInput["concurrency"] {
  const { concurrencyKey: key, concurrencyLimit: limit } = values;
  if (key === undefined && limit === undefined) return undefined;
  if (key === undefined || limit === undefined) {
    throw new UsageError("--concurrency-key and --concurrency-limit: write both, or none");
  }
  return { key, limit };
}

function toUnique(values: OptionValues<typeof jobOptions>): TemplateInput["unique"] {
  const { uniqueKey: key, uniqueUntil: until, uniqueFor: expiresInMs } = values;
  if (key === undefined) {
    if (until === undefined && expiresInMs === undefined) return undefined;
    throw new UsageError("--unique-until and --unique-for: write --unique-key, too");
  }
  if (until === "expiry" && expiresInMs === undefined) {
    throw new UsageError("--unique-until expiry: write --unique-for, too");
  }
  return { key, until: upperCase(until), expiresInMs };
}
