import { create } from "@bufbuild/protobuf";
import { type CancelRequest, type CancelResponse, CancelResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { JOB_STATES } from "../model/states.ts";
import { Checks } from "./checks.ts";
import { errorBytes, errorDetail } from "./job-error.ts";

const MESSAGE_BYTES = 1_024;

export async function cancel(broker: Broker, request: CancelRequest): Promise<CancelResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  const id = checks.id("id", request.id);
  const message = checks.bytes("message", request.message, MESSAGE_BYTES) || "cancelled";
  checks.done();
  const error = { type: "CANCELLED", message, permanent: false };
  const { cancelled, previous } = await broker.jobs.cancel(queue, id, errorBytes(error), errorDetail(error));
  return create(CancelResponseSchema, { cancelled, ...(previous && { previousState: JOB_STATES[previous] }) });
}
