import { status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import type { SubscribeResponse } from "../../gen/baton/v1/job_service_pb.js";
import { badRequest, draining } from "../../src/model/errors.ts";
import type { CallContext } from "../../src/rpc/handler.ts";
import { eventOnce, until } from "../support/wait.ts";
import { bigMessage, detailsOf, keepalive, startLink, startServer, steady, subscribe } from "./support.ts";

/** A stream that sends one message, then waits for its signal, and counts how often it was cleaned up. */
function waitingStream() {
  const seen = { opened: 0, closed: 0, reasons: [] as unknown[] };
  async function* handler(_request: unknown, { signal }: CallContext): AsyncGenerator<SubscribeResponse> {
    seen.opened += 1;
    try {
      yield keepalive();
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
      seen.reasons.push(signal.reason);
    } finally {
      seen.closed += 1;
    }
  }
  return { seen, handler };
}

describe("a streaming call", () => {
  it("sends what the handler yields, in order, and ends OK", async () => {
    await using server = await startServer({
      handlers: {
        async *subscribe() {
          for (let i = 0; i < 500; i++) yield bigMessage(i);
        },
      },
    });
    const call = subscribe(server.client);
    const ended = eventOnce(call, "status");
    const lengths: number[] = [];
    for await (const message of call) lengths.push(message.event.value.workerId.length);
    expect(lengths).toEqual(Array.from({ length: 500 }, (_, i) => i));
    expect(await ended).toMatchObject([{ code: status.OK }]);
  });

  it("sends its headers at once, before there is a message", async () => {
    await using server = await startServer({
      handlers: {
        async *subscribe(_request, { signal }) {
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      },
    });
    const call = subscribe(server.client);
    await eventOnce(call, "metadata");
    call.cancel();
  });

  it("ends with the handler's error and its details, after what was sent before", async () => {
    await using server = await startServer({
      handlers: {
        async *subscribe() {
          yield keepalive();
          throw draining();
        },
      },
    });
    const call = subscribe(server.client);
    const data = eventOnce(call, "data");
    const [error] = await eventOnce(call, "error");
    await data;
    expect(error).toMatchObject({ code: status.UNAVAILABLE });
    expect(detailsOf(error as never).info?.reason).toBe("DRAINING");
  });

  it("ends with the error of a handler that throws before it has made an iterable", async () => {
    await using server = await startServer({
      handlers: {
        subscribe: () => {
          throw badRequest([{ field: "queues", description: "must not be empty" }]);
        },
      },
    });
    const [error] = await eventOnce(subscribe(server.client), "error");
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT });
    expect(detailsOf(error as never).badRequest?.fieldViolations).toHaveLength(1);
  });

  it("tells the iterable to stop when a message cannot be encoded", async () => {
    let closed = false;
    await using server = await startServer({
      handlers: {
        async *subscribe() {
          try {
            yield { ...keepalive(), event: { case: "revoked", value: 1 } } as never;
          } finally {
            closed = true;
          }
        },
      },
    });
    const [error] = await eventOnce(subscribe(server.client), "error");
    expect(error).toMatchObject({ code: status.INTERNAL });
    expect(closed).toBe(true);
  });
});

describe("a streaming call that ends from outside", () => {
  it("aborts the signal and closes the iterable when the caller cancels", async () => {
    const { seen, handler } = waitingStream();
    await using server = await startServer({ handlers: { subscribe: handler } });
    const call = subscribe(server.client);
    await eventOnce(call, "data");
    call.cancel();
    await until(() => seen.closed === 1, { what: "the iterable to be closed" });
    expect(seen.reasons).toMatchObject([{ code: "CANCELLED" }]);
  });

  it("aborts the signal and closes the iterable when the deadline has passed", async () => {
    const { seen, handler } = waitingStream();
    await using server = await startServer({ handlers: { subscribe: handler } });
    const [error] = await eventOnce(subscribe(server.client, { deadline: Date.now() + 50 }), "error");
    expect(error).toMatchObject({ code: status.DEADLINE_EXCEEDED });
    await until(() => seen.closed === seen.opened, { what: "the iterable to be closed" });
  });

  it("closes the iterable when the connection breaks", async () => {
    const { seen, handler } = waitingStream();
    await using server = await startServer({ handlers: { subscribe: handler } });
    await using link = await startLink(server.address);
    await eventOnce(subscribe(link.client), "data");
    link.cut();
    await until(() => seen.closed === 1, { what: "the iterable to be closed" });
  });

  it("calls return() at once on an iterable that is waiting and knows no signal", async () => {
    const calls: string[] = [];
    const iterator: AsyncIterator<SubscribeResponse> = {
      next: () => {
        calls.push("next");
        return new Promise(() => {});
      },
      return: async () => {
        calls.push("return");
        return { done: true, value: undefined };
      },
    };
    await using server = await startServer({
      handlers: { subscribe: () => ({ [Symbol.asyncIterator]: () => iterator }) },
    });
    const call = subscribe(server.client);
    await until(() => calls.length === 1, { what: "the iterable to be pulled" });
    call.cancel();
    await until(() => calls.length === 2, { what: "return() to be called" });
    expect(calls).toEqual(["next", "return"]);
  });

  it("survives an iterable whose clean-up fails, and logs that", async () => {
    await using server = await startServer({
      handlers: {
        async *subscribe(_request, { signal }) {
          try {
            yield keepalive();
            await new Promise((resolve) => signal.addEventListener("abort", resolve));
          } finally {
            // biome-ignore lint/correctness/noUnsafeFinally: the bug that this test is about.
            throw new Error("no clean-up");
          }
        },
      },
    });
    const call = subscribe(server.client);
    await eventOnce(call, "data");
    call.cancel();
    const logged = await until(() => server.log[0], { what: "the failure to be logged" });
    expect(logged).toMatchObject({ level: "error", fields: { error: { message: "no clean-up" } } });
  });

  it("does not log a handler that ends with its signal's reason", async () => {
    const ended = Promise.withResolvers<void>();
    await using server = await startServer({
      handlers: {
        async *subscribe(_request, { signal }) {
          yield keepalive();
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          ended.resolve();
          signal.throwIfAborted();
        },
      },
    });
    const call = subscribe(server.client);
    await eventOnce(call, "data");
    call.cancel();
    await ended.promise;
    await server.close(1_000);
    expect(server.log).toEqual([]);
  });
});

describe("a streaming call whose client does not read", () => {
  it("stops pulling from the iterable, goes on when the client reads, and frees it on a cancel in between", async () => {
    const messageBytes = 32_768;
    let pulled = 0;
    let closed = 0;
    async function* endless(): AsyncGenerator<SubscribeResponse> {
      try {
        for (;;) {
          pulled += 1;
          yield bigMessage(messageBytes);
        }
      } finally {
        closed += 1;
      }
    }
    await using server = await startServer({ handlers: { subscribe: endless } });
    const call = subscribe(server.client);
    let received = 0;
    let readUpTo = 1;
    // It must have read once: before that, a grpc-js client takes in whatever comes.
    call.on("data", () => {
      received += 1;
      if (received >= readUpTo) call.pause();
    });
    const settled = await steady(() => pulled);
    expect(settled * messageBytes).toBeLessThan(4 << 20);

    readUpTo = settled + 50;
    call.resume();
    await until(() => received === readUpTo, { what: "the stream to go on" });
    call.cancel();
    await until(() => closed === 1, { what: "the iterable to be closed" });
  });
});

describe("the limit of open streams", () => {
  it("refuses one stream too many, and has room again when one has ended", async () => {
    const { seen, handler } = waitingStream();
    await using server = await startServer({ handlers: { subscribe: handler }, limits: { maxStreams: 2 } });
    const first = subscribe(server.client);
    await eventOnce(first, "data");
    await eventOnce(subscribe(server.client), "data");

    const [error] = await eventOnce(subscribe(server.client), "error");
    expect(error).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    expect(detailsOf(error as never)).toMatchObject({ info: { reason: "TOO_MANY_STREAMS" }, retry: {} });
    expect(seen.opened).toBe(2);

    first.cancel();
    await until(() => seen.closed === 1, { what: "the first stream to be freed" });
    await eventOnce(subscribe(server.client), "data");
    expect(seen.opened).toBe(3);
  });
});
