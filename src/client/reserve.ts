/**
 * Reserve, repeated while the broker is unavailable: for what is left of its wait only. An answer that got lost on its way
 * may have had jobs, which return when their leases end, whether the call is repeated or not.
 */
import type { Duration } from "@bufbuild/protobuf/wkt";
import { JobService, type ReserveResponse } from "../../gen/baton/v1/job_service_pb.js";
import { repeatWhileUnavailable } from "./backoff.ts";
import type { CallOptions, Calls } from "./calls.ts";
import { type ReserveInput, toDuration, toReserveRequest } from "./input.ts";

export function reserve(calls: Calls, input: ReserveInput, options: CallOptions): Promise<ReserveResponse> {
  const { waitMs = 0 } = input;
  const request = toReserveRequest(input);
  const deadlineMs = options.deadlineMs ?? waitMs + calls.defaultDeadlineMs;
  const limits = calls.limits({ ...options, deadlineMs });
  const waitLeft = (passedMs: number): Duration => toDuration("waitMs", Math.max(0, waitMs - passedMs));
  return repeatWhileUnavailable((leftMs) => {
    const wait = waitLeft(Math.round(deadlineMs - leftMs));
    const attempt = { ...request, ...(request.wait !== undefined && { wait }) };
    return calls.connection.unary(JobService.method.reserve, attempt, { ...limits, deadlineMs: leftMs });
  }, limits);
}
