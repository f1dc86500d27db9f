/** What must hold of a queue's keys at any time, read without the code under test as far as that goes. */
import type { Redis } from "ioredis";
import { expect } from "vitest";
import { JOB_STATES, type JobState, stateOf } from "../../../src/model/states.ts";
import { type QueuePart, queueKey } from "../../../src/store/keys.ts";
import type { LifeCycle, ModelJob } from "./model.ts";

const SETS = {
  SCHEDULED: "scheduled",
  READY: "ready",
  HELD: "held",
  RESERVED: "reserved",
  RETRYING: "retrying",
  COMPLETED: "completed",
  FAILED: "failed",
} as const satisfies Record<JobState, QueuePart>;
/** Scheduled jobs stand as 13 hex digits of order, then the id; held ones as key, NUL, 14 hex digits, NUL, id. */
const SCHEDULED_MEMBER = /^[0-9a-f]{13}(?<id>.+)$/s;
const ANY_MEMBER = /^(?<id>.+)$/s;
const HELD_MEMBER = /^(?<key>[^\0]+)\0[0-9a-f]{14}\0(?<id>.+)$/s;

/**
 * A record's first byte holds the state and flags (lua/lib/record.lua); its end is the policy, whose parts 6 and 7 are
 * the keys. Before that may stand who has taken the lease over, and the progress, its length before it. A job that has
 * only a spec is fresh: READY, and plain.
 */
const READ_RECORDS = `
  local records, answer = redis.call('HGETALL', KEYS[1]), {}
  for _, id in ipairs(redis.call('HKEYS', KEYS[2])) do
    if redis.call('HEXISTS', KEYS[1], id) == 0 then
      answer[#answer + 1] = { id, 2, 0, '', '', 0, '' }
    end
  end
  for i = 1, #records, 2 do
    local record = records[i + 1]
    local first = string.byte(record)
    local at = first % 128 >= 64 and 55 + string.byte(record, 54) or 40
    local holder, progress = 0, ''
    if first >= 128 then
      holder, at = struct.unpack('>I6', record, at)
    end
    if first % 32 >= 16 then
      progress, at = struct.unpack('>I2', record, at)
      progress, at = string.sub(record, at, at + progress - 1), at + progress
    end
    local policy = string.sub(record, at)
    local keys = policy ~= '' and cmsgpack.unpack(policy) or {}
    local concurrency, unique = keys[6] or {}, keys[7] or {}
    answer[#answer + 1] = {
      records[i], first % 16, first % 64 >= 32 and 1 or 0, concurrency[1] or '', unique[1] or '', holder, progress,
    }
  end
  return answer`;

type Slots = { taken: number; limit: number; unfinished: number; held: number };

type StoredRecord = {
  readonly id: string;
  readonly state: JobState;
  readonly hasSlot: boolean;
  readonly concurrencyKey: string;
  readonly uniqueKey: string;
  readonly holder: number;
  readonly progress: Buffer;
};

/** A queue's keys. */
type Keys = { readonly redis: Redis; readonly of: (part: QueuePart) => string };

/** `model` says what the queue's keys alone don't tell: the limits, who keeps a unique key, and what was counted. */
export async function expectConsistent(
  redis: Redis,
  namespace: string,
  queue: string,
  model: LifeCycle,
): Promise<void> {
  const keys: Keys = { redis, of: (part) => queueKey(namespace, queue, part) };
  const read = (await redis.callBuffer("EVAL", READ_RECORDS, 2, keys.of("state"), keys.of("spec"))) as [
    ...[id: Buffer, state: number, slot: number, concurrencyKey: Buffer, uniqueKey: Buffer],
    ...[holder: number, progress: Buffer],
  ][];
  const records = read.map(([id, number, slot, concurrencyKey, uniqueKey, holder, progress]): StoredRecord => {
    const state = stateOf(number);
    if (!state) throw new Error(`job ${id} is in state ${number}`);
    const [concurrency, unique] = [concurrencyKey.toString(), uniqueKey.toString()];
    return {
      ...{ id: id.toString(), state, hasSlot: slot === 1, holder, progress },
      ...{ concurrencyKey: concurrency, uniqueKey: unique },
    };
  });
  expectReservations(records, model);
  await expectPlaces(keys, records);
  await expectSlots(keys, records, model);
  await expectUniqueKeys(keys, records, model);
  const counters = Object.fromEntries([...model.counters].map(([name, number]) => [name, String(number)]));
  expect(await redis.hgetall(keys.of("stats")), "every event is counted once, on its day").toEqual(counters);
  expect(await redis.llen(keys.of("wake")), "the doorbell holds at most one token").toBeLessThanOrEqual(1);
  expect(await redis.hlen(keys.of("aside")), "no record was set aside").toBe(0);
}

/** What belongs to a reservation is there as long as that, and no longer. */
function expectReservations(records: readonly StoredRecord[], model: LifeCycle): void {
  for (const { id, state, holder, progress } of records) {
    const it = model.jobs.get(id);
    const isReserved = it !== undefined && state === "RESERVED";
    expect(holder, "who has taken the lease over").toBe(isReserved ? it.holder : 0);
    const expected = isReserved && it.progress ? packedProgress(it.progress) : Buffer.alloc(0);
    expect(progress, "what was reported").toEqual(expected);
  }
}

function packedProgress({ percent, reportedAtMs, note }: NonNullable<ModelJob["progress"]>): Buffer {
  const numbers = Buffer.alloc(7);
  numbers.writeUInt8(percent, 0);
  numbers.writeUIntBE(reportedAtMs, 1, 6);
  return Buffer.concat([numbers, Buffer.from(note)]);
}

async function expectPlaces({ redis, of }: Keys, records: readonly StoredRecord[]): Promise<void> {
  const places: string[] = [];
  for (const [state, set] of Object.entries(SETS)) {
    for (const member of await redis.zrange(of(set), "0", "-1")) {
      const pattern = state === "SCHEDULED" ? SCHEDULED_MEMBER : state === "HELD" ? HELD_MEMBER : ANY_MEMBER;
      const groups = pattern.exec(member)?.groups;
      expect(groups, `a member of ${set}: ${member}`).toBeDefined();
      places.push(`${groups?.id} ${state} ${groups?.key ?? ""}`);
    }
  }
  const expected = records.map(
    ({ id, state, concurrencyKey }) => `${id} ${state} ${state === "HELD" ? concurrencyKey : ""}`,
  );
  expect(places.sort(), "every job stands in the set of its state, and nothing else does").toEqual(expected.sort());
  const ids = records.map(({ id }) => id).sort();
  expect((await redis.hkeys(of("spec"))).sort(), "every job has its spec").toEqual(ids);
  const results = await redis.hkeys(of("result"));
  expect(
    results.filter((id) => !ids.includes(id)),
    "no result without its job",
  ).toEqual([]);
}

async function expectSlots({ redis, of }: Keys, records: readonly StoredRecord[], model: LifeCycle): Promise<void> {
  const slots = new Map<string, Slots>();
  for (const { state, hasSlot, concurrencyKey } of records) {
    if (concurrencyKey === "") expect(hasSlot, "only jobs with a key have a slot").toBe(false);
    else if (state === "RESERVED") expect(hasSlot, "a reserved job with a key has a slot").toBe(true);
    else if (state !== "READY") expect(hasSlot, `a job that is ${state} has no slot`).toBe(false);
    if (concurrencyKey === "" || JOB_STATES[state] >= JOB_STATES.COMPLETED) continue;
    const limit = model.limits.get(concurrencyKey) ?? 0;
    const entry = slots.get(concurrencyKey) ?? { taken: 0, limit, unfinished: 0, held: 0 };
    slots.set(concurrencyKey, entry);
    entry.unfinished += 1;
    entry.taken += hasSlot ? 1 : 0;
    entry.held += state === "HELD" ? 1 : 0;
  }
  const counted = await readSlots(redis, of("slots"));
  expect(counted, "slots are counted as the jobs have them").toEqual(Object.fromEntries(slots));
  for (const { held, taken, limit } of slots.values()) {
    expect(held > 0 && taken < limit, "no job is held while a slot is free").toBe(false);
  }
}

async function expectUniqueKeys({ redis, of }: Keys, records: readonly StoredRecord[], model: LifeCycle) {
  const unique = await readUnique(redis, of("unique"));
  expect(unique, "unique keys are kept by whom the model says").toEqual(Object.fromEntries(model.uniqueKeys));
  const expiring = Object.entries(unique).filter(([, { expiresAtMs }]) => expiresAtMs < Number.POSITIVE_INFINITY);
  for (const [name, { id }] of Object.entries(unique)) {
    const isKept = records.some((record) => record.id === id && record.uniqueKey === name);
    expect(isKept || expiring.some(([key]) => key === name), `${name} is kept by a job, or for a time`).toBe(true);
  }
  const scores = expiring.map(([name, { expiresAtMs }]) => [name, String(expiresAtMs)]);
  const expiry = await redis.zrange(of("unique_expiry"), "0", "-1", "WITHSCORES");
  expect(toRecord(expiry), "and expire when they should").toEqual(Object.fromEntries(scores));
}

async function readSlots(redis: Redis, key: string): Promise<Record<string, Slots>> {
  const entries = Object.entries(await redis.hgetallBuffer(key));
  return Object.fromEntries(
    entries.map(([name, bytes]) => {
      const [taken = 0, limit = 0, unfinished = 0, held = 0] = [0, 4, 8, 12].map((at) => bytes.readUInt32BE(at));
      return [name, { taken, limit, unfinished, held }];
    }),
  );
}

async function readUnique(redis: Redis, key: string): Promise<Record<string, { id: string; expiresAtMs: number }>> {
  const entries = Object.entries(await redis.hgetallBuffer(key));
  return Object.fromEntries(
    entries.map(([name, bytes]) => {
      const expiresAtMs = bytes.readUIntBE(0, 6) || Number.POSITIVE_INFINITY;
      return [name, { id: bytes.subarray(6).toString(), expiresAtMs }];
    }),
  );
}

function toRecord(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(pairs.flatMap((name, i) => (i % 2 === 0 ? [[name, pairs[i + 1] ?? ""]] : [])));
}
