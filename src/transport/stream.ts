/**
 * Handlers that answer with a stream, as grpc-js calls them: those of one request, and those of a stream of requests.
 *
 * One loop per call pulls a message from the handler's iterable, hands it to grpc-js, and pulls the next when HTTP/2
 * has sent that one. So a client that does not read stops the loop, and with it the handler, with one message in hand.
 * (What a client sends is pulled by the handler likewise: requests.ts.)
 *
 * A call ends in one of three ways:
 *   1. The iterable ends: status OK.
 *   2. The handler throws: the status that its error maps to.
 *   3. `cancelled` (deadline, cancellation, broken connection): the context's signal aborts and the iterable's
 *      `return()` is called, both at once. A write that is under way gets no callback any more, so the loop is woken.
 * The call holds its slot until the loop is through with the iterable, so slots bound what handlers hold.
 */
import type { DescMessage } from "@bufbuild/protobuf";
import {
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  Metadata,
  type ServerDuplexStream,
  type ServerWritableStream,
} from "@grpc/grpc-js";
import type { Answer, BidiHandler, StreamHandler } from "../rpc/handler.ts";
import { type Decoded, encode, requestOf } from "./codec.ts";
import { GrpcCallContext } from "./context.ts";
import { Requests } from "./requests.ts";
import type { StreamSlots } from "./slots.ts";
import { failureOf, type Origin } from "./status.ts";

type Call = ServerWritableStream<Decoded, Buffer> | ServerDuplexStream<Decoded, Buffer>;

export function streamCall(
  output: DescMessage,
  handler: StreamHandler<object, Answer>,
  slots: StreamSlots,
  origin: Origin,
): handleServerStreamingCall<Decoded, Buffer> {
  return (call) => {
    const context = new GrpcCallContext(call);
    void answer(call, context, output, () => handler(requestOf(call.request), context), slots, origin);
  };
}

export function bidiCall(
  output: DescMessage,
  handler: BidiHandler<object, Answer>,
  slots: StreamSlots,
  origin: Origin,
): handleBidiStreamingCall<Decoded, Buffer> {
  return (call) => {
    const context = new GrpcCallContext(call);
    void answer(call, context, output, () => handler(new Requests(call), context), slots, origin);
  };
}

async function answer(
  call: Call,
  context: GrpcCallContext,
  output: DescMessage,
  handle: () => AsyncIterable<Answer>,
  slots: StreamSlots,
  origin: Origin,
): Promise<void> {
  try {
    slots.take();
  } catch (thrown) {
    call.emit("error", failureOf(thrown, origin));
    return;
  }
  try {
    const messages = handle();
    // At once, because else they wait for the first message, and clients for them to know that the stream is open.
    call.sendMetadata(new Metadata());
    await sendAll(call, output, messages);
    context.answered();
    call.end();
  } catch (thrown) {
    context.answered();
    const failure = failureOf(thrown, origin);
    if (!call.cancelled) call.emit("error", failure);
  } finally {
    slots.release();
  }
}

async function sendAll(call: Call, output: DescMessage, messages: AsyncIterable<Answer>): Promise<void> {
  const iterator = messages[Symbol.asyncIterator]();
  let ended = false;
  let stopped: Promise<void> | undefined;
  let wake = () => {};

  async function stop(): Promise<void> {
    if (!ended) await iterator.return?.();
  }

  function written(bytes: Buffer): Promise<void> {
    return new Promise((resolve) => {
      wake = resolve;
      call.write(bytes, () => resolve());
    });
  }

  function onCancelled(): void {
    stopped = stop();
    // Reported below, where it is awaited; until then it must not count as unhandled.
    stopped.catch(() => {});
    wake();
  }

  call.once("cancelled", onCancelled);
  try {
    while (!call.cancelled) {
      const next = await iterator.next();
      if (next.done === true) {
        ended = true;
        return;
      }
      if (!call.cancelled) await written(encode(output, next.value));
    }
  } finally {
    call.off("cancelled", onCancelled);
    stopped ??= stop();
    await stopped;
  }
}
