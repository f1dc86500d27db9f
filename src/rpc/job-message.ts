/** A job as Get, List and Await show it. */
import { create, fromBinary } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  ConcurrencySchema,
  type Job,
  type JobError,
  JobErrorSchema,
  type JobProgress,
  JobProgressSchema,
  JobSchema,
  PayloadSchema,
  ReservedJobSchema,
  type Unique as UniqueMessage,
  UniqueSchema,
  UniqueUntil,
} from "../../gen/baton/v1/job_pb.js";
import type { JobView, Unique } from "../model/job.ts";
import { FAILURE_REASONS, JOB_STATES } from "../model/states.ts";

const UNTIL = {
  start: UniqueUntil.START,
  success: UniqueUntil.SUCCESS,
  expiry: UniqueUntil.EXPIRY,
} as const;

/** What a message has room for beside the largest payload: headers, keys and times. */
const ROOM_BYTES = 512 * 1024;

export type JobMessageOptions = { readonly maxPayloadBytes: number; readonly omitResult?: boolean };

export function jobMessage(view: JobView, { maxPayloadBytes, omitResult = false }: JobMessageOptions): Job {
  const { payload, headers, priority } = fromBinary(ReservedJobSchema, view.spec);
  const { queue, id, state, attempt, failures, workerId, atMs, reservedAtMs, finishedAtMs } = view;
  const job = create(JobSchema, {
    queue,
    id,
    headers,
    priority,
    state: JOB_STATES[state],
    attempt,
    failures,
    workerId,
  });
  job.putAt = timestampFromMs(view.putAtMs);
  const result = state === "COMPLETED" && !omitResult ? view.outcome : undefined;
  job.payloadOmitted = result !== undefined && view.spec.length + result.length > maxPayloadBytes + ROOM_BYTES;
  if (payload && !job.payloadOmitted) job.payload = payload;
  if (view.concurrency) job.concurrency = create(ConcurrencySchema, view.concurrency);
  if (view.progress) job.progress = progressMessage(view.progress);
  if (view.unique) job.unique = uniqueMessage(view.unique);
  if (reservedAtMs > 0) job.reservedAt = timestampFromMs(reservedAtMs);
  if (finishedAtMs > 0) job.finishedAt = timestampFromMs(finishedAtMs);
  if (state === "SCHEDULED" || state === "RETRYING") job.runAt = timestampFromMs(atMs);
  if (state === "RESERVED") job.leaseExpiresAt = timestampFromMs(atMs);
  if (state === "COMPLETED") {
    job.retainedUntil = timestampFromMs(atMs);
    if (result) job.result = fromBinary(PayloadSchema, result);
  } else {
    const error = errorOf(view);
    if (error) job.error = error;
  }
  return job;
}

export function progressMessage({ percent, note, reportedAtMs }: NonNullable<JobView["progress"]>): JobProgress {
  return create(JobProgressSchema, { percent, note, reportedAt: timestampFromMs(reportedAtMs) });
}

function uniqueMessage({ key, until, expiresInMs }: Unique): UniqueMessage {
  const message = create(UniqueSchema, { key, until: UNTIL[until] });
  if (expiresInMs !== undefined) message.expiresIn = durationFromMs(expiresInMs);
  return message;
}

function errorOf({ reason, outcome }: JobView): JobError | undefined {
  if (reason === FAILURE_REASONS.LEASE_EXPIRED) {
    return create(JobErrorSchema, { type: "LEASE_EXPIRED", message: "the lease ran out" });
  }
  if (reason === FAILURE_REASONS.JOB_EXPIRED) {
    return create(JobErrorSchema, {
      type: "JOB_EXPIRED",
      message: "no worker was free before expires_in had passed",
    });
  }
  return outcome && fromBinary(JobErrorSchema, outcome);
}
