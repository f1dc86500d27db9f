import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ExtendRequest,
  type ExtendResponse,
  ExtendResponseSchema,
  type ExtendResult,
  ExtendResultSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { type Settled, settledValue } from "../broker/jobs.ts";
import { DEFAULT_LEASE_MS, type Lease } from "../model/job.ts";
import { itemStatus, settleBatch, settleEach } from "./batch.ts";
import { Checks, LONGEST_LEASE_MS, SHORTEST_LEASE_MS } from "./checks.ts";
import { checkLeaseToken } from "./lease-token.ts";
import type { Limits } from "./limits.ts";

export async function extend(
  broker: Broker,
  namespace: string,
  limits: Limits,
  request: ExtendRequest,
): Promise<ExtendResponse> {
  const { leases, leaseMs } = checkExtend(request, namespace, limits, "");
  const answers = await settleBatch(leases, settledValue, (good) => broker.jobs.extend(good, leaseMs));
  return create(ExtendResponseSchema, { results: answers.map(extendResult) });
}

/** A bad token is its own error; `path`: where the request stands. */
export function checkExtend(
  request: ExtendRequest,
  namespace: string,
  limits: Limits,
  path: string,
): { readonly leases: Settled<Lease>[]; readonly leaseMs: number } {
  const checks = new Checks();
  const { leaseTokens, leaseDuration } = request;
  checks.count(`${path}lease_tokens`, leaseTokens.length, limits.maxBatch);
  const leaseMs =
    checks.duration(`${path}lease_duration`, leaseDuration, SHORTEST_LEASE_MS, LONGEST_LEASE_MS) ?? DEFAULT_LEASE_MS;
  checks.done();
  const leases = settleEach(leaseTokens, (token, i) => {
    const own = new Checks();
    const lease = checkLeaseToken(own, `${path}lease_tokens[${i}]`, namespace, token);
    own.done();
    return lease;
  });
  return { leases, leaseMs };
}

export function extendResult(answer: Settled<number>): ExtendResult {
  return create(ExtendResultSchema, {
    result:
      "ok" in answer
        ? { case: "leaseExpiresAt", value: timestampFromMs(answer.ok) }
        : { case: "error", value: itemStatus(answer.error) },
  });
}
