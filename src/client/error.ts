/**
 * The one error that calls of this client end with. It decodes the `google.rpc` details that a broker attaches:
 * ErrorInfo (reason and metadata), BadRequest (field violations) and RetryInfo.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { type Any, anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import type { ServiceError } from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "../../gen/google/rpc/status_pb.js";

const CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

/** A gRPC status code, by its name. */
export type StatusCodeName = (typeof CODES)[number];

/** Trying again cannot help against these: somebody has to change something. */
const FATAL_CODES: ReadonlySet<StatusCodeName> = new Set([
  "INVALID_ARGUMENT",
  "UNAUTHENTICATED",
  "PERMISSION_DENIED",
  "UNIMPLEMENTED",
]);

/** One bad field of a request: its path, such as `jobs[3].priority`, and what is allowed. */
export type Violation = { readonly field: string; readonly description: string };

/** What a broker says about an error beyond its code and message. */
export type BatonErrorDetails = {
  readonly reason?: string | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly violations?: readonly Violation[] | undefined;
  readonly retryAfterMs?: number | undefined;
};

/** A call, or one item of a batch, that did not succeed. Switch on `reason`, or on `code` where that is undefined. */
export class BatonClientError extends Error {
  override readonly name = "BatonClientError";
  /** The gRPC status code. */
  readonly code: StatusCodeName;
  /** Stable and in capitals, such as `JOB_EXISTS` or `LEASE_LOST`; undefined when no broker said it. */
  readonly reason: string | undefined;
  /** What a program needs to act, such as the state of the job that is in the way. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The bad fields of an INVALID_ARGUMENT. */
  readonly violations: readonly Violation[];
  /** Waiting helps: try again after so long. */
  readonly retryAfterMs: number | undefined;

  constructor(code: StatusCodeName, message: string, details: BatonErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.reason = details.reason;
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** True for what ends a stream for good: opening another cannot help, or there is no client any more. */
export function isFatal({ code, reason }: BatonClientError): boolean {
  return FATAL_CODES.has(code) || reason === "CLIENT_CLOSED";
}

/** True for what may pass by itself: no connection, a broker that shuts down, Redis away. */
export function isUnavailable(error: unknown): error is BatonClientError {
  return error instanceof BatonClientError && error.code === "UNAVAILABLE";
}

/** True when the call's time was up. */
export function isDeadlineExceeded(error: unknown): boolean {
  return error instanceof BatonClientError && error.code === "DEADLINE_EXCEEDED";
}

/** From the error that a gRPC call ended with. */
export function fromServiceError(error: ServiceError): BatonClientError {
  const encoded = error.metadata?.get("grpc-status-details-bin")[0];
  const details = encoded instanceof Uint8Array ? decodeDetails(encoded) : {};
  return new BatonClientError(codeName(error.code), error.details || error.message, details);
}

/** From one item of a batch's answer. */
export function fromStatus(status: Status): BatonClientError {
  return new BatonClientError(codeName(status.code), status.message, unpack(status.details));
}

/** What `fn` threw, as the library's own error where it comes from gRPC. */
export function toClientError(error: unknown): unknown {
  return isServiceError(error) ? fromServiceError(error) : error;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && "details" in error;
}

function codeName(code: number): StatusCodeName {
  return CODES[code] ?? "UNKNOWN";
}

/** Details that cannot be decoded, from a proxy for instance, are none: the code and the message still say enough. */
function decodeDetails(encoded: Uint8Array): BatonErrorDetails {
  try {
    return unpack(fromBinary(StatusSchema, encoded).details);
  } catch {
    return {};
  }
}

function unpack(details: readonly Any[]): BatonErrorDetails {
  const found: { -readonly [K in keyof BatonErrorDetails]: BatonErrorDetails[K] } = {};
  for (const detail of details) {
    const info = anyUnpack(detail, ErrorInfoSchema);
    if (info !== undefined) {
      found.reason = info.reason;
      found.metadata = info.metadata;
    }
    const badRequest = anyUnpack(detail, BadRequestSchema);
    if (badRequest !== undefined) {
      found.violations = badRequest.fieldViolations.map(({ field, description }) => ({ field, description }));
    }
    const retryDelay = anyUnpack(detail, RetryInfoSchema)?.retryDelay;
    if (retryDelay !== undefined) found.retryAfterMs = durationMs(retryDelay);
  }
  return found;
}
