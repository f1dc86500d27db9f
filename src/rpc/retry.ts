import { create } from "@bufbuild/protobuf";
import {
  type RetryRequest,
  type RetryResponse,
  RetryResponseSchema,
  RetryResultSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { JOB_STATES } from "../model/states.ts";
import { itemStatus } from "./batch.ts";
import { Checks } from "./checks.ts";
import type { CallContext } from "./handler.ts";
import type { Limits } from "./limits.ts";

export async function retry(
  broker: Broker,
  limits: Limits,
  request: RetryRequest,
  { signal }: CallContext,
): Promise<RetryResponse> {
  const { ids, allFailed } = request;
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  if (!allFailed) checks.count("ids", ids.length, limits.maxBatch);
  else if (ids.length > 0) checks.refuse("ids", "must be empty with all_failed");
  for (const [i, id] of ids.slice(0, limits.maxBatch).entries()) checks.id(`ids[${i}]`, id);
  checks.done();
  if (allFailed) return create(RetryResponseSchema, { retried: await broker.jobs.retryAllFailed(queue, signal) });
  const answers = await broker.jobs.retry(queue, ids);
  return create(RetryResponseSchema, {
    retried: answers.filter((answer) => "ok" in answer).length,
    results: answers.map((answer) =>
      create(RetryResultSchema, {
        result:
          "ok" in answer
            ? { case: "state", value: JOB_STATES[answer.ok] }
            : { case: "error", value: itemStatus(answer.error) },
      }),
    ),
  });
}
