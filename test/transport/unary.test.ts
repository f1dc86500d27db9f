import { create } from "@bufbuild/protobuf";
import { Metadata, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import type { JobState } from "../../gen/baton/v1/job_pb.js";
import { PutResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import { badRequest, draining, jobExists } from "../../src/model/errors.ts";
import type { CallContext } from "../../src/rpc/handler.ts";
import { until, within } from "../support/wait.ts";
import { callRaw, detailsOf, PUT, put, putBytes, putError, startLink, startServer } from "./support.ts";

const never = () => new Promise<never>(() => {});

/** A handler that waits until its signal aborts, and shows how it did. */
function waitingHandler() {
  const seen: { signal?: AbortSignal } = {};
  const handler = (_request: unknown, { signal }: CallContext) => {
    seen.signal = signal;
    return new Promise<never>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  return { seen, handler };
}

describe("a unary call", () => {
  it("is answered with the handler's message", async () => {
    await using server = await startServer();
    expect(await put(server.client, "jäb-1")).toMatchObject({ jobId: "jäb-1", created: true });
  });

  it("tells the handler its caller's address", async () => {
    const peers: string[] = [];
    await using server = await startServer({
      handlers: {
        put: async (_request, { peer }) => {
          peers.push(peer);
          return create(PutResponseSchema);
        },
      },
    });
    await put(server.client, "a");
    expect(peers).toEqual([expect.stringMatching(/^127\.0\.0\.1:\d+$/)]);
  });

  it("fails with the handler's error, its reason and metadata, also when they are not ASCII", async () => {
    await using server = await startServer({
      handlers: { put: ({ id }) => Promise.reject(jobExists("q", id, "RESERVED")) },
    });
    const error = await putError(server.client, "späß 100% ✓\u{1F600}");
    expect(error.code).toBe(status.ALREADY_EXISTS);
    expect(error.details).toBe("queue q already has a job späß 100% ✓\u{1F600}, which is RESERVED");
    expect(detailsOf(error)).toMatchObject({
      code: status.ALREADY_EXISTS,
      message: error.details,
      info: { domain: "baton", reason: "JOB_EXISTS", metadata: { id: "späß 100% ✓\u{1F600}", state: "RESERVED" } },
      badRequest: undefined,
      retry: undefined,
    });
  });

  it("fails with the fields that are bad", async () => {
    const violations = [{ field: "queue", description: "must not be empty" }];
    await using server = await startServer({ handlers: { put: () => Promise.reject(badRequest(violations)) } });
    const error = await putError(server.client, "a");
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(detailsOf(error).badRequest?.fieldViolations).toMatchObject(violations);
  });

  it("says how long to wait where waiting helps", async () => {
    await using server = await startServer({ handlers: { put: () => Promise.reject(draining()) } });
    const error = await putError(server.client, "a");
    expect(error.code).toBe(status.UNAVAILABLE);
    expect(detailsOf(error).retry?.retryDelay).toMatchObject({ seconds: 0n, nanos: 100_000_000 });
  });

  it("hides what went wrong inside, and logs it with its stack", async () => {
    const bug = new TypeError("secret of the house");
    await using server = await startServer({
      handlers: {
        put: () => {
          throw bug;
        },
      },
    });
    const error = await putError(server.client, "a");
    expect(error.code).toBe(status.INTERNAL);
    expect(detailsOf(error)).toMatchObject({ info: { reason: "INTERNAL" } });
    expect(error.message).not.toContain("secret");
    expect(server.log).toEqual([{ level: "error", message: expect.any(String), fields: { method: PUT, error: bug } }]);
  });

  it("is INTERNAL and logged when the answer cannot be encoded", async () => {
    await using server = await startServer({
      handlers: { put: async () => create(PutResponseSchema, { state: 1.5 as JobState }) },
    });
    const error = await putError(server.client, "a");
    expect(detailsOf(error).info?.reason).toBe("INTERNAL");
    expect(server.log).toMatchObject([{ level: "error" }]);
  });

  it("is INVALID_ARGUMENT when its bytes are no protobuf, and the server goes on", async () => {
    await using server = await startServer();
    const { error } = await callRaw(server.client, PUT, Buffer.from([0x0a, 0xff, 0xff])).outcome;
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT });
    expect(error && detailsOf(error).info?.reason).toBe("MALFORMED_MESSAGE");
    expect(await put(server.client, "b")).toMatchObject({ jobId: "b" });
    expect(server.log).toEqual([]);
  });

  it("is INVALID_ARGUMENT when a string is no UTF-8", async () => {
    await using server = await startServer();
    const { error } = await callRaw(server.client, PUT, Buffer.from([0x0a, 0x02, 0xc3, 0x28])).outcome;
    expect(error && detailsOf(error).info?.reason).toBe("MALFORMED_MESSAGE");
  });

  it.each(["/baton.v1.JobService/Nothing", "/baton.v1.NoService/Put", "/", "/baton.v1.JobService/P%C3%BCt"])(
    "is UNIMPLEMENTED for the unknown method %j",
    async (path) => {
      await using server = await startServer();
      const { error } = await callRaw(server.client, path, Buffer.alloc(0)).outcome;
      expect(error).toMatchObject({ code: status.UNIMPLEMENTED });
      expect(await put(server.client, "b")).toMatchObject({ jobId: "b" });
    },
  );

  it("is RESOURCE_EXHAUSTED when its message is over the limit, and the server goes on", async () => {
    await using server = await startServer({ limits: { maxMessageBytes: 1_000 } });
    const error = await putError(server.client, "x".repeat(1_000));
    expect(error.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(detailsOf(error).info?.reason).toBe("MESSAGE_TOO_LARGE");
    expect(await put(server.client, "b")).toMatchObject({ jobId: "b" });
  });

  it("may have an answer larger than the limit of requests: what was done for it would be lost", async () => {
    const jobId = "x".repeat(2_000);
    await using server = await startServer({
      handlers: { put: async () => create(PutResponseSchema, { jobId }) },
      limits: { maxMessageBytes: 1_000 },
    });
    expect(await put(server.client, "a")).toMatchObject({ jobId });
  });
});

describe("a unary call that nobody waits for any more", () => {
  it("aborts the handler's signal when the deadline has passed", async () => {
    const { seen, handler } = waitingHandler();
    await using server = await startServer({ handlers: { put: handler } });
    const error = await putError(server.client, "a", { deadline: Date.now() + 50 });
    expect(error.code).toBe(status.DEADLINE_EXCEEDED);
    await until(() => seen.signal?.aborted, { what: "the signal to abort" });
    expect(seen.signal?.reason).toMatchObject({ code: expect.stringMatching(/DEADLINE_EXCEEDED|CANCELLED/) });
    expect(server.log).toEqual([]);
  });

  it("gets DEADLINE_EXCEEDED with details when the server sees first that the time is up", async () => {
    const { seen, handler } = waitingHandler();
    await using server = await startServer({ handlers: { put: handler } });
    // The header alone: this client has no timer of its own.
    const metadata = new Metadata();
    metadata.set("grpc-timeout", "20m");
    const { error } = await callRaw(server.client, PUT, putBytes("a"), {}, metadata).outcome;
    expect(error).toMatchObject({ code: status.DEADLINE_EXCEEDED });
    expect(error && detailsOf(error).info?.reason).toBe("DEADLINE_EXCEEDED");
    expect(seen.signal?.reason).toMatchObject({ code: "DEADLINE_EXCEEDED" });
  });

  it("aborts the handler's signal when the caller cancels", async () => {
    const { seen, handler } = waitingHandler();
    await using server = await startServer({ handlers: { put: handler } });
    const call = callRaw(server.client, PUT, putBytes("a"));
    await until(() => seen.signal, { what: "the handler to run" });
    call.cancel();
    await until(() => seen.signal?.aborted, { what: "the signal to abort" });
    expect(seen.signal?.reason).toMatchObject({ code: "CANCELLED" });
  });

  it("aborts the handler's signal when the connection breaks", async () => {
    const { seen, handler } = waitingHandler();
    await using server = await startServer({ handlers: { put: handler } });
    await using link = await startLink(server.address);
    void callRaw(link.client, PUT, putBytes("a"));
    await until(() => seen.signal, { what: "the handler to run" });
    link.cut();
    await until(() => seen.signal?.aborted, { what: "the signal to abort" });
  });

  it("gives an aborted signal to a handler that asks for it late", async () => {
    const contexts: CallContext[] = [];
    await using server = await startServer({
      handlers: {
        put: (_request, context) => {
          contexts.push(context);
          return never();
        },
      },
    });
    await putError(server.client, "a", { deadline: Date.now() + 50 });
    await until(() => contexts[0]?.signal.aborted, { what: "the signal to be aborted" });
  });

  it("leaves the signal alone when the call was answered in time", async () => {
    const signals: AbortSignal[] = [];
    await using server = await startServer({
      handlers: {
        put: async (_request, { signal }) => {
          signals.push(signal);
          return create(PutResponseSchema);
        },
      },
    });
    await put(server.client, "a");
    await put(server.client, "b");
    await server.close(1_000);
    expect(signals.map((signal) => signal.aborted)).toEqual([false, false]);
  });
});

describe("a long deadline", () => {
  // In 32 bits of milliseconds these wrap around to the past, to 0.7 s, and to some days.
  it.each(["597H", "2147484S", "4294968S", "99999999S", "99999999H", "35791395M"])(
    "of grpc-timeout %s does not end the call early",
    async (timeout) => {
      const deadlines: boolean[] = [];
      const release = Promise.withResolvers<void>();
      await using server = await startServer({
        handlers: {
          put: async ({ id }, { signal }) => {
            signal.addEventListener("abort", () => deadlines.push(true));
            await release.promise;
            return create(PutResponseSchema, { jobId: id });
          },
        },
      });
      const metadata = new Metadata();
      metadata.set("grpc-timeout", timeout);
      const answer = put(server.client, "a", {}, metadata);
      const shorter = new Metadata();
      shorter.set("grpc-timeout", "800m");
      // A call with a deadline of 0.8 s outlives every deadline that has wrapped around to less.
      const { error } = await callRaw(server.client, PUT, putBytes("b"), {}, shorter).outcome;
      expect(error).toMatchObject({ code: status.DEADLINE_EXCEEDED });
      release.resolve();
      expect(await within(answer, { what: "the answer" })).toMatchObject({ jobId: "a" });
    },
  );

  it("of the longest that a timer can count still holds, and so does none at all", async () => {
    await using server = await startServer();
    const metadata = new Metadata();
    metadata.set("grpc-timeout", "596H");
    expect(await put(server.client, "a", {}, metadata)).toMatchObject({ jobId: "a" });
    expect(await put(server.client, "b", { deadline: Number.POSITIVE_INFINITY })).toMatchObject({ jobId: "b" });
    expect(await put(server.client, "c", { deadline: Date.now() + 100 * 365 * 86_400_000 })).toMatchObject({
      jobId: "c",
    });
  });
});
