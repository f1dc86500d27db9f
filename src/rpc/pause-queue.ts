import { create } from "@bufbuild/protobuf";
import {
  type PauseQueueRequest,
  type PauseQueueResponse,
  PauseQueueResponseSchema,
  type ResumeQueueRequest,
  type ResumeQueueResponse,
  ResumeQueueResponseSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { Checks } from "./checks.ts";

export async function pauseQueue(broker: Broker, request: PauseQueueRequest): Promise<PauseQueueResponse> {
  const queue = checkedQueue(request);
  return create(PauseQueueResponseSchema, { changed: await broker.queues.pause(queue) });
}

export async function resumeQueue(broker: Broker, request: ResumeQueueRequest): Promise<ResumeQueueResponse> {
  const queue = checkedQueue(request);
  return create(ResumeQueueResponseSchema, { changed: await broker.queues.resume(queue) });
}

function checkedQueue(request: { readonly queue: string }): string {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  checks.done();
  return queue;
}
