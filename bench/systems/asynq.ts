/** asynq: a Go library in the client's own process, and a Redis. */
import { findProgram, outputOf } from "../support/program.ts";
import { startDurableRedis } from "./redis-server.ts";
import type { Server, StartOptions, System } from "./system.ts";

const CLIENT = "asynq-client";

export const asynq: System = {
  name: "asynq",
  kind: "peer",
  operations: new Set(["put", "putMany", "lifeCycle", "drain", "due", "latency"]),
  start,
  client: ({ address }) => ({ command: findProgram(CLIENT), args: [address] }),
};

async function start({ durability: wanted }: StartOptions): Promise<Server> {
  const asynqVersion = await outputOf(findProgram(CLIENT), ["-version"]);
  const { redis, version, durability } = await startDurableRedis(wanted);
  return {
    version: `asynq ${asynqVersion}, ${version}`,
    durability,
    address: redis.socketPath,
    pids: { redis: redis.pid },
    redisSocket: redis.socketPath,
    lastWords: () => "",
    stop: redis.stop,
  };
}
