import { create } from "@bufbuild/protobuf";
import { v7 as uuidV7 } from "uuid";
import { OnConflict, type PutRequest, type PutResponse, PutResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { only, type PutJob } from "../broker/jobs.ts";
import type { Conflict } from "../model/job.ts";
import { JOB_STATES } from "../model/states.ts";
import { settleBatch } from "./batch.ts";
import { Checks, LONGEST_LEASE_MS, LONGEST_MS, SHORTEST_LEASE_MS, YEAR_MS } from "./checks.ts";
import { checkConcurrency, checkUnique } from "./keys.ts";
import type { Limits } from "./limits.ts";
import { checkHeaders, checkPayload } from "./payload.ts";
import type { PutBatch } from "./plain-put.ts";
import { putAnswers } from "./put-answers.ts";
import { encodeSpec } from "./reserved-job.ts";
import { checkRetry } from "./retry-policy.ts";

const CONFLICTS: ReadonlyMap<number, Conflict> = new Map([
  [OnConflict.UNSPECIFIED, "reject"],
  [OnConflict.REJECT, "reject"],
  [OnConflict.KEEP, "keep"],
  [OnConflict.REPLACE, "replace"],
]);

const MAX_PRIORITY = 9;
const SHORTEST_RUN_TIMEOUT_MS = 100;

/** A PutJob was checked as it was read. */
export async function put(broker: Broker, limits: Limits, request: PutRequest | PutJob): Promise<PutResponse> {
  const { id, created, state } = only(
    await broker.jobs.put(["job" in request ? request : newJob(request, limits, "")]),
  );
  return create(PutResponseSchema, { jobId: id, created, state: JOB_STATES[state] });
}

export async function putMany(broker: Broker, limits: Limits, { jobs }: PutBatch): Promise<Buffer> {
  const checks = new Checks();
  checks.count("jobs", jobs.length, limits.maxBatch);
  checks.done();
  const answers = await settleBatch(
    jobs,
    (job, i) => ("job" in job ? job : newJob(job, limits, `jobs[${i}].`)),
    (good) => broker.jobs.put(good),
  );
  return putAnswers(answers);
}

/** Checks the request and turns it into a job; `path` is what stands before its fields' names. */
export function newJob(request: PutRequest, limits: Limits, path: string): PutJob {
  const checks = new Checks();
  const queue = checks.queue(`${path}queue`, request.queue);
  const id = request.id === "" ? uuidV7() : checks.id(`${path}id`, request.id);
  checkPayload(checks, `${path}payload`, request.payload, limits);
  checkHeaders(checks, `${path}headers`, request.headers, limits);
  const priority = checks.integer(`${path}priority`, request.priority, 0, MAX_PRIORITY);
  const { start } = request;
  const job = {
    id,
    priority,
    delayMs: start.case === "delay" ? checks.duration(`${path}delay`, start.value, 0, LONGEST_MS) : undefined,
    runAtMs: start.case === "runAt" ? checks.runAt(`${path}run_at`, start.value) : undefined,
    leaseMs: checks.duration(`${path}lease_duration`, request.leaseDuration, SHORTEST_LEASE_MS, LONGEST_LEASE_MS),
    runTimeoutMs: checks.duration(`${path}run_timeout`, request.runTimeout, SHORTEST_RUN_TIMEOUT_MS, YEAR_MS),
    retry: request.retry && checkRetry(checks, `${path}retry.`, request.retry),
    retentionMs: checks.duration(`${path}retention`, request.retention, 0, YEAR_MS),
    expiresInMs: checks.duration(`${path}expires_in`, request.expiresIn, 1, LONGEST_MS),
    concurrency: request.concurrency && checkConcurrency(checks, `${path}concurrency.`, request.concurrency),
    unique: request.unique && checkUnique(checks, `${path}unique.`, request.unique),
    conflict: checks.choice(`${path}on_conflict`, request.onConflict, CONFLICTS, "REJECT, KEEP, REPLACE"),
  };
  checks.done();
  return { queue, job: { ...job, spec: encodeSpec(request) } };
}
