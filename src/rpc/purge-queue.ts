import { create } from "@bufbuild/protobuf";
import {
  type PurgeQueueRequest,
  type PurgeQueueResponse,
  PurgeQueueResponseSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { Checks } from "./checks.ts";
import type { CallContext } from "./handler.ts";
import { checkJobState } from "./job-state.ts";

/** More than there are states, by far. */
const MAX_STATES = 100;

export async function purgeQueue(
  broker: Broker,
  request: PurgeQueueRequest,
  { signal }: CallContext,
): Promise<PurgeQueueResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  checks.count("states", request.states.length, MAX_STATES);
  const states = request.states.slice(0, MAX_STATES).map((state, i) => checkJobState(checks, `states[${i}]`, state));
  checks.done();
  const purged = await broker.queues.purge(queue, new Set(states), signal);
  return create(PurgeQueueResponseSchema, { purged: BigInt(purged) });
}
