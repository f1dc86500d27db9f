/**
 * What the client answers with: Dates, numbers and names in place of the contract's messages. `toJSON` gives the
 * contract's own JSON, so that JSON.stringify of an answer is what other languages and grpcurl show.
 */
import { type DescMessage, type JsonValue, type MessageShape, toJson } from "@bufbuild/protobuf";
import { type Duration, durationMs, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import {
  BackoffCurve,
  type Concurrency,
  type JobError,
  type Job as JobMessage,
  type JobProgress as JobProgressMessage,
  JobSchema,
  JobState,
  type ReservedJob as ReservedJobMessage,
  ReservedJobSchema,
  type RetryPolicy,
  type Unique,
  UniqueUntil,
} from "../../gen/baton/v1/job_pb.js";
import {
  type CancelResponse,
  CancelResponseSchema,
  type DeleteResponse,
  DeleteResponseSchema,
  type PutResponse,
  PutResponseSchema,
  type ReleaseResponse,
  ReleaseResponseSchema,
  RevokedReason,
  type SubscribeResponse,
  type SubscriptionStarted,
} from "../../gen/baton/v1/job_service_pb.js";
import type { BatonClientError } from "./error.ts";
import type { ConcurrencyInput, RetryInput, UniqueInput } from "./input.ts";
import { JobPayload } from "./payload.ts";

/** Where a job is in its life; UNSPECIFIED only for a job that is not there. */
export type JobStateName = keyof typeof JobState;

/** Can be turned into the JSON of the contract, as JSON.stringify does by itself. */
export type Jsonable = { toJSON(): JsonValue };

/** What became of a put. */
export type PutResult = Jsonable & {
  /** With `created: false`, that of the job that was there. */
  readonly jobId: string;
  /** False when `onConflict: "KEEP"` found a job with this id, or with this unique key. */
  readonly created: boolean;
  readonly state: JobStateName;
};

/** What became of a release. */
export type ReleaseResult = Jsonable & {
  readonly state: JobStateName;
  /** When the job becomes READY, where its state is RETRYING or SCHEDULED. */
  readonly runAt: Date | undefined;
};

/** What became of a delete. */
export type DeleteResult = Jsonable & {
  /** False when there was no such job. */
  readonly deleted: boolean;
  readonly previousState: JobStateName;
};

/** What became of a cancellation. */
export type CancelResult = Jsonable & {
  /** False when the job had finished, or there was none. */
  readonly cancelled: boolean;
  readonly previousState: JobStateName;
};

/** One item of a batch's answer: what the single call would have given, or the error it would have thrown. */
export type BatchResult<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: BatonClientError };

/** A job as its worker gets it. */
export type ReservedJob = Jsonable & {
  readonly queue: string;
  readonly id: string;
  readonly payload: JobPayload;
  readonly headers: Readonly<Record<string, string>>;
  /** 0 to 9, higher first. */
  readonly priority: number;
  readonly putAt: Date;
  /** The right to run the job: opaque, for release and extend. */
  readonly leaseToken: string;
  /** By the clock of the broker's Redis; undefined for a job that was pulled, and has no lease. */
  readonly leaseExpiresAt: Date | undefined;
  /** How often the job has been handed to a worker, this time included. */
  readonly attempt: number;
  /** How many attempts have failed so far. */
  readonly failures: number;
};

/** How far a worker has come with a job, as it says itself. */
export type JobProgress = {
  /** 0 to 100. */
  readonly percent: number;
  readonly note: string;
  readonly reportedAt: Date;
};

/** All that is known of a job. */
export type Job = Jsonable & {
  readonly queue: string;
  readonly id: string;
  readonly payload: JobPayload;
  readonly headers: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly putAt: Date | undefined;
  readonly state: JobStateName;
  /** SCHEDULED and RETRYING only: when it becomes READY. */
  readonly runAt: Date | undefined;
  /** RESERVED only. */
  readonly leaseExpiresAt: Date | undefined;
  readonly attempt: number;
  readonly failures: number;
  /** Who has it, or had it last; empty: nobody so far. */
  readonly workerId: string;
  readonly reservedAt: Date | undefined;
  /** COMPLETED and FAILED only. */
  readonly finishedAt: Date | undefined;
  /** COMPLETED only: until when it is kept. */
  readonly retainedUntil: Date | undefined;
  /** COMPLETED only: what the worker answered. */
  readonly result: JobPayload | undefined;
  /** The last failure, if there was one and the job is not COMPLETED. */
  readonly error: Pick<JobError, "message" | "type" | "permanent"> | undefined;
  /** As put. */
  readonly concurrency: ConcurrencyInput | undefined;
  /** As put. */
  readonly unique: UniqueInput | undefined;
  /** The payload is empty here because there was no room for it beside the result: `get` with `omitResult` has it. */
  readonly payloadOmitted: boolean;
  /** RESERVED only: what was reported last, if anything was. */
  readonly progress: JobProgress | undefined;
};

/** Why a lease ended without a release. */
export type RevokedReasonName = keyof typeof RevokedReason;

/** What a subscription says. */
export type SubscribeEvent =
  | {
      readonly type: "started";
      readonly workerId: string;
      readonly leaseMs: number;
      readonly disconnectGraceMs: number;
    }
  | { readonly type: "jobs"; readonly jobs: readonly ReservedJob[] }
  | { readonly type: "revoked"; readonly leaseTokens: readonly string[]; readonly reason: RevokedReasonName }
  | { readonly type: "keepalive" }
  /**
   * The broker hands out no more jobs here: open another stream, and take along the jobs that still run. It ends this one
   * after `graceMs` at the latest; undefined: when its jobs have been released, or taken along.
   */
  | { readonly type: "draining"; readonly graceMs: number | undefined };

export function fromPutResponse(message: PutResponse): PutResult {
  const { jobId, created, state } = message;
  return { jobId, created, state: stateName(state), ...jsonOf(PutResponseSchema, message) };
}

export function fromReleaseResponse(message: ReleaseResponse): ReleaseResult {
  return { state: stateName(message.state), runAt: date(message.runAt), ...jsonOf(ReleaseResponseSchema, message) };
}

export function fromDeleteResponse(message: DeleteResponse): DeleteResult {
  const { deleted, previousState } = message;
  return { deleted, previousState: stateName(previousState), ...jsonOf(DeleteResponseSchema, message) };
}

export function fromCancelResponse(message: CancelResponse): CancelResult {
  const { cancelled, previousState } = message;
  return { cancelled, previousState: stateName(previousState), ...jsonOf(CancelResponseSchema, message) };
}

export function fromReservedJob(message: ReservedJobMessage): ReservedJob {
  return {
    queue: message.queue,
    id: message.id,
    payload: new JobPayload(message.payload),
    headers: message.headers,
    priority: message.priority,
    putAt: date(message.putAt) ?? new Date(0),
    leaseToken: message.leaseToken,
    leaseExpiresAt: date(message.leaseExpiresAt),
    attempt: message.attempt,
    failures: message.failures,
    ...jsonOf(ReservedJobSchema, message),
  };
}

export function fromJob(message: JobMessage): Job {
  const { error } = message;
  return {
    queue: message.queue,
    id: message.id,
    payload: new JobPayload(message.payload),
    headers: message.headers,
    priority: message.priority,
    putAt: date(message.putAt),
    state: stateName(message.state),
    runAt: date(message.runAt),
    leaseExpiresAt: date(message.leaseExpiresAt),
    attempt: message.attempt,
    failures: message.failures,
    workerId: message.workerId,
    reservedAt: date(message.reservedAt),
    finishedAt: date(message.finishedAt),
    retainedUntil: date(message.retainedUntil),
    result: message.result === undefined ? undefined : new JobPayload(message.result),
    error: error === undefined ? undefined : { message: error.message, type: error.type, permanent: error.permanent },
    concurrency: fromConcurrency(message.concurrency),
    unique: fromUnique(message.unique),
    payloadOmitted: message.payloadOmitted,
    progress: fromProgress(message.progress),
    ...jsonOf(JobSchema, message),
  };
}

export function fromProgress(message: JobProgressMessage | undefined): JobProgress | undefined {
  if (message === undefined) return undefined;
  const { percent, note, reportedAt } = message;
  return { percent, note, reportedAt: date(reportedAt) ?? new Date(0) };
}

export function fromConcurrency(message: Concurrency | undefined): ConcurrencyInput | undefined {
  return message === undefined ? undefined : { key: message.key, limit: message.limit };
}

export function fromUnique(message: Unique | undefined): UniqueInput | undefined {
  if (message === undefined) return undefined;
  const until = UniqueUntil[message.until] as keyof typeof UniqueUntil | undefined;
  return {
    key: message.key,
    until: until === "UNSPECIFIED" ? undefined : until,
    expiresInMs: optionalMs(message.expiresIn),
  };
}

export function fromRetryPolicy(message: RetryPolicy | undefined): RetryInput | undefined {
  if (message === undefined) return undefined;
  const curve = BackoffCurve[message.curve] as keyof typeof BackoffCurve | undefined;
  return {
    maxAttempts: message.maxAttempts === 0 ? undefined : message.maxAttempts,
    initialBackoffMs: optionalMs(message.initialBackoff),
    maxBackoffMs: optionalMs(message.maxBackoff),
    multiplier: message.multiplier,
    jitter: message.jitter,
    curve: curve === "UNSPECIFIED" ? undefined : curve,
  };
}

/** Undefined for an event that a newer broker sends and this client does not know: it may be ignored. */
export function fromSubscribeResponse({ event }: SubscribeResponse): SubscribeEvent | undefined {
  switch (event.case) {
    case "started":
      return { type: "started", ...fromStarted(event.value) };
    case "jobs":
      return { type: "jobs", jobs: event.value.jobs.map(fromReservedJob) };
    case "revoked":
      return {
        type: "revoked",
        leaseTokens: event.value.leaseTokens,
        reason: revokedReason(event.value.reason),
      };
    case "keepalive":
      return { type: "keepalive" };
    case "draining":
      return { type: "draining", graceMs: optionalMs(event.value.grace) };
    case undefined:
      return undefined;
  }
}

export function fromStarted({ workerId, leaseDuration, disconnectGrace }: SubscriptionStarted) {
  const leaseMs = leaseDuration === undefined ? 30_000 : durationMs(leaseDuration);
  return { workerId, leaseMs, disconnectGraceMs: optionalMs(disconnectGrace) ?? 0 };
}

export function revokedReason(reason: RevokedReason): RevokedReasonName {
  return (RevokedReason[reason] as RevokedReasonName | undefined) ?? "UNSPECIFIED";
}

export function optionalMs(duration: Duration | undefined): number | undefined {
  return duration === undefined ? undefined : durationMs(duration);
}

export function date(timestamp: Timestamp | undefined): Date | undefined {
  return timestamp === undefined ? undefined : timestampDate(timestamp);
}

/** A state that a newer broker knows and this client does not is UNSPECIFIED here; toJSON has its number. */
export function stateName(state: JobState): JobStateName {
  return (JobState[state] as JobStateName | undefined) ?? "UNSPECIFIED";
}

export function jsonOf<D extends DescMessage>(schema: D, message: MessageShape<D>): Jsonable {
  return { toJSON: () => toJson(schema, message, { alwaysEmitImplicit: true }) };
}
