import { create } from "@bufbuild/protobuf";
import {
  type GetQueueRequest,
  type GetQueueResponse,
  GetQueueResponseSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { Checks } from "./checks.ts";
import { queueMessage } from "./queue-message.ts";

export async function getQueue(broker: Broker, request: GetQueueRequest): Promise<GetQueueResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  checks.done();
  return create(GetQueueResponseSchema, { queue: queueMessage(await broker.queues.get(queue)) });
}
