/** The few commands that the benchmark itself gives to Redis. */
import { Redis } from "ioredis";
import { until } from "../../test/support/wait.ts";

export type RedisCommands = {
  /** Removes all jobs, so that each round begins with the same Redis. */
  clear(): Promise<void>;
  /** Of what it holds. */
  usedBytes(): Promise<number>;
  /** Until it does not rewrite its log any more, which it begins when the log has grown, and for which it takes a core. */
  settled(): Promise<void>;
  /** How many clients Redis has; this one is among them. */
  connections(): Promise<number>;
  /** From now on, each run of this script, by its SHA-1, is noted. */
  noteRuns(sha: string): Promise<NotedRuns>;
  close(): void;
};

export type NotedRuns = { end(): Promise<readonly NotedRun[]> };

/** When it began, in whole seconds, and how long Redis was busy with it. */
export type NotedRun = { readonly atSeconds: number; readonly microseconds: number };

const COMMAND_WITHIN_MS = 30_000;
/** A million jobs take some seconds. */
const SETTLED_WITHIN_MS = 120_000;
/** More runs of any script than come in one measurement. */
const MOST_NOTED = 100_000;

export function redisCommands(socketPath: string): RedisCommands {
  const redis = new Redis({ path: socketPath, commandTimeout: COMMAND_WITHIN_MS });
  return {
    async clear() {
      await redis.flushall("SYNC");
    },
    async usedBytes() {
      const memory = await redis.info("memory");
      const bytes = (name: string) => {
        const value = new RegExp(`^${name}:(\\d+)`, "m").exec(memory)?.[1];
        if (value === undefined) throw new Error(`Redis does not say its ${name}`);
        return Number(value);
      };
      // What is on its way, from clients and to the disk, does not stay.
      return bytes("used_memory") - bytes("mem_clients_normal") - bytes("mem_aof_buffer");
    },
    async settled() {
      const isBusy = async () => /^aof_rewrite_(in_progress|scheduled):1/m.test(await redis.info("persistence"));
      await until(async () => !(await isBusy()), {
        what: "Redis to have rewritten its log",
        withinMs: SETTLED_WITHIN_MS,
      });
    },
    async connections() {
      const list = String(await redis.client("LIST"));
      return list.trim().split("\n").length;
    },
    async noteRuns(sha) {
      // Everything counts as slow, so that the slow log has it all.
      await redis.config("SET", "slowlog-max-len", MOST_NOTED);
      await redis.config("SET", "slowlog-log-slower-than", 0);
      await redis.slowlog("RESET");
      return {
        async end() {
          const entries = (await redis.slowlog("GET", MOST_NOTED)) as readonly [number, number, number, string[]][];
          await redis.config("SET", "slowlog-log-slower-than", 10_000);
          await redis.slowlog("RESET");
          const runs = entries.filter(([, , , args]) => args[1] === sha);
          return runs.map(([, atSeconds, microseconds]) => ({ atSeconds, microseconds })).reverse();
        },
      };
    },
    close: () => redis.disconnect(),
  };
}
