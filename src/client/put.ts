/**
 * Puts. A job without an id gets one here, so that its put can be repeated and there is still one job: with KEEP, which
 * finds what an earlier attempt has made. Where it finds another job instead, that one keeps the unique key, and unless
 * the user asked for KEEP, this is the conflict that the broker would have answered with.
 */
import { create } from "@bufbuild/protobuf";
import { v7 as uuidv7 } from "uuid";
import {
  JobService,
  OnConflict,
  PutManyRequestSchema,
  type PutRequest,
  type PutResponse,
} from "../../gen/baton/v1/job_service_pb.js";
import { putBatch } from "./batch.ts";
import type { CallOptions, Calls } from "./calls.ts";
import { BatonClientError } from "./error.ts";
import { type PutInput, toPutRequest } from "./input.ts";
import { type BatchResult, fromPutResponse, type PutResult, stateName } from "./output.ts";

type Prepared = { readonly request: PutRequest; readonly ownId: boolean; readonly keep: boolean };

export async function put(calls: Calls, input: PutInput, options: CallOptions): Promise<PutResult> {
  const prepared = prepare(input);
  const { request } = prepared;
  const response = isRepeatable(request)
    ? await calls.repeated(JobService.method.put, request, options)
    : await calls.once(JobService.method.put, request, options);
  const result = read(prepared, response);
  if (!result.ok) throw result.error;
  return result.value;
}

export async function putMany(
  calls: Calls,
  inputs: readonly PutInput[],
  options: CallOptions,
): Promise<BatchResult<PutResult>[]> {
  const prepared = inputs.map(prepare);
  const results = await putBatch(
    prepared.map(({ request }) => request),
    isRepeatable,
    async (jobs, deadlineMs) => {
      const request = create(PutManyRequestSchema, { jobs });
      return (await calls.once(JobService.method.putMany, request, { ...options, deadlineMs })).results;
    },
    calls.limits(options),
  );
  return results.map((result, index) => {
    const job = prepared[index];
    return result.ok && job !== undefined ? read(job, result.value) : (result as BatchResult<never>);
  });
}

function prepare(input: PutInput): Prepared {
  const request = toPutRequest(input);
  const keep = request.onConflict === OnConflict.KEEP;
  const ownId = request.id === "";
  if (ownId) {
    request.id = uuidv7();
    request.onConflict = OnConflict.KEEP;
  }
  return { request, ownId, keep };
}

function isRepeatable(request: PutRequest): boolean {
  return request.onConflict === OnConflict.KEEP;
}

function read({ request, ownId, keep }: Prepared, response: PutResponse): BatchResult<PutResult> {
  if (ownId && response.jobId === request.id) {
    // Nobody else has this id: where a repetition found the job, an earlier attempt of this call had created it.
    response.created = true;
  } else if (ownId && !keep) {
    return { ok: false, error: uniqueKeyTaken(request.queue, response) };
  }
  return { ok: true, value: fromPutResponse(response) };
}

/** In the broker's own words. */
function uniqueKeyTaken(queue: string, { jobId, state }: PutResponse): BatonClientError {
  const metadata = { queue, id: jobId, state: stateName(state) };
  const message = `another job of queue ${queue} keeps this unique key: ${jobId}, which is ${metadata.state}`;
  return new BatonClientError("ALREADY_EXISTS", message, { reason: "UNIQUE_KEY_TAKEN", metadata });
}
