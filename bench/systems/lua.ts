/** Baton's Lua scripts alone, called by the client without a broker between: as fast as Baton could be on this Redis. */
import { BATONS_OWN, startDurableRedis } from "./redis-server.ts";
import type { Server, StartOptions, System } from "./system.ts";
import { typescriptClient } from "./typescript-client.ts";

export const lua: System = {
  name: "lua",
  kind: "limit",
  operations: new Set(["put", "putMany", "lifeCycle", "drain", "due", "latency"]),
  start,
  client: typescriptClient("lua"),
};

async function start({ durability: wanted }: StartOptions): Promise<Server> {
  const { redis, version, durability } = await startDurableRedis(wanted, BATONS_OWN);
  return {
    version: `Baton's scripts, ${version}`,
    durability,
    address: redis.socketPath,
    pids: { redis: redis.pid },
    redisSocket: redis.socketPath,
    // It writes its log to the bench's own stderr.
    lastWords: () => "",
    stop: redis.stop,
  };
}
