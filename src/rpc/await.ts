import { create } from "@bufbuild/protobuf";
import { type AwaitRequest, type AwaitResponse, AwaitResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { Checks } from "./checks.ts";
import { completionMessage } from "./completion-message.ts";
import type { CallContext } from "./handler.ts";
import { jobMessage } from "./job-message.ts";
import type { Limits } from "./limits.ts";

const DEFAULT_TIMEOUT_MS = 60_000;

export async function awaitJob(
  broker: Broker,
  limits: Limits,
  request: AwaitRequest,
  context: CallContext,
): Promise<AwaitResponse> {
  const checks = new Checks();
  const { maxAwaitMs } = limits;
  const options = {
    queue: checks.queue("queue", request.queue),
    id: checks.id("id", request.id),
    timeoutMs: checks.duration("timeout", request.timeout, 0, maxAwaitMs) ?? Math.min(DEFAULT_TIMEOUT_MS, maxAwaitMs),
    expect: request.expect,
  };
  checks.done();
  const finished = await broker.await(options, context.signal);
  const job = finished.kind === "stored" ? jobMessage(finished.job, limits) : completionMessage(finished.completion);
  return create(AwaitResponseSchema, { job });
}
