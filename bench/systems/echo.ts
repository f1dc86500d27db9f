/** A bare grpc-js server of the same messages, without a store: as fast as Baton could be if it had nothing to do. */
import { startServerProcess } from "../support/node-process.ts";
import type { Server, StartOptions, System } from "./system.ts";
import { typescriptClient } from "./typescript-client.ts";

export const echo: System = {
  name: "echo",
  kind: "limit",
  operations: new Set(["put", "putMany", "lifeCycle", "latency"]),
  start,
  client: typescriptClient("echo"),
};

async function start({ profileFolder }: StartOptions): Promise<Server> {
  const server = await startServerProcess({ script: "bench/systems/echo-server.ts", args: [], profileFolder });
  return {
    version: `grpc-js on Node ${process.versions.node}`,
    durability: "none",
    address: server.address,
    pids: { broker: server.pid },
    lastWords: server.lastWords,
    stop: server.stop,
  };
}
