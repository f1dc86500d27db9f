import { create } from "@bufbuild/protobuf";
import { type GetRequest, type GetResponse, GetResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { Checks } from "./checks.ts";
import { jobMessage } from "./job-message.ts";
import type { Limits } from "./limits.ts";

export async function get(broker: Broker, limits: Limits, request: GetRequest): Promise<GetResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  const id = checks.id("id", request.id);
  checks.done();
  const { maxPayloadBytes } = limits;
  const job = jobMessage(await broker.jobs.get(queue, id), { maxPayloadBytes, omitResult: request.omitResult });
  return create(GetResponseSchema, { job });
}
