/**
 * What a client sends on a call, message by message, as its handler pulls it. grpc-js reads from the connection only what
 * has room here, and so HTTP/2's flow control stops a client whose handler does not pull.
 */
import type { ServerDuplexStream } from "@grpc/grpc-js";
import { type Decoded, requestOf } from "./codec.ts";

type Call = ServerDuplexStream<Decoded, Buffer>;

const EVENTS = ["readable", "end", "close"] as const;

/** Ends when the client closes its side, or is gone. `return()` also ends a `next()` that is waiting. */
export class Requests implements AsyncIterableIterator<object> {
  readonly #call: Call;
  /** One for all events: thousands of streams have one of these each. */
  readonly #onEvent = () => this.#wake?.();
  #wake: (() => void) | undefined;
  #returned = false;

  constructor(call: Call) {
    this.#call = call;
    readNoFurtherAhead(call);
    for (const event of EVENTS) call.on(event, this.#onEvent);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<object>> {
    while (!this.#returned) {
      const decoded = this.#call.destroyed ? null : (this.#call.read() as Decoded | null);
      if (decoded !== null) return { done: false, value: requestOf(decoded) };
      if (this.#call.destroyed || this.#call.readableEnded) break;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<object>> {
    this.#returned = true;
    for (const event of EVENTS) this.#call.off(event, this.#onEvent);
    this.#wake?.();
    // What still comes is thrown away, so that the client is not stuck while its call ends.
    this.#call.resume();
    return { done: true, value: undefined };
  }
}

/**
 * grpc-js (1.14.7) would read 16 messages ahead, each as large as the largest that is allowed, and offers no way to say
 * otherwise; a test fails when this field has moved.
 */
function readNoFurtherAhead(call: Call): void {
  const state: unknown = Reflect.get(call, "_readableState");
  if (typeof state === "object" && state !== null) Reflect.set(state, "highWaterMark", 1);
}
