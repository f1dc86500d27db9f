/** What users pass to the client, and its conversion to the messages of the contract. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, durationFromMs, type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  BackoffCurve,
  ConcurrencySchema,
  type RetryPolicy,
  RetryPolicySchema,
  UniqueSchema,
  UniqueUntil,
} from "../../gen/baton/v1/job_pb.js";
import {
  CompletedSchema,
  DeliveryMode,
  FailedSchema,
  OnConflict,
  type PutRequest,
  PutRequestSchema,
  QueuePolicy,
  type QueueSelectorSchema,
  type ReleaseRequest,
  ReleaseRequestSchema,
  type ReserveRequest,
  ReserveRequestSchema,
  ReturnedSchema,
  type SubscribeRequest,
  SubscribeRequestSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import { type PayloadInput, toPayload } from "./payload.ts";

/** How often and when a job that failed is run again. What is not set is the broker's default. */
export type RetryInput = {
  /** Failed attempts that the job may have: 1 to 1000, default 25. */
  readonly maxAttempts?: number | undefined;
  /** The wait after the first failure: default 1 s. */
  readonly initialBackoffMs?: number | undefined;
  /** The longest wait: default 1 h. */
  readonly maxBackoffMs?: number | undefined;
  /** By what each wait is longer than the one before: 1 to 100, default 2. */
  readonly multiplier?: number | undefined;
  /** What part of each wait is left to chance: 0 to 1, default 0.2. */
  readonly jitter?: number | undefined;
  /** EXPONENTIAL (default), or EXQ: n⁴ + 15 seconds and some chance, as exq and Sidekiq wait. */
  readonly curve?: "EXPONENTIAL" | "EXQ" | undefined;
};

/** How many jobs of one kind may run at once: those of the queue with the same key. */
export type ConcurrencyInput = {
  readonly key: string;
  /** 1 to 1,000,000; where jobs of one key name different limits, that of the job put last holds for all. */
  readonly limit: number;
};

/** Keeps other jobs with the same key out of the queue. */
export type UniqueInput = {
  readonly key: string;
  /** START: until a worker has the job. SUCCESS (default): until it is COMPLETED. EXPIRY: until `expiresInMs` has passed. */
  readonly until?: "START" | "SUCCESS" | "EXPIRY" | undefined;
  /** The key is free at the latest so long after the put; required for EXPIRY. Default: no such limit. */
  readonly expiresInMs?: number | undefined;
};

/** A job to be put. */
export type PutInput = {
  readonly queue: string;
  /** The job's id within its queue. Without one the client makes a UUIDv7, which makes the call safe to repeat. */
  readonly id?: string | undefined;
  readonly payload?: PayloadInput | undefined;
  /** A media type for the reader's sake; `application/json` when the payload is `{ json }`. */
  readonly contentType?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** 0 to 9, higher first; default 0. */
  readonly priority?: number | undefined;
  /** So long from now the job may run. Not together with `runAt`. */
  readonly delayMs?: number | undefined;
  /** When the job may run. Not together with `delayMs`. */
  readonly runAt?: Date | undefined;
  /** How long a worker may hold the job without sign of life; default 30 s. */
  readonly leaseMs?: number | undefined;
  /** How long one attempt may take in all; default: no limit. */
  readonly runTimeoutMs?: number | undefined;
  readonly retry?: RetryInput | undefined;
  /** How long the job and its result are kept once completed; default 5 min. */
  readonly retentionMs?: number | undefined;
  /** How long the job may wait for its first worker; default: for ever. */
  readonly expiresInMs?: number | undefined;
  readonly concurrency?: ConcurrencyInput | undefined;
  readonly unique?: UniqueInput | undefined;
  /** What to do when the id or the unique key is taken; default REJECT. */
  readonly onConflict?: "REJECT" | "KEEP" | "REPLACE" | undefined;
};

/** A queue by its name, or with its share where the policy is WEIGHTED: 1 to 1000, default 1. */
export type QueueInput = string | { readonly name: string; readonly weight?: number | undefined };

type Selection = {
  readonly queues: readonly QueueInput[];
  /** STRICT (default): as listed, a queue only when those before it are empty. WEIGHTED: in proportion to the weights. */
  readonly policy?: "STRICT" | "WEIGHTED" | undefined;
  /** How long leases last; default: what the job says, else 30 s. */
  readonly leaseMs?: number | undefined;
  /** Who takes the jobs, for people. Default: the network address. */
  readonly workerId?: string | undefined;
  /** PULL: the jobs are forgotten as they are handed out, at most once. Default LEASE. */
  readonly mode?: "LEASE" | "PULL" | undefined;
};

/** Which jobs to take. */
export type ReserveInput = Selection & {
  /** At most so many; default 1. */
  readonly maxJobs?: number | undefined;
  /** How long to wait for the first; default: not at all. */
  readonly waitMs?: number | undefined;
  /** Also takes jobs that are due only later, up to and including this time. */
  readonly availableBy?: Date | undefined;
};

/** Which jobs to be handed on a stream. */
export type SubscribeInput = Selection & {
  /** How many may be unreleased at once; default 1. */
  readonly maxOutstanding?: number | undefined;
  /** How many bytes the unreleased ones may have together; at least 3.5 MiB. 0 (default): no limit. */
  readonly maxOutstandingBytes?: number | undefined;
  /** When the stream has ended: how long until what was not released goes to others; default 2 s. */
  readonly disconnectGraceMs?: number | undefined;
  /** Where the worker runs, for people. Default: its network address. */
  readonly host?: string | undefined;
  /** In which language it is written, for people. Default: what its gRPC library says of itself. */
  readonly language?: string | undefined;
  /** The jobs still in hand from a stream that broke: this one keeps their leases, and `revoked` names those lost. */
  readonly resumeLeaseTokens?: readonly string[] | undefined;
};

/** How a reservation ends. */
export type Outcome =
  | {
      readonly outcome: "completed";
      readonly result?: PayloadInput | undefined;
      /** The result's media type. */
      readonly contentType?: string | undefined;
    }
  | {
      readonly outcome: "failed";
      readonly message: string;
      /** A short name for programs, such as an exception's class. */
      readonly type?: string | undefined;
      /** Trying again is of no use. */
      readonly permanent?: boolean | undefined;
      /** When to try again, in place of the retry policy's wait. */
      readonly retryAfterMs?: number | undefined;
    }
  | {
      readonly outcome: "returned";
      /** Not to be handed out again for so long. */
      readonly delayMs?: number | undefined;
    };

/** One release of several: the lease, and how it ends. */
export type ReleaseInput = Outcome & { readonly leaseToken: string };

export function toPutRequest(input: PutInput): PutRequest {
  return create(PutRequestSchema, {
    queue: input.queue,
    id: input.id ?? "",
    ...(input.payload !== undefined && { payload: toPayload(input.payload, input.contentType) }),
    headers: { ...input.headers },
    priority: input.priority ?? 0,
    start: start(input),
    leaseDuration: optionalDuration("leaseMs", input.leaseMs),
    runTimeout: optionalDuration("runTimeoutMs", input.runTimeoutMs),
    ...(input.retry !== undefined && { retry: toRetryPolicy(input.retry) }),
    retention: optionalDuration("retentionMs", input.retentionMs),
    expiresIn: optionalDuration("expiresInMs", input.expiresInMs),
    ...(input.concurrency !== undefined && { concurrency: create(ConcurrencySchema, input.concurrency) }),
    ...(input.unique !== undefined && { unique: toUnique(input.unique) }),
    onConflict: OnConflict[input.onConflict ?? "UNSPECIFIED"],
  });
}

export function toReserveRequest(input: ReserveInput): ReserveRequest {
  return create(ReserveRequestSchema, {
    ...selection(input),
    maxJobs: input.maxJobs ?? 0,
    wait: optionalDuration("waitMs", input.waitMs),
    ...(input.availableBy !== undefined && { availableBy: toTimestamp("availableBy", input.availableBy) }),
  });
}

export function toSubscribeRequest(input: SubscribeInput): SubscribeRequest {
  return create(SubscribeRequestSchema, {
    ...selection(input),
    maxOutstanding: input.maxOutstanding ?? 0,
    maxOutstandingBytes: toBytes("maxOutstandingBytes", input.maxOutstandingBytes),
    disconnectGrace: optionalDuration("disconnectGraceMs", input.disconnectGraceMs),
    host: input.host ?? "",
    language: input.language ?? "",
    resumeLeaseTokens: [...(input.resumeLeaseTokens ?? [])],
  });
}

export function toReleaseRequest(leaseToken: string, outcome: Outcome): ReleaseRequest {
  return create(ReleaseRequestSchema, { leaseToken, outcome: toOutcome(outcome) });
}

export function toDuration(name: string, ms: number): Duration {
  if (!Number.isFinite(ms)) throw new TypeError(`${name} must be a number of milliseconds, but is ${ms}`);
  return durationFromMs(Math.ceil(ms));
}

export function optionalDuration(name: string, ms: number | undefined): Duration | undefined {
  return ms === undefined ? undefined : toDuration(name, ms);
}

/** Not set: 0, no limit. */
export function toBytes(name: string, bytes = 0): bigint {
  if (!Number.isSafeInteger(bytes)) throw new TypeError(`${name} must be a whole number of bytes, but is ${bytes}`);
  return BigInt(bytes);
}

function toOutcome(outcome: Outcome): ReleaseRequest["outcome"] {
  switch (outcome.outcome) {
    case "completed": {
      const { result, contentType } = outcome;
      const init = result === undefined ? {} : { result: toPayload(result, contentType) };
      return { case: "completed", value: create(CompletedSchema, init) };
    }
    case "failed": {
      const { message, type = "", permanent = false, retryAfterMs } = outcome;
      const retryAfter = optionalDuration("retryAfterMs", retryAfterMs);
      return { case: "failed", value: create(FailedSchema, { message, type, permanent, retryAfter }) };
    }
    case "returned": {
      const delay = optionalDuration("delayMs", outcome.delayMs);
      return { case: "returned", value: create(ReturnedSchema, { delay }) };
    }
  }
}

function start(input: PutInput): PutRequest["start"] {
  if (input.delayMs !== undefined && input.runAt !== undefined) {
    throw new TypeError("a job has either delayMs or runAt, not both");
  }
  if (input.delayMs !== undefined) return { case: "delay", value: toDuration("delayMs", input.delayMs) };
  if (input.runAt === undefined) return { case: undefined };
  return { case: "runAt", value: toTimestamp("runAt", input.runAt) };
}

function toTimestamp(name: string, date: Date): Timestamp {
  if (Number.isNaN(date.getTime())) throw new TypeError(`${name} must be a valid Date`);
  return timestampFromDate(date);
}

function toUnique({ key, until, expiresInMs }: UniqueInput) {
  const expiresIn = optionalDuration("unique.expiresInMs", expiresInMs);
  return create(UniqueSchema, { key, until: UniqueUntil[until ?? "UNSPECIFIED"], expiresIn });
}

export function toRetryPolicy(retry: RetryInput): RetryPolicy {
  return create(RetryPolicySchema, {
    maxAttempts: retry.maxAttempts ?? 0,
    initialBackoff: optionalDuration("initialBackoffMs", retry.initialBackoffMs),
    maxBackoff: optionalDuration("maxBackoffMs", retry.maxBackoffMs),
    multiplier: retry.multiplier,
    jitter: retry.jitter,
    curve: BackoffCurve[retry.curve ?? "UNSPECIFIED"],
  });
}

function selection(input: Selection) {
  return {
    queues: input.queues.map(toSelector),
    policy: QueuePolicy[input.policy ?? "UNSPECIFIED"],
    leaseDuration: optionalDuration("leaseMs", input.leaseMs),
    workerId: input.workerId ?? "",
    mode: DeliveryMode[input.mode ?? "UNSPECIFIED"],
  };
}

function toSelector(queue: QueueInput): MessageInitShape<typeof QueueSelectorSchema> {
  return typeof queue === "string" ? { name: queue, weight: 1 } : { name: queue.name, weight: queue.weight ?? 1 };
}
