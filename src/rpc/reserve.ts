import type { ReserveRequest } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { Checks, LONGEST_LEASE_MS, SHORTEST_LEASE_MS } from "./checks.ts";
import type { CallContext } from "./handler.ts";
import type { Limits } from "./limits.ts";
import { checkMode, checkPolicy, checkQueues } from "./queues.ts";
import { reservedJobs } from "./reserved-job.ts";

export async function reserve(
  broker: Broker,
  namespace: string,
  limits: Limits,
  request: ReserveRequest,
  context: CallContext,
): Promise<Buffer> {
  const checks = new Checks();
  const options = {
    queues: checkQueues(checks, request, limits.maxQueues),
    policy: checkPolicy(checks, request.policy),
    maxJobs: checks.integer("max_jobs", request.maxJobs, 0, limits.maxBatch) || 1,
    waitMs: checks.duration("wait", request.wait, 0, limits.maxWaitMs) ?? 0,
    leaseMs: checks.duration("lease_duration", request.leaseDuration, SHORTEST_LEASE_MS, LONGEST_LEASE_MS) ?? 0,
    workerId: checks.name("worker_id", request.workerId) || context.peer,
    availableByMs: request.availableBy && checks.runAt("available_by", request.availableBy),
    mode: checkMode(checks, request.mode),
  };
  checks.done();
  return reservedJobs(namespace, await broker.reserve(options, context));
}
