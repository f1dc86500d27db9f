import { fromBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type ReservedJob, ReservedJobSchema } from "../../gen/baton/v1/job_pb.js";
import type { LeasedJob } from "../model/job.ts";
import { encodeLeaseToken } from "../model/lease-token.ts";

/** What was put is stored as a ReservedJob; what the reservation adds is filled in. */
export function reservedJob(namespace: string, leased: LeasedJob): ReservedJob {
  const job = fromBinary(ReservedJobSchema, leased.spec);
  job.putAt = timestampFromMs(leased.putAtMs);
  job.leaseToken = encodeLeaseToken(namespace, leased);
  job.leaseExpiresAt = timestampFromMs(leased.leaseExpiresAtMs);
  job.attempt = leased.attempt;
  job.failures = leased.failures;
  return job;
}
