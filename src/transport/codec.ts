/** Messages to bytes and back, for grpc-js. */
import { type DescMessage, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BatonError } from "../model/errors.ts";
import type { Answer, Reader } from "../rpc/handler.ts";

/**
 * Stands in for a request that could not be decoded. A decoder that throws would make grpc-js answer INTERNAL, as if
 * the fault were the server's.
 */
export class MalformedRequest {
  readonly error: BatonError;

  constructor(typeName: string, cause: unknown) {
    const why = cause instanceof Error ? cause.message : "it cannot be decoded";
    this.error = new BatonError("INVALID_ARGUMENT", "MALFORMED_MESSAGE", `the request is no ${typeName}: ${why}`);
  }
}

/** A message, or what the service's own reader has made of its bytes. */
export type Decoded = object | MalformedRequest;

export function decoderOf(schema: DescMessage, reader?: Reader): (bytes: Buffer) => Decoded {
  return (bytes) => {
    try {
      return reader?.(bytes) ?? fromBinary(schema, bytes);
    } catch (cause) {
      return new MalformedRequest(schema.typeName, cause);
    }
  };
}

export function requestOf(decoded: Decoded): object {
  if (decoded instanceof MalformedRequest) throw decoded.error;
  return decoded;
}

/** grpc-js wants a Buffer; this one is the handler's, or a view of protobuf-es's own bytes. */
export function encode(schema: DescMessage, message: Answer): Buffer {
  if (Buffer.isBuffer(message)) return message;
  const bytes = toBinary(schema, message);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Responses reach grpc-js encoded, so that a message that cannot be encoded is logged and answered like any bug. */
export function asEncoded(bytes: Buffer): Buffer {
  return bytes;
}
