/** `baton queues set`: what holds for a queue, and for its jobs that don't say. */
import type { QueueChange } from "../client/index.ts";
import { choice, duration, integer } from "../setting-values.ts";
import { command, print } from "./command.ts";
import { anyDuration, retryOptions, toRetry, upperCase } from "./job-options.ts";
import { list, UsageError, value } from "./options.ts";
import { showQueue } from "./show-queue.ts";
import { clientOptions, withClient } from "./with-client.ts";

const DAY_MS = 86_400_000;

/** Each setting by the name of its option, with what takes it back to the broker's default. */
const DEFAULTS = {
  mode: { mode: null },
  lease: { leaseMs: null },
  retention: { retentionMs: null },
  "max-attempts": { retry: { maxAttempts: null } },
  "initial-backoff": { retry: { initialBackoffMs: null } },
  "max-backoff": { retry: { maxBackoffMs: null } },
  multiplier: { retry: { multiplier: null } },
  jitter: { retry: { jitter: null } },
  "backoff-curve": { retry: { curve: null } },
  "dead-letter-max": { deadLetterMax: null },
  "dead-letter-age": { deadLetterAgeMs: null },
  "history-max-events": { historyMaxEvents: null },
} as const satisfies Readonly<Record<string, QueueChange>>;

const settingName = choice(...(Object.keys(DEFAULTS) as (keyof typeof DEFAULTS)[]));

export const queuesSet = command({
  name: "queues set",
  usage: "QUEUE [options]",
  summary: "Changes a queue's settings; they hold from the next call on, at every broker.",
  options: {
    mode: value(
      choice("reliable", "recoverable", "simple"),
      "At least once; stored, but given back by baton requeue only; at most once. [default reliable]",
    ),
    lease: value(anyDuration, "For jobs whose put does not say. [default 30s]"),
    retention: value(anyDuration, "For jobs whose put does not say. [default 5m]"),
    ...retryOptions,
    deadLetterMax: value(integer(0, 1_000_000_000), "How many FAILED jobs are kept. [default 10000]"),
    deadLetterAge: value(duration(1_000, 36_525 * DAY_MS), "How long a FAILED job is kept. [default 180d]"),
    historyMaxEvents: value(integer(100, 1_000_000), "How many events baton watch can go back, about. [default 10000]"),
    default: list({ ...settingName, placeholder: "SETTING" }, "Back to the broker's default; can be repeated."),
    ...clientOptions,
  },
  notes:
    "What is not named stays as it is. The retry settings hold for each field that a job's own policy does not set.",
  examples: [
    "baton queues set mail --retention 1h --max-attempts 5",
    "baton queues set mail --default retention --default max-attempts",
  ],
  async run(values, [name, ...rest], io) {
    if (name === undefined || rest.length > 0) throw new UsageError("write one queue: baton queues set QUEUE");
    const retry = { ...toRetry(values), ...merged(values.default.map((setting) => retryOf(DEFAULTS[setting]))) };
    const change: QueueChange = {
      mode: upperCase(values.mode),
      leaseMs: values.lease,
      retentionMs: values.retention,
      deadLetterMax: values.deadLetterMax,
      deadLetterAgeMs: values.deadLetterAge,
      historyMaxEvents: values.historyMaxEvents,
      ...merged(values.default.map((setting) => DEFAULTS[setting])),
      retry,
    };
    const isEmpty = [...Object.values({ ...change, retry: undefined }), ...Object.values(retry)].every(
      (setting) => setting === undefined,
    );
    if (isEmpty) throw new UsageError("write at least one setting, such as --retention 1h");
    return await withClient(values, io, async (client) => {
      const queue = await client.queues.update(name, change);
      print(io, values.json ? JSON.stringify(queue) : showQueue(queue, 0));
      return 0;
    });
  },
});

function merged(changes: readonly QueueChange[]): QueueChange {
  return Object.assign({}, ...changes);
}

function retryOf(change: QueueChange): object {
  return change.retry ?? {};
}
