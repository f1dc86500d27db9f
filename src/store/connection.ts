/**
 * Connections to Redis. There are three, each for one thing, because a blocking command or a subscription stalls or
 * changes its connection: `commands` (scripts, pipelined), `doorbell` (BLPOP) and `subscriber` (pub/sub).
 */
import { setTimeout as delay } from "node:timers/promises";
import { Redis, type RedisOptions } from "ioredis";
import type { Logger } from "../model/log.ts";
import { limitCommands } from "./command-limit.ts";

/** A redis:// or rediss:// URL, or the path of a unix socket. */
export type RedisAddress = { readonly url: string } | { readonly socketPath: string };

export type ConnectionOptions = {
  readonly address: RedisAddress;
  /** How long a command may take, its connection's loss included. */
  readonly timeoutMs: number;
  readonly log: Logger;
};

/** What a broker needs; `doorbell` makes a new connection each time, since a deaf one is thrown away. */
export type Connections = {
  readonly commands: Redis;
  readonly subscriber: Redis;
  readonly doorbell: () => Redis;
};

/** The wait before the n-th attempt to connect again; Redis restarts within seconds, so waits stay short. */
const RECONNECT_STEP_MS = 50;
const RECONNECT_MAX_MS = 1_000;
/** A server that does not close its end must not keep this process alive. */
const DISCONNECT_MS = 100;

function connect(
  { address, log }: ConnectionOptions,
  name: string,
  options: Omit<RedisOptions, "replyMapping">,
): Redis {
  const common = {
    lazyConnect: true,
    connectionName: `baton-${name}`,
    retryStrategy: (attempt: number) => Math.min(attempt * RECONNECT_STEP_MS, RECONNECT_MAX_MS),
    // A failover leaves us on a replica that refuses writes: look for the master again.
    reconnectOnError: (error: Error) => error.message.startsWith("READONLY"),
    disconnectTimeout: DISCONNECT_MS,
    replyMapping: "legacy",
    ...options,
  } satisfies RedisOptions;
  const redis = "url" in address ? new Redis(address.url, common) : new Redis({ ...common, path: address.socketPath });
  let reported = "";
  // Without a listener ioredis prints to the console. One line for each new kind of trouble, not one per attempt.
  redis.on("error", (error: Error) => {
    if (reported !== error.message) log.warn("redis connection", { connection: name, error: error.message });
    reported = error.message;
  });
  redis.on("ready", () => {
    reported = "";
  });
  return redis;
}

/**
 * For scripts and single commands. What is sent while there is no connection fails at once. ioredis must not send
 * again what was in flight when the connection broke: it would do so also for callers that have long been told that
 * their time was up, and who may have done the opposite since. ScriptRunner does it, within the caller's time.
 */
export function connectCommands(options: ConnectionOptions): Redis {
  const redis = connect(options, "commands", {
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: null,
  });
  limitCommands(redis, options.timeoutMs);
  return redis;
}

/** For BLPOP: nothing is sent again, the doorbell asks anew. */
export function connectDoorbell(options: ConnectionOptions): Redis {
  return connect(options, "doorbell", {
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: null,
  });
}

/** For pub/sub, all of it through Channels, which subscribes again after a reconnect. */
export function connectSubscriber(options: ConnectionOptions): Redis {
  return connect(options, "subscriber", {
    enableOfflineQueue: false,
    autoResubscribe: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: null,
  });
}

/** Connects them; throws with a sentence when that takes longer than the limit, and when the signal aborts. */
export async function waitUntilReady(
  connections: readonly Redis[],
  limitMs: number,
  signal: AbortSignal,
): Promise<void> {
  const timer = new AbortController();
  const tooLate = delay(limitMs, undefined, { signal: AbortSignal.any([timer.signal, signal]) }).then(() => {
    throw new Error(`Redis did not answer within ${limitMs} ms: is it running, and is BATON_REDIS_URL right?`);
  });
  try {
    await Promise.race([Promise.all(connections.map(readiness)), tooLate]);
  } finally {
    timer.abort();
    tooLate.catch(() => undefined);
  }
}

/** connect() itself rejects at the first failure, while the retries that it starts may succeed. */
async function readiness(redis: Redis): Promise<void> {
  const ready = new Promise<void>((resolve) => {
    redis.once("ready", resolve);
  });
  redis.connect().catch(() => undefined);
  await ready;
}

/** Ends a connection, and settles when it has ended. */
export async function disconnect(redis: Redis): Promise<void> {
  // Between two attempts to connect there is nothing that could end, and ioredis says nothing.
  const isConnected = redis.status !== "end" && redis.status !== "reconnecting";
  const ended = isConnected && new Promise((resolve) => redis.once("end", resolve));
  redis.disconnect();
  await ended;
}
