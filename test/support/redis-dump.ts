/** All that Baton keeps in a Redis, to be compared before and after a call. */
import type { Redis } from "ioredis";

export type Dump = Readonly<Record<string, unknown>>;

/**
 * Which doorbells a broker waits for, and which workers are there, is no business of the data: these keys come and go
 * with the workers.
 */
const VOLATILE = /:broker:[0-9a-f]+:interrupt$|:workers:(names|seen|info)$/;

/** What sweeps note from time to time in a queue's meta, for the rates and for the end of a day. */
const SWEEPS_OWN = new Set(["samples", "stats_day"]);

/**
 * Every key, or those of one queue, with its type and content, as latin1, in which every byte has a character of its own.
 */
export async function dumpRedis(redis: Redis, queue?: string): Promise<Dump> {
  const pattern = queue === undefined ? "*" : `*:{${queue}}:*`;
  const keys = (await redis.keys(pattern)).filter((key) => !VOLATILE.test(key)).sort();
  const entries = await Promise.all(keys.map(async (key) => [key, await contentOf(redis, key)] as const));
  return Object.fromEntries(entries);
}

async function contentOf(redis: Redis, key: string): Promise<unknown> {
  const type = await redis.type(key);
  switch (type) {
    case "hash":
      return { type, fields: pairs(await redis.hgetallBuffer(key)).filter(([field = ""]) => !SWEEPS_OWN.has(field)) };
    case "zset":
      return { type, members: texts((await redis.callBuffer("ZRANGE", key, 0, -1, "WITHSCORES")) as Buffer[]) };
    case "set":
      return { type, members: texts(await redis.smembersBuffer(key)).sort() };
    case "list":
      return { type, items: texts(await redis.lrangeBuffer(key, 0, -1)) };
    default:
      return { type, dump: (await redis.dumpBuffer(key))?.toString("latin1") };
  }
}

function pairs(fields: Readonly<Record<string, Buffer>>): string[][] {
  return Object.entries(fields)
    .map(([field, value]) => [field, value.toString("latin1")])
    .sort(([one = ""], [other = ""]) => (one < other ? -1 : 1));
}

function texts(values: readonly Buffer[]): string[] {
  return values.map((value) => value.toString("latin1"));
}
