/**
 * A BatonError as google.rpc.Status: what travels in `grpc-status-details-bin`, and what stands in the results of a
 * batch for the one item that failed.
 *
 * Everything in it is bounded, because trailers are: a Java client, for one, refuses more than 8 KiB of them. With a
 * message of at most 768 bytes (2,304 once percent-encoded) and a status of at most 4 KiB (5,464 in base64), they stay
 * below that whatever an error holds.
 */
import { create } from "@bufbuild/protobuf";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { type BatonError, type FieldViolation, STATUS_CODES } from "../model/errors.ts";

const DOMAIN = "baton";

const MESSAGE_BYTES_LIMIT = 768;
const METADATA_BYTES_LIMIT = 1_280;
const METADATA_VALUE_BYTES_LIMIT = 512;
const VIOLATIONS_LIMIT = 20;
const VIOLATIONS_BYTES_LIMIT = 1_600;
const FIELD_BYTES_LIMIT = 128;
const DESCRIPTION_BYTES_LIMIT = 256;
/** What protobuf adds to two strings in a message of their own: tags and lengths. */
const PAIR_OVERHEAD_BYTES = 10;

export function statusOf(error: BatonError): Status {
  const { metadata = {}, violations = [], retryAfterMs } = error.details;
  const info = { reason: error.reason, domain: DOMAIN, metadata: boundedMetadata(metadata) };
  const details = [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, info))];
  if (violations.length > 0) {
    const fieldViolations = boundedViolations(violations);
    details.push(anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations })));
  }
  if (retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(Math.ceil(retryAfterMs));
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
  }
  const message = clip(error.message, MESSAGE_BYTES_LIMIT);
  return create(StatusSchema, { code: STATUS_CODES[error.code], message, details });
}

function boundedMetadata(metadata: Readonly<Record<string, string>>): Record<string, string> {
  const clipped = Object.entries(metadata).map(
    ([key, value]) => [key, clip(value, METADATA_VALUE_BYTES_LIMIT)] as const,
  );
  return Object.fromEntries(within(METADATA_BYTES_LIMIT, clipped));
}

function boundedViolations(violations: readonly FieldViolation[]): FieldViolation[] {
  const clipped = violations
    .slice(0, VIOLATIONS_LIMIT)
    .map((it) => [clip(it.field, FIELD_BYTES_LIMIT), clip(it.description, DESCRIPTION_BYTES_LIMIT)] as const);
  return within(VIOLATIONS_BYTES_LIMIT, clipped).map(([field, description]) => ({ field, description }));
}

/** The first of the pairs, as many as fit in so many bytes together. */
function within(bytesLimit: number, pairs: readonly (readonly [string, string])[]): (readonly [string, string])[] {
  let bytes = 0;
  return pairs.filter(([first, second]) => {
    bytes += Buffer.byteLength(first) + Buffer.byteLength(second) + PAIR_OVERHEAD_BYTES;
    return bytes <= bytesLimit;
  });
}

/**
 * At most so many bytes of UTF-8, cut between characters. Lone surrogates are replaced, since neither protobuf nor
 * percent-encoding can express them.
 */
function clip(text: string, bytesLimit: number): string {
  const wellFormed = text.toWellFormed();
  if (Buffer.byteLength(wellFormed) <= bytesLimit) return wellFormed;
  const ellipsis = "…";
  const kept = Buffer.from(wellFormed).subarray(0, bytesLimit - Buffer.byteLength(ellipsis));
  // In stream mode the decoder keeps an incomplete last character to itself.
  return new TextDecoder().decode(kept, { stream: true }) + ellipsis;
}
