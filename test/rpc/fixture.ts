/** What the tests of this room start from: a broker on a private Redis, a raw client, and a look into Redis itself. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, type DurationSchema, durationMs, type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { Redis } from "ioredis";
import { expect } from "vitest";
import type { Settings } from "../../src/settings.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { type Dump, dumpRedis } from "../support/redis-dump.ts";
import { until } from "../support/wait.ts";
import { type CallError, RawClient } from "./raw-client.ts";

export type Fixture = {
  readonly broker: TestBroker;
  readonly client: RawClient;
  readonly redis: Redis;
  /** Of one queue, or of everything. */
  dump(queue?: string): Promise<Dump>;
  /** Redis's own clock. */
  nowMs(): Promise<number>;
  stop(): Promise<void>;
};

export async function startFixture(settings: Partial<Settings> = {}): Promise<Fixture> {
  const broker = await startBroker(settings);
  const redis = new Redis(broker.redis.socketPath);
  const client = new RawClient(broker.address);
  return {
    broker,
    client,
    redis,
    dump: (queue) => dumpRedis(redis, queue),
    async nowMs() {
      const [seconds, micros] = await redis.time();
      return Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000);
    },
    async stop() {
      client.close();
      redis.disconnect();
      await broker.stop();
    },
  };
}

/** One job in every state, none of which changes by itself while the test runs. */
export async function putOneInEveryState(client: RawClient, queue: string): Promise<Tokens> {
  const take = async (id: string) => {
    await client.good("put", { queue, id, retention: hours(1), priority: 9 });
    return (await client.reserveOne(queue, { leaseDuration: hours(1) })).leaseToken;
  };
  const completed = await take("completed");
  await client.good("release", { leaseToken: completed, outcome: { case: "completed", value: {} } });
  const failed = await take("failed");
  await client.good("release", { leaseToken: failed, outcome: { case: "failed", value: { permanent: true } } });
  const retrying = await take("retrying");
  await client.good("release", {
    leaseToken: retrying,
    outcome: { case: "failed", value: { message: "not yet", type: "Later", retryAfter: hours(1) } },
  });
  const reserved = await take("reserved");
  await client.good("put", { queue, id: "scheduled", start: { case: "delay", value: hours(1) } });
  await client.good("put", { queue, id: "ready" });
  return { completed, failed, retrying, reserved };
}

export type Tokens = Readonly<Record<"completed" | "failed" | "retrying" | "reserved", string>>;

export type DurationInit = MessageInitShape<typeof DurationSchema>;

export function ms(count: number): DurationInit {
  const seconds = Math.floor(count / 1_000);
  return { seconds: BigInt(seconds), nanos: (count - seconds * 1_000) * 1_000_000 };
}

export const hours = (count: number) => ms(count * 3_600_000);
export const days = (count: number) => ms(count * 86_400_000);

/** A timestamp's ms; fails the test when it is not set. */
export function at(time: Timestamp | undefined): number {
  if (!time) throw new Error("this time is not set");
  return timestampMs(time);
}

export function inMs(duration: Duration | undefined): number {
  if (!duration) throw new Error("this duration is not set");
  return durationMs(duration);
}

/** Until the job is in this state, which Get sees the moment it is. */
export function untilState(client: RawClient, queue: string, id: string, state: number): Promise<unknown> {
  return until(async () => (await client.good("get", { queue, id })).job?.state === state, {
    what: `job ${id} of queue ${queue} to be in state ${state}`,
  });
}

/** INVALID_ARGUMENT that names these fields and no others. */
export function expectBadRequest(error: CallError, ...fields: readonly string[]): void {
  expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "BAD_REQUEST", domain: "baton" });
  expect(error.violations.map(({ field }) => field)).toEqual(fields);
  for (const { field, description } of error.violations) {
    expect(description).not.toBe("");
    expect(error.message).toContain(`${field} ${description}`.slice(0, 60));
  }
}

/** That the lease is over, and nothing was done. */
export function expectLeaseLost(error: CallError, queue: string, id: string): void {
  expect(error).toMatchObject({
    code: "FAILED_PRECONDITION",
    reason: "LEASE_LOST",
    domain: "baton",
    metadata: { queue, id },
    violations: [],
    retryAfterMs: undefined,
  });
}
