/** The Redis of the systems that have one: one each, fresh and private, all as durable. */
import { startRedis, type TestRedis } from "../../test/support/redis.ts";
import { describeMachine } from "../support/machine.ts";
import type { Durability } from "./system.ts";

export type DurableRedis = {
  readonly redis: TestRedis;
  /** "Redis 7.0.15" */
  readonly version: string;
  /** The setting, in Redis's words. */
  readonly durability: string;
};

/** As Baton sets its private Redis: src/store/embedded-server.ts. */
export const BATONS_OWN = ["hash-max-listpack-entries 64"];

/** `config`: lines of redis.conf that a system wants of its Redis. */
export async function startDurableRedis(durability: Durability, config: readonly string[] = []): Promise<DurableRedis> {
  const appendfsync = durability === "safest" ? "always" : "everysec";
  const version = `Redis ${(await describeMachine()).redis}`;
  return {
    redis: await startRedis({ appendonly: true, appendfsync, config }),
    version,
    durability: `appendfsync ${appendfsync}`,
  };
}
