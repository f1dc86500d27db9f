/** Queues and workers as the client shows them, settings as it takes them, and their conversion. */
import { create } from "@bufbuild/protobuf";
import type { RetryPolicy } from "../../gen/baton/v1/job_pb.js";
import {
  type Counters as CountersMessage,
  type Queue as QueueMessage,
  QueueMode,
  QueueSchema,
  type QueueSettings as QueueSettingsMessage,
  QueueSettingsSchema,
  type UpdateQueueRequest,
  UpdateQueueRequestSchema,
  type WorkerInfo as WorkerInfoMessage,
  WorkerInfoSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import { optionalDuration, type RetryInput, toRetryPolicy } from "./input.ts";
import { date, fromRetryPolicy, type Jsonable, jsonOf, optionalMs } from "./output.ts";

/**
 * What a queue promises its jobs. RELIABLE: at least once, leases end by time. RECOVERABLE: stored, but leases end only
 * by release or requeue. SIMPLE: at most once, forgotten as they are handed out.
 */
export type QueueModeName = "RELIABLE" | "RECOVERABLE" | "SIMPLE";

/** What can be set for one queue; what is not set is the broker's default. */
export type QueueSettings = {
  readonly paused: boolean;
  readonly mode: QueueModeName | undefined;
  /** For jobs whose put does not say. */
  readonly leaseMs: number | undefined;
  /** For jobs whose put does not say. */
  readonly retentionMs: number | undefined;
  /** For each field that a job's own policy does not set. */
  readonly retry: RetryInput | undefined;
  /** How many FAILED jobs are kept. */
  readonly deadLetterMax: number | undefined;
  /** How long a FAILED job is kept. */
  readonly deadLetterAgeMs: number | undefined;
  /** How many events the history for watch holds, about. */
  readonly historyMaxEvents: number | undefined;
};

type OrDefault<T> = { readonly [K in keyof T]?: T[K] | null };

/** What to change: undefined leaves a setting as it is, null takes it back to the broker's default. */
export type QueueChange = OrDefault<Omit<QueueSettings, "retry">> & { readonly retry?: OrDefault<RetryInput> | null };

/** What has happened to a queue's jobs: each counts once for each time. */
export type Counters = {
  readonly put: number;
  readonly completed: number;
  readonly failed: number;
  readonly pulled: number;
};

export type StateCounts = {
  readonly scheduled: number;
  readonly ready: number;
  readonly held: number;
  readonly reserved: number;
  readonly retrying: number;
  readonly completed: number;
  readonly failed: number;
};

export type Queue = Jsonable & {
  readonly name: string;
  readonly counts: StateCounts;
  /** How long the job that has waited longest has been able to run; undefined: none is READY. */
  readonly oldestReadyAgeMs: number | undefined;
  /** Since the queue began. */
  readonly totals: Counters;
  /** The last 180 days on which anything happened, the newest first; of `get` only. */
  readonly days: readonly { readonly date: string; readonly counters: Counters }[];
  /** Jobs per second, over the last minute or so. */
  readonly rates: { readonly put: number; readonly completed: number; readonly failed: number };
  /** Those that are set. */
  readonly settings: QueueSettings;
  /** Those in force. */
  readonly effectiveSettings: QueueSettings;
  /** Records that could not be read. */
  readonly setAside: number;
};

/** One stream of a worker, or one worker that calls reserve. */
export type WorkerInfo = Jsonable & {
  readonly workerId: string;
  readonly host: string;
  readonly language: string;
  readonly queues: readonly string[];
  /** Jobs that it has and has not released; 0 for a worker that calls reserve. */
  readonly jobsInHand: number;
  readonly connectedAt: Date | undefined;
  readonly lastSeenAt: Date | undefined;
  /** It gets no more jobs. */
  readonly quiet: boolean;
  /** Whether it holds a stream open, or calls reserve. */
  readonly streaming: boolean;
  readonly brokerId: string;
};

/** Each setting, with its path in the mask. */
const PATHS = {
  paused: "paused",
  mode: "mode",
  leaseMs: "lease_duration",
  retentionMs: "retention",
  deadLetterMax: "dead_letter_max",
  deadLetterAgeMs: "dead_letter_age",
  historyMaxEvents: "history_max_events",
} as const satisfies Record<keyof Omit<QueueSettings, "retry">, string>;

const RETRY_PATHS = {
  maxAttempts: "retry.max_attempts",
  initialBackoffMs: "retry.initial_backoff",
  maxBackoffMs: "retry.max_backoff",
  multiplier: "retry.multiplier",
  jitter: "retry.jitter",
  curve: "retry.curve",
} as const satisfies Record<keyof RetryInput, string>;

export function toUpdateRequest(queue: string, change: QueueChange): UpdateQueueRequest {
  const settings = create(QueueSettingsSchema, {
    paused: change.paused ?? false,
    mode: QueueMode[change.mode ?? "UNSPECIFIED"],
    leaseDuration: optionalDuration("leaseMs", change.leaseMs ?? undefined),
    retention: optionalDuration("retentionMs", change.retentionMs ?? undefined),
    deadLetterAge: optionalDuration("deadLetterAgeMs", change.deadLetterAgeMs ?? undefined),
    ...(isSet(change.deadLetterMax) && { deadLetterMax: change.deadLetterMax }),
    ...(isSet(change.historyMaxEvents) && { historyMaxEvents: change.historyMaxEvents }),
    ...(isSet(change.retry) && { retry: toPolicy(change.retry) }),
  });
  const paths = [
    ...named(PATHS, change),
    ...(change.retry === null ? ["retry"] : named(RETRY_PATHS, change.retry ?? {})),
  ];
  return create(UpdateQueueRequestSchema, { queue, settings, updateMask: { paths } });
}

/** The paths of what is to change, null included. */
function named(paths: Readonly<Record<string, string>>, change: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(paths).flatMap(([name, path]) => (change[name] === undefined ? [] : [path]));
}

function isSet<T>(value: T): value is T & {} {
  return value !== undefined && value !== null;
}

function toPolicy(retry: OrDefault<RetryInput>): RetryPolicy {
  const { maxAttempts, initialBackoffMs, maxBackoffMs, multiplier, jitter, curve } = retry;
  return toRetryPolicy({
    maxAttempts: maxAttempts ?? undefined,
    initialBackoffMs: initialBackoffMs ?? undefined,
    maxBackoffMs: maxBackoffMs ?? undefined,
    multiplier: multiplier ?? undefined,
    jitter: jitter ?? undefined,
    curve: curve ?? undefined,
  });
}

export function fromQueue(message: QueueMessage): Queue {
  const { counts, rates } = message;
  return {
    name: message.name,
    counts: {
      scheduled: Number(counts?.scheduled ?? 0),
      ready: Number(counts?.ready ?? 0),
      held: Number(counts?.held ?? 0),
      reserved: Number(counts?.reserved ?? 0),
      retrying: Number(counts?.retrying ?? 0),
      completed: Number(counts?.completed ?? 0),
      failed: Number(counts?.failed ?? 0),
    },
    oldestReadyAgeMs: optionalMs(message.oldestReadyAge),
    totals: fromCounters(message.totals),
    days: message.days.map((day) => ({ date: day.date, counters: fromCounters(day.counters) })),
    rates: { put: rates?.put ?? 0, completed: rates?.completed ?? 0, failed: rates?.failed ?? 0 },
    settings: fromSettings(message.settings),
    effectiveSettings: fromSettings(message.effectiveSettings),
    setAside: Number(message.setAside),
    ...jsonOf(QueueSchema, message),
  };
}

/** Counts fit into a number for as long as anybody will run a queue. */
function fromCounters(message: CountersMessage | undefined): Counters {
  return {
    put: Number(message?.put ?? 0),
    completed: Number(message?.completed ?? 0),
    failed: Number(message?.failed ?? 0),
    pulled: Number(message?.pulled ?? 0),
  };
}

function fromSettings(message: QueueSettingsMessage | undefined): QueueSettings {
  const mode = message && (QueueMode[message.mode] as keyof typeof QueueMode | undefined);
  return {
    paused: message?.paused ?? false,
    mode: mode === "UNSPECIFIED" ? undefined : mode,
    leaseMs: optionalMs(message?.leaseDuration),
    retentionMs: optionalMs(message?.retention),
    retry: fromRetryPolicy(message?.retry),
    deadLetterMax: message?.deadLetterMax,
    deadLetterAgeMs: optionalMs(message?.deadLetterAge),
    historyMaxEvents: message?.historyMaxEvents,
  };
}

export function fromWorkerInfo(message: WorkerInfoMessage): WorkerInfo {
  const { workerId, host, language, queues, jobsInHand, quiet, streaming, brokerId } = message;
  return {
    workerId,
    host,
    language,
    queues,
    jobsInHand,
    connectedAt: date(message.connectedAt),
    lastSeenAt: date(message.lastSeenAt),
    quiet,
    streaming,
    brokerId,
    ...jsonOf(WorkerInfoSchema, message),
  };
}
