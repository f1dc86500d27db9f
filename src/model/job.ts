/** What the rooms tell each other of jobs. Times are ms since 1970 by Redis's clock; bytes are protobuf, never read here. */
import type { JobState } from "./states.ts";

/** All five, so that a policy is complete wherever it is stored. */
export type RetryPolicy = {
  readonly maxAttempts: number;
  readonly initialBackoffMs: number;
  readonly maxBackoffMs: number;
  readonly multiplier: number;
  readonly jitter: number;
};

/** The contract's defaults: proto, RetryPolicy. */
export const DEFAULT_RETRY: RetryPolicy = {
  maxAttempts: 25,
  initialBackoffMs: 1_000,
  maxBackoffMs: 3_600_000,
  multiplier: 2,
  jitter: 0.2,
};

export const DEFAULT_LEASE_MS = 30_000;

export type Conflict = "reject" | "keep" | "replace";

export type NewJob = {
  readonly id: string;
  /** A ReservedJob with what the producer said: queue, id, payload, headers, priority. */
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
  readonly retry?: RetryPolicy | undefined;
};

export type PutOutcome =
  | { readonly kind: "created"; readonly state: JobState }
  | { readonly kind: "kept"; readonly state: JobState }
  | { readonly kind: "conflict"; readonly state: JobState };

/** One reservation: the fence tells it from every other of its queue. */
export type Lease = { readonly queue: string; readonly id: string; readonly fence: number };

export type LeasedJob = Lease & {
  readonly spec: Uint8Array;
  readonly attempt: number;
  readonly failures: number;
  readonly leaseExpiresAtMs: number;
  readonly putAtMs: number;
};

/** How a reservation ends. `undelivered`: the worker never got it, so it is as if it had not been reserved. */
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
  | { readonly kind: "undelivered" };

export type Released = { readonly state: JobState; readonly runAtMs?: number | undefined };

export type JobView = {
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
};

/** Why a lease is over, as brokers tell each other. */
export type LeaseEnd = "RELEASED" | "DELETED" | "EXPIRED" | "RUN_TIMEOUT";
