import { create } from "@bufbuild/protobuf";
import type { Client } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import {
  type HealthCheckRequest,
  HealthCheckRequestSchema,
  type HealthCheckResponse,
  HealthCheckResponseSchema,
  HealthListRequestSchema,
  HealthListResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../gen/grpc/health/v1/health_pb.js";
import { eventOnce, until, within } from "../support/wait.ts";
import { callRaw, decodeWith, detailsOf, encodeWith, startServer } from "./support.ts";

const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = ServingStatus;

async function check(client: Client, service: string): Promise<ServingStatus> {
  const bytes = encodeWith(HealthCheckRequestSchema)(create(HealthCheckRequestSchema, { service }));
  const outcome = await callRaw(client, "/grpc.health.v1.Health/Check", bytes).outcome;
  if (outcome.error) throw outcome.error;
  return decodeWith(HealthCheckResponseSchema)(outcome.bytes ?? Buffer.alloc(0)).status;
}

function watch(client: Client, service: string) {
  const call = client.makeServerStreamRequest<HealthCheckRequest, HealthCheckResponse>(
    "/grpc.health.v1.Health/Watch",
    encodeWith(HealthCheckRequestSchema),
    decodeWith(HealthCheckResponseSchema),
    create(HealthCheckRequestSchema, { service }),
  );
  const seen: ServingStatus[] = [];
  call.on("data", (response: HealthCheckResponse) => seen.push(response.status));
  call.on("error", () => {});
  return { call, seen };
}

describe("health checks", () => {
  it("answer for the broker and each of its services, and start with NOT_SERVING", async () => {
    await using server = await startServer();
    expect(await check(server.client, "")).toBe(NOT_SERVING);
    server.setServing(true);
    expect(await check(server.client, "")).toBe(SERVING);
    expect(await check(server.client, "baton.v1.JobService")).toBe(SERVING);
    server.setServing(false);
    expect(await check(server.client, "baton.v1.JobService")).toBe(NOT_SERVING);
  });

  it("answer NOT_FOUND for a service that the broker does not have", async () => {
    await using server = await startServer();
    const error = await check(server.client, "no.such.Service").catch((thrown) => thrown);
    expect(error).toMatchObject({ code: status.NOT_FOUND });
    expect(detailsOf(error).info?.reason).toBe("SERVICE_UNKNOWN");
  });

  it("list every service", async () => {
    await using server = await startServer();
    server.setServing(true);
    const request = encodeWith(HealthListRequestSchema)(create(HealthListRequestSchema));
    const { bytes } = await callRaw(server.client, "/grpc.health.v1.Health/List", request).outcome;
    const { statuses } = decodeWith(HealthListResponseSchema)(bytes ?? Buffer.alloc(0));
    expect(Object.entries(statuses).map(([name, { status }]) => [name, status])).toEqual([
      ["", SERVING],
      ["baton.v1.JobService", SERVING],
    ]);
  });
});

describe("a health watch", () => {
  it("tells the status at once, and then each change", async () => {
    await using server = await startServer();
    const { seen } = watch(server.client, "");
    await until(() => seen.length === 1, { what: "the first status" });
    server.setServing(true);
    await until(() => seen.length === 2, { what: "the change" });
    // No change, so nothing to tell.
    server.setServing(true);
    server.setServing(false);
    await until(() => seen.length === 3, { what: "the second change" });
    expect(seen).toEqual([NOT_SERVING, SERVING, NOT_SERVING]);
  });

  it("of an unknown service says so, and stays open", async () => {
    await using server = await startServer();
    const { seen, call } = watch(server.client, "no.such.Service");
    await until(() => seen.length === 1, { what: "the first status" });
    expect(seen).toEqual([SERVICE_UNKNOWN]);
    call.cancel();
  });

  it("is told that the broker goes, and does not hold up its shutdown", async () => {
    await using server = await startServer();
    server.setServing(true);
    const { seen, call } = watch(server.client, "");
    await until(() => seen.length === 1, { what: "the first status" });
    const ended = eventOnce(call, "status");
    await within(server.close(10_000), { what: "close()", withinMs: 2_000 });
    expect(await ended).toMatchObject([{ code: status.OK }]);
    expect(seen).toEqual([SERVING, NOT_SERVING]);
  });

  it("takes no stream from workers", async () => {
    await using server = await startServer({ limits: { maxStreams: 0 } });
    const { seen } = watch(server.client, "");
    await until(() => seen.length === 1, { what: "the first status" });
  });
});
