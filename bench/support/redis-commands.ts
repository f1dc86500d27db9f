/** The few commands that the benchmark itself gives to Redis. */
import { Redis } from "ioredis";

export type RedisCommands = {
  /** Removes all jobs, so that each round begins with the same Redis. */
  clear(): Promise<void>;
  usedBytes(): Promise<number>;
  close(): void;
};

const COMMAND_WITHIN_MS = 30_000;

export function redisCommands(socketPath: string): RedisCommands {
  const redis = new Redis({ path: socketPath, commandTimeout: COMMAND_WITHIN_MS });
  return {
    async clear() {
      await redis.flushall("SYNC");
    },
    async usedBytes() {
      const used = /^used_memory:(\d+)/m.exec(await redis.info("memory"))?.[1];
      if (used === undefined) throw new Error("Redis does not say how much memory it uses");
      return Number(used);
    },
    close: () => redis.disconnect(),
  };
}
