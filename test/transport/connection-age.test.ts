/** Connections that end at an age, so that clients spread anew over all brokers: nobody's call may notice. */
import { create } from "@bufbuild/protobuf";
import { Client, credentials } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { PutResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import { until } from "../support/wait.ts";
import { put, startServer } from "./support.ts";

describe("a connection that reaches its age", () => {
  it("lets no call fail, however many cross its goodbye", async () => {
    const peers = new Set<string>();
    await using server = await startServer({
      maxConnectionAgeMs: 100,
      handlers: {
        put: async ({ id }, { peer }) => {
          peers.add(peer);
          return create(PutResponseSchema, { jobId: id });
        },
      },
    });
    const client = new Client(server.address, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.initial_reconnect_backoff_ms": 10,
    });
    const errors: unknown[] = [];
    let stopping = false;
    const loops = Array.from({ length: 20 }, async () => {
      while (!stopping) await put(client, "1").catch((error: unknown) => errors.push(error));
    });
    await until(() => peers.size >= 20, { what: "twenty connections, one after the other", withinMs: 15_000 });
    stopping = true;
    await Promise.all(loops);
    client.close();
    expect(errors).toEqual([]);
  });
});
