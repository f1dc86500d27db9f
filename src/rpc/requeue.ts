import { create } from "@bufbuild/protobuf";
import {
  type RequeueRequest,
  type RequeueResponse,
  RequeueResponseSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { Checks } from "./checks.ts";
import type { CallContext } from "./handler.ts";

const MAX_LIMIT = 1_000_000;
const DEFAULT_LIMIT = 1_000;

export async function requeue(
  broker: Broker,
  request: RequeueRequest,
  { signal }: CallContext,
): Promise<RequeueResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  const most = checks.integer("limit", request.limit, 0, MAX_LIMIT) || DEFAULT_LIMIT;
  checks.done();
  return create(RequeueResponseSchema, { requeued: await broker.queues.requeue(queue, most, signal) });
}
