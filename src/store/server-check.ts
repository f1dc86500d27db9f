/** Is this a Redis that Baton can rely on? What it cannot work with stops the start; what is risky is logged. */
import type { Redis } from "ioredis";
import type { Logger } from "../model/log.ts";

/** Scripts with a shebang, and BYSCORE ranges, came with it. Valkey calls itself Redis 7.2 in this field. */
const LEAST_MAJOR_VERSION = 7;

export async function checkServer(redis: Redis, log: Logger): Promise<void> {
  const info = await redis.info();
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1] ?? "";
  const version = field("redis_version");
  if (Number.parseInt(version, 10) < LEAST_MAJOR_VERSION) {
    throw new Error(`this Redis is ${version}: Baton needs Redis 7.0 or later, or Valkey 8 or later`);
  }
  if (field("cluster_enabled") === "1") {
    throw new Error("this Redis is a node of a cluster, which this version of Baton cannot use: name a single server");
  }
  const evicts = field("maxmemory") !== "0" && field("maxmemory_policy") !== "noeviction";
  if (evicts) {
    log.warn("this Redis may evict keys, and with them jobs: set maxmemory-policy noeviction", {
      policy: field("maxmemory_policy"),
    });
  }
  if (field("aof_enabled") === "0") {
    log.warn("this Redis keeps no append-only file: acknowledged jobs may be lost when it ends");
  }
}
