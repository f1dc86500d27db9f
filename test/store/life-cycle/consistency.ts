/** What must hold of a queue's keys at any time, read without the code under test as far as that goes. */
import type { Redis } from "ioredis";
import { expect } from "vitest";
import { queueKey } from "../../../src/store/keys.ts";

const SETS = ["scheduled", "ready", "reserved", "retrying", "completed", "failed"] as const;
/** Scheduled jobs stand as 13 hex digits of order, then the id. */
const ORDER_DIGITS = 13;

export async function expectConsistent(redis: Redis, namespace: string, queue: string): Promise<void> {
  const key = (part: Parameters<typeof queueKey>[2]) => queueKey(namespace, queue, part);
  const places = new Map<string, string[]>();
  for (const set of SETS) {
    for (const member of await redis.zrange(key(set), "0", "-1")) {
      const id = set === "scheduled" ? member.slice(ORDER_DIGITS) : member;
      places.set(id, [...(places.get(id) ?? []), set]);
    }
  }
  const states = (await redis.hkeys(key("state"))).sort();
  expect([...places.keys()].sort(), "every job stands in a set, and nothing else does").toEqual(states);
  for (const [id, sets] of places) expect(sets, `job ${id} stands in one set`).toHaveLength(1);
  expect((await redis.hkeys(key("spec"))).sort(), "every job has its spec").toEqual(states);
  const results = await redis.hkeys(key("result"));
  expect(
    results.filter((id) => !states.includes(id)),
    "no result without its job",
  ).toEqual([]);
  expect(await redis.llen(key("wake")), "the doorbell holds at most one token").toBeLessThanOrEqual(1);
}
