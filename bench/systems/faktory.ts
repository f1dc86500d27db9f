/**
 * Faktory: a server over a Redis that it starts itself, on a socket in its folder.
 *
 * That Redis is set to write snapshots, every 30 s at most, and Faktory has no setting for it. So that it is as safe as
 * those of the others, and does not stop for a snapshot, it is told by its socket to keep a log as theirs do.
 */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Redis } from "ioredis";
import { freeAddress } from "../../test/support/ports.ts";
import { until } from "../../test/support/wait.ts";
import { findProgram, outputOf, startProgram } from "../support/program.ts";
import type { System } from "./system.ts";

const SERVER = "faktory";
const CLIENT = "faktory-client";
/** Faktory writes it, wherever its folder is, and starts its Redis with what stands there. */
const REDIS_CONFIG = "/tmp/redis.conf";
const REDIS_WITHIN_MS = 5_000;

export const faktory: System = {
  name: "faktory",
  kind: "peer",
  operations: new Set(["put", "putMany", "lifeCycle", "drain", "due", "latency"]),

  async start({ durability, folder }) {
    const command = findProgram(SERVER);
    findProgram(CLIENT);
    const version = /^Faktory \S+/m.exec(await outputOf(command, ["-v"]))?.[0] ?? "Faktory";
    const address = await freeAddress();
    const data = join(folder, "db");
    const isConfigOurs = !existsSync(REDIS_CONFIG);
    const server = await startProgram(
      command,
      // Without its dashboard, which would want a second port.
      ["-e", "development", "-b", address, "-w", ":0", "-d", data, "-c", join(folder, "config")],
      { folder, readyWhen: Number(new URL(`tcp://${address}`).port), env: { FAKTORY_PASSWORD: "" } },
    );
    if (isConfigOurs) await rm(REDIS_CONFIG, { force: true });
    const redisSocket = join(data, "redis.sock");
    const appendfsync = durability === "safest" ? "always" : "everysec";
    try {
      const redis = await keepLog(redisSocket, appendfsync);
      return {
        version: `${version}, Redis ${redis.version}`,
        durability: `appendfsync ${appendfsync}, set in its Redis; its own are snapshots (save 30 5)`,
        address,
        pids: { broker: server.pid, redis: redis.pid },
        redisSocket,
        lastWords: server.lastWords,
        stop: server.stop,
      };
    } catch (error) {
      await server.stop();
      throw error;
    }
  },

  client: ({ address }) => ({ command: findProgram(CLIENT), args: [address] }),
};

async function keepLog(socketPath: string, appendfsync: "always" | "everysec") {
  const redis = new Redis({ path: socketPath, commandTimeout: REDIS_WITHIN_MS });
  try {
    await redis.config("SET", "save", "");
    await redis.config("SET", "appendfsync", appendfsync);
    await redis.config("SET", "appendonly", "yes");
    await until(async () => /^aof_rewrite_in_progress:0/m.test(await redis.info("persistence")), {
      what: "Faktory's Redis to have a log",
      withinMs: REDIS_WITHIN_MS,
    });
    const about = await redis.info("server");
    const version = /^redis_version:(\S+)/m.exec(about)?.[1];
    const pid = Number(/^process_id:(\d+)/m.exec(about)?.[1]);
    if (version === undefined || Number.isNaN(pid)) throw new Error("Faktory's Redis does not say what it is");
    return { version, pid };
  } finally {
    redis.disconnect();
  }
}
