import { create, fromBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Job,
  type JobError,
  JobErrorSchema,
  JobSchema,
  PayloadSchema,
  ReservedJobSchema,
} from "../../gen/baton/v1/job_pb.js";
import { type GetRequest, type GetResponse, GetResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { JobView } from "../model/job.ts";
import { FAILURE_REASONS, JOB_STATES } from "../model/states.ts";
import { Checks } from "./checks.ts";

export async function get(broker: Broker, request: GetRequest): Promise<GetResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  const id = checks.id("id", request.id);
  checks.done();
  return create(GetResponseSchema, { job: jobMessage(await broker.jobs.get(queue, id)) });
}

function jobMessage(view: JobView): Job {
  const { queue, id, payload, headers, priority } = fromBinary(ReservedJobSchema, view.spec);
  const { state, attempt, failures, workerId, atMs, reservedAtMs, finishedAtMs, outcome } = view;
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
  if (payload) job.payload = payload;
  if (reservedAtMs > 0) job.reservedAt = timestampFromMs(reservedAtMs);
  if (finishedAtMs > 0) job.finishedAt = timestampFromMs(finishedAtMs);
  if (state === "SCHEDULED" || state === "RETRYING") job.runAt = timestampFromMs(atMs);
  if (state === "RESERVED") job.leaseExpiresAt = timestampFromMs(atMs);
  if (state === "COMPLETED") {
    job.retainedUntil = timestampFromMs(atMs);
    if (outcome) job.result = fromBinary(PayloadSchema, outcome);
  } else {
    const error = errorOf(view);
    if (error) job.error = error;
  }
  return job;
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
