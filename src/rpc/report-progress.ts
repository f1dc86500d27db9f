import { create } from "@bufbuild/protobuf";
import {
  type ReportProgressRequest,
  type ReportProgressResponse,
  ReportProgressResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { Lease, Progress } from "../model/job.ts";
import { Checks } from "./checks.ts";
import { checkLeaseToken } from "./lease-token.ts";

const NOTE_BYTES = 1_024;

export async function reportProgress(
  broker: Broker,
  namespace: string,
  request: ReportProgressRequest,
): Promise<ReportProgressResponse> {
  const { lease, progress } = checkProgress(request, namespace, "");
  await broker.jobs.reportProgress(lease, progress);
  return create(ReportProgressResponseSchema);
}

/** `path`: where the report stands in the request. */
export function checkProgress(
  { leaseToken, percent, note }: ReportProgressRequest,
  namespace: string,
  path: string,
): { readonly lease: Lease; readonly progress: Progress } {
  const checks = new Checks();
  const lease = checkLeaseToken(checks, `${path}lease_token`, namespace, leaseToken);
  checks.integer(`${path}percent`, percent, 0, 100);
  checks.bytes(`${path}note`, note, NOTE_BYTES);
  checks.done();
  return { lease, progress: { percent, note } };
}
