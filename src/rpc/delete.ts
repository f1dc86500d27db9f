import { create } from "@bufbuild/protobuf";
import { type DeleteRequest, type DeleteResponse, DeleteResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { JOB_STATES } from "../model/states.ts";
import { Checks } from "./checks.ts";

/** `delete` is a word of JavaScript's. */
export async function deleteJob(broker: Broker, request: DeleteRequest): Promise<DeleteResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  const id = checks.id("id", request.id);
  checks.done();
  const state = await broker.jobs.delete(queue, id);
  return create(DeleteResponseSchema, {
    deleted: state !== undefined,
    ...(state && { previousState: JOB_STATES[state] }),
  });
}
