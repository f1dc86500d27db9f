/** A unary handler, as grpc-js calls it. */
import type { DescMessage } from "@bufbuild/protobuf";
import type { handleUnaryCall, ServerUnaryCall, sendUnaryData } from "@grpc/grpc-js";
import type { Answer, UnaryHandler } from "../rpc/handler.ts";
import { type Decoded, encode, requestOf } from "./codec.ts";
import { GrpcCallContext } from "./context.ts";
import { failureOf, type Origin } from "./status.ts";

export function unaryCall(
  output: DescMessage,
  handler: UnaryHandler<object, Answer>,
  origin: Origin,
): handleUnaryCall<Decoded, Buffer> {
  async function answer(call: ServerUnaryCall<Decoded, Buffer>, reply: sendUnaryData<Buffer>): Promise<void> {
    const context = new GrpcCallContext(call);
    let response: Buffer;
    try {
      response = encode(output, await handler(requestOf(call.request), context));
    } catch (thrown) {
      context.answered();
      reply(failureOf(thrown, origin));
      return;
    }
    context.answered();
    reply(null, response);
  }
  return (call, reply) => void answer(call, reply);
}
