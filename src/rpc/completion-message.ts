/** A job that is stored no longer, as its completion event told it. */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Job, JobErrorSchema, JobSchema, type Payload, PayloadSchema } from "../../gen/baton/v1/job_pb.js";
import type { Completion, CompletionResult } from "../model/completion.ts";
import { JOB_STATES } from "../model/states.ts";

export function completionMessage(completion: Completion): Job {
  const { queue, id, attempt, failures, workerId, putAtMs, reservedAtMs, finishedAtMs, result, error } = completion;
  const state = JOB_STATES[completion.state];
  const job = create(JobSchema, { queue, id, state, attempt, failures, workerId });
  if (putAtMs > 0) job.putAt = timestampFromMs(putAtMs);
  if (reservedAtMs !== undefined) job.reservedAt = timestampFromMs(reservedAtMs);
  job.finishedAt = timestampFromMs(finishedAtMs);
  if (result) job.result = resultMessage(result);
  if (error) job.error = create(JobErrorSchema, error);
  return job;
}

function resultMessage({ content, contentType }: CompletionResult): Payload {
  const shown =
    typeof content === "string"
      ? ({ case: "text", value: content } as const)
      : ({ case: "data", value: content } as const);
  return create(PayloadSchema, { content: shown, contentType });
}
