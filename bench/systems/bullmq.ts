/** BullMQ: a library in the client's own process, and a Redis. */
import { readFile } from "node:fs/promises";
import { startDurableRedis } from "./redis-server.ts";
import type { Server, StartOptions, System } from "./system.ts";
import { typescriptClient } from "./typescript-client.ts";

export const bullmq: System = {
  name: "bullmq",
  kind: "peer",
  operations: new Set(["put", "putMany", "lifeCycle", "drain", "due", "retry", "latency"]),
  start,
  client: typescriptClient("bullmq"),
};

async function start({ durability: wanted }: StartOptions): Promise<Server> {
  const { redis, version, durability } = await startDurableRedis(wanted);
  return {
    version: `BullMQ ${await bullmqVersion()}, ${version}`,
    durability,
    address: redis.socketPath,
    pids: { redis: redis.pid },
    redisSocket: redis.socketPath,
    lastWords: () => "",
    stop: redis.stop,
  };
}

async function bullmqVersion(): Promise<string> {
  const { version } = JSON.parse(await readFile(new URL(import.meta.resolve("bullmq/package.json")), "utf8"));
  return String(version);
}
