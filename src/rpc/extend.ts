import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ExtendRequest,
  type ExtendResponse,
  ExtendResponseSchema,
  ExtendResultSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { DEFAULT_LEASE_MS } from "../model/job.ts";
import { itemStatus, settleEach, settleGood } from "./batch.ts";
import { Checks, LONGEST_LEASE_MS, SHORTEST_LEASE_MS } from "./checks.ts";
import { checkLeaseToken } from "./lease-token.ts";
import type { Limits } from "./limits.ts";

export async function extend(
  broker: Broker,
  namespace: string,
  limits: Limits,
  request: ExtendRequest,
): Promise<ExtendResponse> {
  const checks = new Checks();
  checks.count("lease_tokens", request.leaseTokens.length, limits.maxBatch);
  const leaseMs =
    checks.duration("lease_duration", request.leaseDuration, SHORTEST_LEASE_MS, LONGEST_LEASE_MS) ?? DEFAULT_LEASE_MS;
  checks.done();
  const leases = settleEach(request.leaseTokens, (token, i) => {
    const own = new Checks();
    const lease = checkLeaseToken(own, `lease_tokens[${i}]`, namespace, token);
    own.done();
    return lease;
  });
  const answers = await settleGood(leases, (good) => broker.jobs.extend(good, leaseMs));
  const results = answers.map((answer) =>
    create(ExtendResultSchema, {
      result:
        "ok" in answer
          ? { case: "leaseExpiresAt", value: timestampFromMs(answer.ok) }
          : { case: "error", value: itemStatus(answer.error) },
    }),
  );
  return create(ExtendResponseSchema, { results });
}
