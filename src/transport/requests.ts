/**
 * What a client sends on a call, message by message, as its handler pulls it. grpc-js reads from the connection only what
 * has room here, and so HTTP/2's flow control stops a client whose handler does not pull.
 */
import type { Message } from "@bufbuild/protobuf";
import type { ServerDuplexStream } from "@grpc/grpc-js";
import { type Decoded, requestOf } from "./codec.ts";

/** Ends when the client closes its side, or is gone. `return()` also ends a `next()` that is waiting. */
export function requestsOf(call: ServerDuplexStream<Decoded, Buffer>): AsyncIterableIterator<Message> {
  readNoFurtherAhead(call);
  let wake = () => {};
  let ended = false;
  const onReadable = () => wake();
  const onEnd = () => {
    ended = true;
    wake();
  };
  call.on("readable", onReadable);
  call.once("end", onEnd);
  call.once("close", onEnd);

  async function next(): Promise<IteratorResult<Message>> {
    for (;;) {
      // What came before the end is still there; after a return() nobody wants it.
      const decoded = ended && call.destroyed ? null : (call.read() as Decoded | null);
      if (decoded !== null) return { done: false, value: requestOf(decoded) };
      if (ended) return { done: true, value: undefined };
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }

  const requests: AsyncIterableIterator<Message> = {
    [Symbol.asyncIterator]: () => requests,
    next,
    async return() {
      call.off("readable", onReadable);
      call.off("end", onEnd);
      call.off("close", onEnd);
      onEnd();
      // What still comes is thrown away, so that the client is not stuck while its call ends.
      call.resume();
      return { done: true, value: undefined };
    },
  };
  return requests;
}

/**
 * grpc-js (1.14.7) would read 16 messages ahead, each as large as the largest that is allowed, and offers no way to say
 * otherwise; a test fails when this field has moved.
 */
function readNoFurtherAhead(call: ServerDuplexStream<Decoded, Buffer>): void {
  const state: unknown = Reflect.get(call, "_readableState");
  if (typeof state === "object" && state !== null) Reflect.set(state, "highWaterMark", 1);
}
