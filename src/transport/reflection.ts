/**
 * Server reflection, so that grpcurl and its like need no proto files. Versions v1 and v1alpha differ in nothing but
 * their names: one implementation, with v1's messages, serves both.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type handleBidiStreamingCall, type ServerDuplexStream, status } from "@grpc/grpc-js";
import {
  ServerReflection,
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  ServerReflectionResponseSchema,
} from "../../gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ServerReflectionV1Alpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.js";
import { type Decoded, decoderOf, encode, requestOf } from "./codec.ts";
import type { DescriptorIndex } from "./descriptors.ts";
import type { StreamSlots } from "./slots.ts";
import { failureOf, type Origin } from "./status.ts";

type Answer = NonNullable<MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"]>;
type Call = ServerDuplexStream<Decoded, Buffer>;

export const REFLECTION_SERVICES = [ServerReflection, ServerReflectionV1Alpha] as const;

export const decodeReflectionRequest = decoderOf(ServerReflectionRequestSchema);

export type ReflectionService = {
  readonly call: handleBidiStreamingCall<Decoded, Buffer>;
  /** Ends the calls that are open, so that they do not hold up a shutdown. */
  close(): void;
};

export function reflectionService(
  descriptors: DescriptorIndex,
  serviceNames: readonly string[],
  slots: StreamSlots,
  origin: Origin,
): ReflectionService {
  const open = new Set<Call>();
  const names = serviceNames.toSorted();

  function respond(call: Call, decoded: Decoded): void {
    const request = requestOf(decoded) as ServerReflectionRequest;
    const response = create(ServerReflectionResponseSchema, {
      validHost: request.host,
      originalRequest: request,
      messageResponse: answer(request.messageRequest, descriptors, names),
    });
    // A client that asks and does not read is not heard until it has read.
    if (!call.write(encode(ServerReflectionResponseSchema, response))) {
      call.pause();
      call.once("drain", () => call.resume());
    }
  }

  return {
    call(call) {
      try {
        slots.take();
      } catch (thrown) {
        call.emit("error", failureOf(thrown, origin));
        return;
      }
      open.add(call);
      // grpc-js says so after every call, however it ended.
      call.once("cancelled", () => {
        open.delete(call);
        slots.release();
      });
      call.on("data", (decoded: Decoded) => {
        try {
          respond(call, decoded);
        } catch (thrown) {
          call.emit("error", failureOf(thrown, origin));
        }
      });
      call.on("end", () => call.end());
    },
    close() {
      for (const call of open) call.end();
    },
  };
}

function answer(
  request: ServerReflectionRequest["messageRequest"],
  descriptors: DescriptorIndex,
  serviceNames: readonly string[],
): Answer {
  switch (request.case) {
    case "fileByFilename":
      return files(descriptors.fileByName(request.value), `file ${request.value}`);
    case "fileContainingSymbol":
      return files(descriptors.fileBySymbol(request.value), `symbol ${request.value}`);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = request.value;
      const found = descriptors.fileByExtension(containingType, extensionNumber);
      return files(found, `extension ${extensionNumber} of ${containingType}`);
    }
    case "allExtensionNumbersOfType": {
      const extensionNumber = descriptors.extensionNumbers(request.value);
      if (extensionNumber === undefined) return notFound(`message ${request.value}`);
      const value = { baseTypeName: request.value, extensionNumber };
      return { case: "allExtensionNumbersResponse", value };
    }
    case "listServices":
      return { case: "listServicesResponse", value: { service: serviceNames.map((name) => ({ name })) } };
    case undefined: {
      const errorMessage = "set one of the fields of message_request";
      return { case: "errorResponse", value: { errorCode: status.INVALID_ARGUMENT, errorMessage } };
    }
  }
}

function files(found: Buffer[] | undefined, wanted: string): Answer {
  if (found === undefined) return notFound(wanted);
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto: found } };
}

function notFound(wanted: string): Answer {
  const errorMessage = `this broker knows no ${wanted}`;
  return { case: "errorResponse", value: { errorCode: status.NOT_FOUND, errorMessage } };
}
