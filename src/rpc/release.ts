import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { JobState, PayloadSchema } from "../../gen/baton/v1/job_pb.js";
import {
  type Failed,
  type ReleaseManyResponse,
  ReleaseManyResponseSchema,
  type ReleaseRequest,
  type ReleaseResponse,
  ReleaseResponseSchema,
  type ReleaseResult,
  ReleaseResultSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { only, type Release, type Settled } from "../broker/jobs.ts";
import type { Outcome, Released } from "../model/job.ts";
import { JOB_STATES } from "../model/states.ts";
import { itemStatus, settleBatch } from "./batch.ts";
import { Checks, LONGEST_MS, YEAR_MS } from "./checks.ts";
import { errorBytes, errorDetail } from "./job-error.ts";
import { checkLeaseToken } from "./lease-token.ts";
import type { Limits } from "./limits.ts";
import { checkPayload, resultDetail } from "./payload.ts";
import type { ReleaseBatch } from "./plain-release.ts";

const ERROR_MESSAGE_BYTES = 16 * 1024;

export async function release(
  broker: Broker,
  namespace: string,
  limits: Limits,
  request: ReleaseRequest,
): Promise<ReleaseResponse> {
  return releaseResponse(only(await broker.jobs.release([checkRelease(request, namespace, limits, "")])));
}

export async function releaseMany(
  broker: Broker,
  namespace: string,
  limits: Limits,
  { releases }: ReleaseBatch,
): Promise<ReleaseManyResponse> {
  const checks = new Checks();
  checks.count("releases", releases.length, limits.maxBatch);
  checks.done();
  const answers = await settleBatch(
    releases,
    (one, i) => ("lease" in one ? one : checkRelease(one, namespace, limits, `releases[${i}].`)),
    (good) => broker.jobs.release(good),
  );
  return create(ReleaseManyResponseSchema, { results: answers.map(releaseResult) });
}

export function releaseResult(answer: Settled<Released>): ReleaseResult {
  return create(ReleaseResultSchema, {
    result:
      "ok" in answer
        ? { case: "released", value: releaseResponse(answer.ok) }
        : { case: "error", value: itemStatus(answer.error) },
  });
}

function releaseResponse({ state, runAtMs }: Released): ReleaseResponse {
  return create(ReleaseResponseSchema, {
    state: state === "GONE" ? JobState.UNSPECIFIED : JOB_STATES[state],
    ...(runAtMs !== undefined && { runAt: timestampFromMs(runAtMs) }),
  });
}

export function checkRelease(request: ReleaseRequest, namespace: string, limits: Limits, path: string): Release {
  const checks = new Checks();
  const lease = checkLeaseToken(checks, `${path}lease_token`, namespace, request.leaseToken);
  const outcome = checkOutcome(checks, request, limits, path);
  checks.done();
  return { lease, outcome };
}

function checkOutcome(checks: Checks, { outcome }: ReleaseRequest, limits: Limits, path: string): Outcome {
  switch (outcome.case) {
    case "completed": {
      const { result } = outcome.value;
      checkPayload(checks, `${path}completed.result`, result, limits);
      const bytes = result ? toBinary(PayloadSchema, result) : new Uint8Array();
      // A Payload of which nothing is set is no result either: stored, it could not be told from none.
      if (!result || bytes.length === 0) return { kind: "completed" };
      return { kind: "completed", result: bytes, eventDetail: resultDetail(result) };
    }
    case "failed":
      return failure(checks, outcome.value, path);
    case "returned":
      return {
        kind: "returned",
        delayMs: checks.duration(`${path}returned.delay`, outcome.value.delay, 0, LONGEST_MS) ?? 0,
      };
    case undefined:
      checks.refuse(`${path}outcome`, "must be set: completed, failed or returned");
      return { kind: "undelivered" };
  }
}

function failure(checks: Checks, failed: Failed, path: string): Outcome {
  const message = checks.bytes(`${path}failed.message`, failed.message, ERROR_MESSAGE_BYTES);
  const type = checks.name(`${path}failed.type`, failed.type);
  const { permanent } = failed;
  return {
    kind: "failed",
    error: errorBytes({ type, message, permanent }),
    permanent,
    retryAfterMs: checks.duration(`${path}failed.retry_after`, failed.retryAfter, 0, YEAR_MS),
    eventDetail: errorDetail({ type, message, permanent }),
  };
}
