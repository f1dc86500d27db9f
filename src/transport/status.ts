/** What a handler threw, as the status that ends a gRPC call. */
import { toBinary } from "@bufbuild/protobuf";
import { Metadata, type StatusObject } from "@grpc/grpc-js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { BatonError } from "../model/errors.ts";
import type { Logger } from "../model/log.ts";
import { statusOf } from "../rpc/status.ts";

const DETAILS_KEY = "grpc-status-details-bin";

/** Which call failed, and whom to tell when it should not have. */
export type Origin = { readonly method: string; readonly log: Logger };

export function failureOf(thrown: unknown, origin: Origin): StatusObject {
  return grpcStatusOf(explain(thrown, origin));
}

/** grpc-js percent-encodes the message. */
export function grpcStatusOf(error: BatonError): StatusObject {
  const status = statusOf(error);
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, Buffer.from(toBinary(StatusSchema, status)));
  return { code: status.code, details: status.message, metadata };
}

export function deadlineExceeded(): BatonError {
  return new BatonError("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "the call's deadline has passed");
}

export function cancelled(): BatonError {
  return new BatonError("CANCELLED", "CANCELLED", "the caller cancelled the call, or its connection broke");
}

function explain(thrown: unknown, { method, log }: Origin): BatonError {
  if (thrown instanceof BatonError) return thrown;
  if (thrown instanceof Error && thrown.name === "AbortError") return cancelled();
  if (thrown instanceof Error && thrown.name === "TimeoutError") return deadlineExceeded();
  const error = thrown instanceof Error ? thrown : new Error(`thrown: ${String(thrown)}`);
  log.error("a call failed in a way that it should not", { method, error });
  return new BatonError("INTERNAL", "INTERNAL", "the broker failed to handle this call; its log says why");
}
