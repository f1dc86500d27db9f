/**
 * This checkout's broker, with a Redis of its own. It keeps no finished jobs, because none of its peers does as it is
 * driven here; by default it would for five minutes.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { startServerProcess } from "../support/node-process.ts";
import { BATONS_OWN, startDurableRedis } from "./redis-server.ts";
import type { Server, StartOptions, System } from "./system.ts";
import { typescriptClient } from "./typescript-client.ts";

export const baton: System = {
  name: "baton",
  kind: "baton",
  operations: new Set(["put", "putMany", "lifeCycle", "drain", "due", "retry", "latency"]),
  start,
  client: typescriptClient("baton"),
};

async function start({ durability: wanted, profileFolder }: StartOptions): Promise<Server> {
  const { redis, version, durability } = await startDurableRedis(wanted, BATONS_OWN);
  try {
    const broker = await startServerProcess({
      script: join("src", "cli", "baton.js"),
      args: ["serve", "--grpc-addr", "127.0.0.1:0", "--redis-url", redis.url, "--default-retention", "0s"],
      profileFolder,
    });
    return {
      version: `Baton ${await ownVersion()}, ${version}`,
      durability,
      address: broker.address,
      pids: { broker: broker.pid, redis: redis.pid },
      redisSocket: redis.socketPath,
      lastWords: broker.lastWords,
      async stop() {
        await broker.stop();
        await redis.stop();
      },
    };
  } catch (error) {
    await redis.stop();
    throw error;
  }
}

async function ownVersion(): Promise<string> {
  const { version } = JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8"));
  return String(version);
}
