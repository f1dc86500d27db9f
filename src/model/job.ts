/** What the rooms tell each other of jobs. Times are ms since 1970 by Redis's clock; bytes are protobuf, never read here. */
import type { JobState, Place } from "./states.ts";

export type BackoffCurve = "exponential" | "exq";

/** proto, RetryPolicy. */
export type RetryPolicy = {
  readonly maxAttempts: number;
  readonly initialBackoffMs: number;
  readonly maxBackoffMs: number;
  readonly multiplier: number;
  readonly jitter: number;
  readonly curve: BackoffCurve;
};

/** What one job, or one queue, says of it: a field that is not set is the queue's, or the broker's. */
export type OwnRetryPolicy = { readonly [K in keyof RetryPolicy]?: RetryPolicy[K] | undefined };

/** The contract's defaults: proto, RetryPolicy. */
export const DEFAULT_RETRY: RetryPolicy = {
  maxAttempts: 25,
  initialBackoffMs: 1_000,
  maxBackoffMs: 3_600_000,
  multiplier: 2,
  jitter: 0.2,
  curve: "exponential",
};

export const DEFAULT_LEASE_MS = 30_000;

/** At most `limit` jobs with this key are leased at once. */
export type Concurrency = { readonly key: string; readonly limit: number };

export type UniqueUntil = "start" | "success" | "expiry";

/** Keeps other jobs with this key out; `expiresInMs` counts from the put. */
export type Unique = { readonly key: string; readonly until: UniqueUntil; readonly expiresInMs?: number | undefined };

export type Conflict = "reject" | "keep" | "replace";

export type NewJob = {
  readonly id: string;
  /** A ReservedJob with what only the producer knows: payload, headers, priority. */
  readonly spec: Uint8Array;
  readonly priority: number;
  /** At once when neither is set, zero or past. */
  readonly delayMs?: number | undefined;
  readonly runAtMs?: number | undefined;
  readonly conflict: Conflict;
  readonly leaseMs?: number | undefined;
  readonly runTimeoutMs?: number | undefined;
  readonly retentionMs?: number | undefined;
  readonly expiresInMs?: number | undefined;
  readonly retry?: OwnRetryPolicy | undefined;
  readonly concurrency?: Concurrency | undefined;
  readonly unique?: Unique | undefined;
};

/** `state` is that of the job with the id; or, for the last two, of the job that keeps the unique key. */
export type PutOutcome =
  | { readonly kind: "created" | "kept" | "conflict"; readonly state: JobState }
  | { readonly kind: "unique kept" | "unique conflict"; readonly state: JobState; readonly keeperId: string };

/** Nothing that others don't do: it is READY at once, at the usual place, and goes by its queue's rules. */
export function asksForNothing(job: NewJob): boolean {
  const { priority, delayMs, runAtMs, conflict } = job;
  const { leaseMs, runTimeoutMs, retentionMs, expiresInMs, retry, concurrency, unique } = job;
  const says = leaseMs ?? runTimeoutMs ?? retentionMs ?? expiresInMs ?? retry ?? concurrency ?? unique;
  return priority === 0 && !delayMs && !runAtMs && conflict === "reject" && says === undefined;
}

/** One reservation: the fence tells it from every other of its queue. 0: the job was pulled, so there is no lease. */
export type Lease = { readonly queue: string; readonly id: string; readonly fence: number };

/** The fence of a job that was pulled. */
export const NO_LEASE = 0;

export type LeasedJob = Lease & {
  readonly spec: Uint8Array;
  readonly attempt: number;
  readonly failures: number;
  readonly leaseExpiresAtMs: number;
  readonly putAtMs: number;
};

/**
 * How a reservation ends. `undelivered`: the worker never got it, so it is as if it had not been reserved. `pulled`: it
 * is forgotten as the worker gets it.
 */
export type Outcome =
  | { readonly kind: "completed"; readonly result?: Uint8Array | undefined; readonly eventDetail?: string | undefined }
  | {
      readonly kind: "failed";
      /** A JobError. */
      readonly error: Uint8Array;
      readonly permanent: boolean;
      readonly retryAfterMs?: number | undefined;
      readonly eventDetail: string;
    }
  | { readonly kind: "returned"; readonly delayMs: number }
  | { readonly kind: "undelivered" }
  | { readonly kind: "pulled" };

/** `state` is "GONE" for what was pulled. */
export type Released = { readonly state: Place; readonly runAtMs?: number | undefined };

/** How far a worker has come, as it says; `percent` 0 to 100. */
export type Progress = { readonly percent: number; readonly note: string };

export type JobView = {
  readonly queue: string;
  readonly id: string;
  readonly spec: Uint8Array;
  /** The result of a COMPLETED job, else the error of the last failure. */
  readonly outcome: Uint8Array | undefined;
  readonly state: JobState;
  readonly attempt: number;
  readonly failures: number;
  /** By state: when due, when the lease ends, until when it is kept; 0 for the others. */
  readonly atMs: number;
  readonly putAtMs: number;
  readonly workerId: string;
  readonly reservedAtMs: number;
  readonly finishedAtMs: number;
  /** One of FAILURE_REASONS; 0: no attempt has failed, or the job is COMPLETED. */
  readonly reason: number;
  readonly concurrency: Concurrency | undefined;
  readonly unique: Unique | undefined;
  /** Of a RESERVED job. */
  readonly progress: (Progress & { readonly reportedAtMs: number }) | undefined;
};

/** Why a lease is over, as brokers tell each other; RESUMED: for the stream that kept it, another one does now. */
export type LeaseEnd = "RELEASED" | "RESUMED" | "DELETED" | "CANCELLED" | "EXPIRED" | "RUN_TIMEOUT";
