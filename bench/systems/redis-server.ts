/** The Redis of the systems that have one: one each, fresh and private, all with the same settings. */
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

export async function startDurableRedis(durability: Durability): Promise<DurableRedis> {
  const appendfsync = durability === "safest" ? "always" : "everysec";
  const version = `Redis ${(await describeMachine()).redis}`;
  return {
    redis: await startRedis({ appendonly: true, appendfsync }),
    version,
    durability: `appendfsync ${appendfsync}`,
  };
}
