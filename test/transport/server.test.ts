import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { PutResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import { eventOnce, until, within } from "../support/wait.ts";
import { callRaw, keepalive, PUT, put, putBytes, startLink, startServer, subscribe } from "./support.ts";

describe("the address", () => {
  it("names the port that the system chose", async () => {
    await using server = await startServer({ address: "127.0.0.1:0" });
    expect(server.address).toMatch(/^127\.0\.0\.1:[1-9]\d+$/);
  });

  it("may be an IPv6 address", async () => {
    const peers: string[] = [];
    await using server = await startServer({
      address: "[::1]:0",
      handlers: {
        put: async (_request, { peer }) => {
          peers.push(peer);
          return create(PutResponseSchema);
        },
      },
    });
    await put(server.client, "a");
    expect(peers).toEqual([expect.stringMatching(/^\[::1\]:\d+$/)]);
  });

  it("may be a unix socket, which a second server says is taken", async () => {
    const folder = await mkdtemp(join(tmpdir(), "baton-grpc-"));
    const address = `unix:${join(folder, "grpc.sock")}`;
    try {
      await using server = await startServer({ address });
      expect(server.address).toBe(address);
      expect(await put(server.client, "a")).toMatchObject({ jobId: "a" });
      await expect(startServer({ address })).rejects.toThrow(/cannot listen on unix:.*remove the file/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("that is in use stops the start with what to do", async () => {
    await using server = await startServer();
    const start = startServer({ address: server.address });
    await expect(start).rejects.toThrow(`cannot listen on ${server.address}: another program does already; stop it`);
  });

  it.each([
    "",
    "7711",
    ":7711",
    "127.0.0.1",
    "127.0.0.1:",
    "127.0.0.1:70000",
    "::1:7711",
    "http://127.0.0.1:1",
    "unix:",
  ])("%j stops the start with what to write", async (address) => {
    await expect(startServer({ address })).rejects.toThrow("write host:port");
  });

  it("of another machine stops the start with what to do", async () => {
    await expect(startServer({ address: "192.0.2.1:0" })).rejects.toThrow("this machine has no such address");
  });
});

describe("close()", () => {
  it("lets an open call end within the grace", async () => {
    const release = Promise.withResolvers<void>();
    let started = false;
    await using server = await startServer({
      handlers: {
        put: async ({ id }) => {
          started = true;
          await release.promise;
          return create(PutResponseSchema, { jobId: id });
        },
      },
    });
    const answer = put(server.client, "a");
    await until(() => started, { what: "the call to start" });
    const closed = server.close(10_000);
    release.resolve();
    expect(await answer).toMatchObject({ jobId: "a" });
    await within(closed, { what: "close()" });
  });

  it("cancels what is still open after the grace", async () => {
    let aborted = false;
    await using server = await startServer({
      handlers: {
        async *subscribe(_request, { signal }) {
          yield keepalive();
          if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
          aborted = true;
        },
      },
    });
    const call = subscribe(server.client);
    await eventOnce(call, "data");
    const failed = eventOnce(call, "error");
    const startedAt = performance.now();
    await within(server.close(100), { what: "close()" });
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(90);
    expect(aborted).toBe(true);
    await failed;
  });

  it("cancels after the grace what a client left open when it said goodbye", async () => {
    let aborted = false;
    await using server = await startServer({
      handlers: {
        async *subscribe(_request, { signal }) {
          yield keepalive();
          if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
          aborted = true;
        },
      },
    });
    await eventOnce(subscribe(server.client), "data");
    server.client.close();
    await put(server.client, "a").catch(() => {});
    await within(server.close(100), { what: "close()" });
    expect(aborted).toBe(true);
  });

  it("does not wait for idle connections, and may be called again", async () => {
    await using server = await startServer();
    await put(server.client, "a");
    const first = server.close(10_000);
    expect(server.close(0)).toBe(first);
    await within(first, { what: "close()", withinMs: 2_000 });
    const { error } = await callRaw(server.client, PUT, putBytes("b"), { deadline: Date.now() + 500 }).outcome;
    expect([status.UNAVAILABLE, status.DEADLINE_EXCEEDED]).toContain(error?.code);
  });

  it("frees the port", async () => {
    const server = await startServer();
    server.client.close();
    await server.close(0);
    const port = Number(server.address.split(":")[1]);
    const other = createServer().listen(port, "127.0.0.1");
    await eventOnce(other, "listening");
    other.close();
  });
});

describe("a connection that answers no pings", () => {
  it("is broken, and its calls are cancelled", async () => {
    let aborted = false;
    await using server = await startServer({
      keepalive: { intervalMs: 100, timeoutMs: 1_000 },
      handlers: {
        async *subscribe(_request, { signal }) {
          yield keepalive();
          if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
          aborted = true;
        },
      },
    });
    await using link = await startLink(server.address);
    await eventOnce(subscribe(link.client), "data");
    link.freeze();
    await until(() => aborted, { what: "the call to be cancelled", withinMs: 10_000 });
  });
});
