/** Calls on which both sides speak, over real gRPC: what each side sees of the other, and what holds it back. */
import { Client, credentials, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import type { WorkRequest, WorkResponse } from "../../gen/baton/v1/job_service_pb.js";
import { draining } from "../../src/model/errors.ts";
import type { CallContext } from "../../src/rpc/handler.ts";
import { eventOnce, until, within } from "../support/wait.ts";
import { answerTo, detailsOf, numbered, numberOf, put, startLink, startServer, steady, work } from "./support.ts";

type Call = ReturnType<typeof work>;
type Requests = AsyncIterable<WorkRequest>;

/** Answers every message; sees what comes, and how often it was begun and cleaned up. */
function echo() {
  const seen = { opened: 0, closed: 0, requestsEnded: 0, numbers: [] as (number | undefined)[] };
  async function* handler(requests: Requests): AsyncGenerator<WorkResponse> {
    seen.opened += 1;
    try {
      for await (const request of requests) {
        seen.numbers.push(numberOf(request));
        yield answerTo(request);
      }
      seen.requestsEnded += 1;
    } finally {
      seen.closed += 1;
    }
  }
  return { seen, handler };
}

/** Pulls nothing until it is told to, then everything, and answers nothing. */
function deaf() {
  const { promise: told, resolve: listen } = Promise.withResolvers<void>();
  const numbers: (number | undefined)[] = [];
  async function* handler(requests: Requests, { signal }: CallContext): AsyncGenerator<WorkResponse> {
    await Promise.race([told, new Promise((resolve) => signal.addEventListener("abort", resolve))]);
    for await (const request of requests) numbers.push(numberOf(request));
  }
  return { handler, listen, numbers };
}

/** Sends numbered messages of about so many bytes; how many of them the connection has taken so far. */
function sendMany(call: Call, count: number, bytes: number): () => number {
  let sent = 0;
  for (let i = 0; i < count; i++) {
    call.write(numbered(i, bytes), () => {
      sent += 1;
    });
  }
  return () => sent;
}

async function answersOf(call: Call): Promise<number[]> {
  const numbers: number[] = [];
  for await (const { released } of call as AsyncIterable<WorkResponse>) numbers.push(...(released[0]?.sequences ?? []));
  return numbers;
}

/** Opens a call on which one message has been answered. */
async function opened(client: Client, options = {}): Promise<Call> {
  const call = work(client, options);
  const answered = eventOnce(call, "data");
  call.write(numbered(0));
  await answered;
  return call;
}

describe("a bidirectional call", () => {
  it.each([
    { name: "as it is", compression: 0 },
    { name: "deflated", compression: 1 },
    { name: "gzipped", compression: 2 },
  ])("hands over what the client sends, $name, in order, ends the requests with them, and ends OK", async (row) => {
    const { seen, handler } = echo();
    await using server = await startServer({ handlers: { work: handler } });
    const client = new Client(server.address, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.default_compression_algorithm": row.compression,
    });
    const call = work(client);
    const ended = eventOnce(call, "status");
    sendMany(call, 500, 2_000);
    call.end();
    const all = Array.from({ length: 500 }, (_, i) => i);
    expect(await within(answersOf(call), { what: "the answers" })).toEqual(all);
    expect(seen).toMatchObject({ numbers: all, requestsEnded: 1, closed: 1 });
    expect(await ended).toMatchObject([{ code: status.OK }]);
    client.close();
  });

  it("sends its headers at once, before either side has said anything", async () => {
    const { handler } = echo();
    await using server = await startServer({ handlers: { work: handler } });
    const call = work(server.client);
    await eventOnce(call, "metadata");
    call.cancel();
  });

  it("can be answered before, and without, anything being asked", async () => {
    await using server = await startServer({
      handlers: {
        async *work() {
          yield answerTo(numbered(7));
        },
      },
    });
    const call = work(server.client);
    const ended = eventOnce(call, "status");
    expect(await answersOf(call)).toEqual([7]);
    expect(await ended).toMatchObject([{ code: status.OK }]);
  });

  it("goes on being answered after the client has closed its side", async () => {
    await using server = await startServer({
      handlers: {
        async *work(requests) {
          const all: WorkRequest[] = [];
          for await (const request of requests) all.push(request);
          for (const request of all) yield answerTo(request);
        },
      },
    });
    const call = work(server.client);
    sendMany(call, 50, 10);
    call.end();
    expect(await answersOf(call)).toHaveLength(50);
  });

  it("ends when the handler does, also while the client goes on sending", async () => {
    await using server = await startServer({
      handlers: {
        async *work(requests) {
          for await (const request of requests) {
            yield answerTo(request);
            break;
          }
        },
      },
    });
    const call = work(server.client);
    const ended = eventOnce(call, "status");
    sendMany(call, 200, 20_000);
    expect(await answersOf(call)).toEqual([0]);
    expect(await ended).toMatchObject([{ code: status.OK }]);
  });

  it("has requests that stay ended when they have", async () => {
    const looks: (boolean | undefined)[] = [];
    await using server = await startServer({
      handlers: {
        async *work(requests) {
          const iterator = requests[Symbol.asyncIterator]();
          yield answerTo(numbered(0));
          for (let i = 0; i < 3; i++) looks.push((await iterator.next()).done);
          await iterator.return?.();
          looks.push((await iterator.next()).done);
        },
      },
    });
    const call = work(server.client);
    call.end();
    await answersOf(call);
    expect(looks).toEqual([true, true, true, true]);
  });
});

describe("a bidirectional call whose handler does not pull", () => {
  const MESSAGE_BYTES = 300_000;

  it("stops the client after what is in one window, and nobody else on the connection; then loses nothing", async () => {
    const { handler, listen, numbers } = deaf();
    await using server = await startServer({ handlers: { work: handler } });
    const call = work(server.client);
    const sent = sendMany(call, 60, MESSAGE_BYTES);
    const settled = await steady(sent);
    // What HTTP/2's window of about 1 MiB takes. With the 16 messages that grpc-js reads ahead by itself it would be 19:
    // when this fails, the field by which it is told otherwise has moved.
    expect(settled).toBeLessThanOrEqual(6);
    expect((await put(server.client, "other")).jobId).toBe("other");
    listen();
    call.end();
    await answersOf(call);
    expect(numbers).toEqual(Array.from({ length: 60 }, (_, i) => i));
  });

  it("frees it when the client cancels, with messages still on their way", async () => {
    const { handler, numbers } = deaf();
    await using server = await startServer({ handlers: { work: handler }, limits: { maxStreams: 1 } });
    const call = work(server.client);
    const sent = sendMany(call, 60, MESSAGE_BYTES);
    await steady(sent);
    call.cancel();
    await until(() => opened1(server.client), { what: "room for another stream" });
    expect(numbers).toEqual([]);

    /** Whether a stream could be opened. */
    async function opened1(client: Client): Promise<boolean> {
      const other = work(client);
      const refused = await Promise.race([
        eventOnce(other, "metadata").then(() => false),
        eventOnce(other, "error").then(() => true),
      ]);
      other.cancel();
      return !refused;
    }
  });
});

describe("a bidirectional call whose client does not read", () => {
  const BYTES = 32_768;

  /** Answers every message with a large one. */
  function loud() {
    const seen = { pulled: 0, closed: 0 };
    async function* handler(requests: Requests): AsyncGenerator<WorkResponse> {
      try {
        for await (const request of requests) {
          seen.pulled += 1;
          yield answerTo(request, BYTES);
        }
      } finally {
        seen.closed += 1;
      }
    }
    return { seen, handler };
  }

  it("stops the handler with one answer in hand, and so the client; and goes on when it reads", async () => {
    const { seen, handler } = loud();
    await using server = await startServer({ handlers: { work: handler } });
    const call = work(server.client);
    let received = 0;
    let readUpTo = 1;
    call.on("data", () => {
      received += 1;
      if (received >= readUpTo) call.pause();
    });
    const sent = sendMany(call, 1_000, 10_000);
    const settled = await steady(() => seen.pulled);
    expect(settled * BYTES).toBeLessThan(4 << 20);
    expect(await steady(sent)).toBeLessThan(1_000);
    readUpTo = 1_000;
    call.resume();
    await until(() => received === 1_000, { what: "the call to go on" });
    call.cancel();
    await until(() => seen.closed === 1, { what: "the handler to be freed" });
  });

  it.each([
    { name: "the client cancels", end: (call: Call) => call.cancel() },
    { name: "the connection breaks", end: (_call: Call, cut: () => void) => cut() },
  ])("is freed once when $name, with a write under way", async ({ end }) => {
    const { seen, handler } = loud();
    await using server = await startServer({ handlers: { work: handler } });
    await using link = await startLink(server.address);
    const call = work(link.client);
    call.once("data", () => call.pause());
    sendMany(call, 1_000, 10);
    await steady(() => seen.pulled);
    expect(seen.closed).toBe(0);
    end(call, link.cut);
    await until(() => seen.closed > 0, { what: "the handler to be freed" });
    await server.close(1_000);
    expect(seen.closed).toBe(1);
    expect(server.log).toEqual([]);
  });
});

describe("a bidirectional call that ends from outside while the handler waits for a message", () => {
  it.each([
    { name: "the client cancels", end: (call: Call) => call.cancel() },
    { name: "the connection breaks", end: (_call: Call, cut: () => void) => cut() },
  ])("ends the requests, and the handler once, when $name", async ({ end }) => {
    const { seen, handler } = echo();
    await using server = await startServer({ handlers: { work: handler } });
    await using link = await startLink(server.address);
    const call = await opened(link.client);
    end(call, link.cut);
    await until(() => seen.closed === 1, { what: "the handler to be freed" });
    await server.close(1_000);
    expect(seen).toMatchObject({ opened: 1, closed: 1 });
    expect(server.log).toEqual([]);
  });

  it("ends the requests, and the handler once, when the deadline has passed", async () => {
    const { seen, handler } = echo();
    await using server = await startServer({ handlers: { work: handler } });
    const call = await opened(server.client, { deadline: Date.now() + 300 });
    const [error] = await eventOnce(call, "error");
    expect(error).toMatchObject({ code: status.DEADLINE_EXCEEDED });
    await until(() => seen.closed === 1, { what: "the handler to be freed" });
    expect(seen).toMatchObject({ opened: 1, closed: 1 });
  });

  it("frees the handler when the server closes, at once, and the client is told", async () => {
    const { seen, handler } = echo();
    await using server = await startServer({ handlers: { work: handler } });
    const call = await opened(server.client);
    const failed = eventOnce(call, "error");
    await within(server.close(0), { what: "the server to close" });
    await failed;
    await until(() => seen.closed === 1, { what: "the handler to be freed" });
  });

  it("lets the call end by itself when the server closes with a grace", async () => {
    const { seen, handler } = echo();
    await using server = await startServer({ handlers: { work: handler } });
    const call = await opened(server.client);
    const closed = server.close(10_000);
    const answered = eventOnce(call, "data");
    call.write(numbered(1));
    await answered;
    const ended = eventOnce(call, "status");
    call.end();
    expect(await ended).toMatchObject([{ code: status.OK }]);
    await within(closed, { what: "the server to close" });
    expect(seen).toMatchObject({ closed: 1 });
  });
});

describe("the signal of a bidirectional call", () => {
  it("aborts when the client cancels, also while the handler does not pull", async () => {
    const reason = Promise.withResolvers<unknown>();
    await using server = await startServer({
      handlers: {
        async *work(_requests, { signal }) {
          yield answerTo(numbered(0));
          await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
          reason.resolve(signal.reason);
        },
      },
    });
    const call = await opened(server.client);
    call.cancel();
    expect(await within(reason.promise, { what: "the signal" })).toMatchObject({ code: "CANCELLED" });
  });
});

describe("a bidirectional call that goes wrong", () => {
  it("tells the handler, and so the client, of a message that is none, after the answers to those before", async () => {
    const { seen, handler } = echo();
    await using server = await startServer({ handlers: { work: handler } });
    const call = work(server.client);
    const answers: unknown[] = [];
    call.on("data", (answer) => answers.push(answer));
    const failed = eventOnce(call, "error");
    call.write(numbered(1));
    call.write(Buffer.alloc(16, 0xff));
    call.write(numbered(2));
    const [error] = await failed;
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT });
    expect(detailsOf(error as never)).toMatchObject({
      info: { reason: "MALFORMED_MESSAGE" },
      message: expect.stringContaining("baton.v1.WorkRequest"),
    });
    expect(answers).toHaveLength(1);
    expect(seen).toMatchObject({ numbers: [1], closed: 1 });
  });

  it("ends with MESSAGE_TOO_LARGE when a message is, and frees the handler", async () => {
    const { seen, handler } = echo();
    await using server = await startServer({ handlers: { work: handler } });
    const call = await opened(server.client);
    const failed = eventOnce(call, "error");
    call.write(numbered(1, (1 << 20) + 1));
    const [error] = await failed;
    expect(error).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    expect(detailsOf(error as never).info?.reason).toBe("MESSAGE_TOO_LARGE");
    await until(() => seen.closed === 1, { what: "the handler to be freed" });
  });

  const FAILURES: readonly { readonly name: string; readonly fail: (requests: Requests) => AsyncIterable<never> }[] = [
    {
      name: "before it has made an iterable",
      fail: () => {
        throw draining();
      },
    },
    {
      name: "at its first pull",
      // biome-ignore lint/correctness/useYield: it fails before.
      fail: async function* () {
        throw draining();
      },
    },
    {
      name: "after it has heard something",
      // biome-ignore lint/correctness/useYield: it fails before.
      fail: async function* (requests) {
        for await (const _ of requests) throw draining();
      },
    },
    {
      name: "after its first answer",
      fail: async function* (requests) {
        for await (const request of requests) {
          yield answerTo(request) as never;
          throw draining();
        }
      },
    },
  ];

  it.each(FAILURES)("ends with the error of a handler that throws $name, and its place is free", async ({ fail }) => {
    await using server = await startServer({ handlers: { work: fail }, limits: { maxStreams: 1 } });
    for (let i = 0; i < 5; i++) {
      const call = work(server.client);
      call.resume();
      const failed = eventOnce(call, "error");
      sendMany(call, 20, 1_000);
      const [error] = await failed;
      expect(detailsOf(error as never).info?.reason).toBe("DRAINING");
    }
  });

  it("answers a bug with INTERNAL, and logs it", async () => {
    await using server = await startServer({
      handlers: {
        // biome-ignore lint/correctness/useYield: it fails before.
        async *work() {
          throw new Error("a bug");
        },
      },
    });
    const [error] = await eventOnce(work(server.client), "error");
    expect(error).toMatchObject({ code: status.INTERNAL });
    expect(server.log).toMatchObject([{ level: "error", fields: { error: { message: "a bug" } } }]);
  });
});

describe("the places for bidirectional calls", () => {
  it("are bounded, and free again however a call ends", async () => {
    const { seen, handler } = echo();
    await using server = await startServer({ handlers: { work: handler }, limits: { maxStreams: 1 } });
    const ends: readonly ((call: Call) => void)[] = [
      (call) => call.end(),
      (call) => call.cancel(),
      (call) => call.write(Buffer.alloc(16, 0xff)),
      (call) => call.write(numbered(1, (1 << 20) + 1)),
    ];
    for (const [i, end] of [...ends, ...ends].entries()) {
      const call = await opened(server.client);
      const [refused] = await eventOnce(work(server.client), "error");
      expect(refused).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
      expect(detailsOf(refused as never).info?.reason).toBe("TOO_MANY_STREAMS");
      end(call);
      await until(() => seen.closed === i + 1, { what: "the handler to be freed" });
    }
    expect(seen).toMatchObject({ opened: 8, closed: 8 });
  });

  it("leave nothing behind: ten thousand messages and a hundred calls on one connection make no warning", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => void warnings.push(warning);
    process.on("warning", onWarning);
    const { handler } = echo();
    await using server = await startServer({ handlers: { work: handler } });
    for (let i = 0; i < 100; i++) {
      const call = work(server.client);
      sendMany(call, 100, 10);
      call.end();
      expect(await answersOf(call)).toHaveLength(100);
    }
    process.off("warning", onWarning);
    expect(warnings).toEqual([]);
  });
});

describe("a connection that has reached its age", () => {
  it("takes no new calls, so that the next one comes on another; those that are open go on", async () => {
    const { seen, handler } = echo();
    await using server = await startServer({ handlers: { work: handler }, maxConnectionAgeMs: 300 });
    const call = await opened(server.client);
    const peer = call.getPeer();
    // A client that is told to go opens a connection of its own accord for its next call.
    const other = await until(
      async () => {
        const next = await opened(server.client);
        next.cancel();
        return seen.opened > 2 && next;
      },
      { what: "a call after the connection's age" },
    );
    expect(other.getPeer()).toBe(peer);
    const answered = eventOnce(call, "data");
    call.write(numbered(1));
    await answered;
    call.cancel();
  });
});
