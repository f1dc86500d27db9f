/**
 * The composition root: builds the rooms from the settings, starts them in the order in which they need each other,
 * and stops them in the opposite one.
 */
import { randomBytes } from "node:crypto";
import { Broker } from "./broker/broker.ts";
import { HealthWatch } from "./broker/health-watch.ts";
import { DEFAULT_RETRY } from "./model/job.ts";
import type { Logger } from "./model/log.ts";
import type { QueueDefaults } from "./model/queue.ts";
import { jobService } from "./rpc/job-service.ts";
import { queueService } from "./rpc/queue-service.ts";
import { readSchedule } from "./rpc/schedule.ts";
import { scheduleService } from "./rpc/schedule-service.ts";
import type { Settings } from "./settings.ts";
import {
  type ConnectionOptions,
  connectCommands,
  connectDoorbell,
  connectSubscriber,
  disconnect,
  type RedisAddress,
  waitUntilReady,
} from "./store/connection.ts";
import { type EmbeddedRedis, startEmbeddedRedis } from "./store/embedded.ts";
import { checkServer } from "./store/server-check.ts";
import { Store } from "./store/store.ts";
import { startGrpcServer } from "./transport/grpc.ts";

export type BatonServer = {
  /** host:port as bound. */
  readonly grpcAddress: string;
  /** Ends well: no new reservations, workers are told and waited for up to the drain grace, then stop(). */
  drain(): Promise<void>;
  /** Ends at once, in order. Safe to call twice, also during a drain. */
  stop(): Promise<void>;
  /** Resolves when everything has ended. */
  readonly closed: Promise<void>;
};

const CONCURRENT_CALLS_PER_CONNECTION = 10_000;
/** A connection ages before its streams, so that those open the next one elsewhere; both a tenth sooner or later. */
const CONNECTION_AGE = 0.8;
/** After a drain, calls that are still under way get so long. */
const LAST_CALLS_MS = 1_000;

/** What has been started, so that it can be stopped in the opposite order, also when a later start fails. */
class Stack {
  readonly #stops: (() => Promise<void>)[] = [];

  add(stop: () => Promise<void>): void {
    this.#stops.push(stop);
  }

  async stop(): Promise<void> {
    for (let stop = this.#stops.pop(); stop; stop = this.#stops.pop()) await stop();
  }
}

/** `signal` ends a start that is under way, which then rejects. */
export async function startServer(settings: Settings, log: Logger, signal?: AbortSignal): Promise<BatonServer> {
  const started = new Stack();
  try {
    return await start(settings, log, started, signal ?? new AbortController().signal);
  } catch (error) {
    await started.stop();
    throw error;
  }
}

async function start(settings: Settings, log: Logger, started: Stack, signal: AbortSignal): Promise<BatonServer> {
  const { namespace } = settings;
  const connection: ConnectionOptions = {
    address: await redisAddress(settings, log, started, signal),
    timeoutMs: settings.redisTimeoutMs,
    log,
  };
  const commands = connectCommands(connection);
  const subscriber = connectSubscriber(connection);
  started.add(() => disconnect(subscriber));
  started.add(() => disconnect(commands));
  await waitUntilReady([commands, subscriber], settings.redisConnectTimeoutMs, signal);
  await checkServer(commands, log);
  signal.throwIfAborted();

  const queueDefaults = queueDefaultsOf(settings);
  const store = new Store({
    redis: commands,
    timeoutMs: connection.timeoutMs,
    namespace,
    defaultRetentionMs: settings.defaultRetentionMs,
    defaultLeaseMs: settings.defaultLeaseDurationMs,
    defaultRetry: queueDefaults.retry,
    historyMaxEvents: settings.historyMaxEvents,
    deadLetterMax: settings.deadLetterMax,
    deadLetterAgeMs: settings.deadLetterAgeMs,
  });
  const broker = new Broker({
    brokerId: randomBytes(6).toString("hex"),
    namespace,
    store,
    queueDefaults,
    connections: { commands, subscriber, doorbell: () => connectDoorbell(connection) },
    keepaliveIntervalMs: settings.keepaliveIntervalMs,
    maxStreamAgeMs: settings.maxStreamAgeMs,
    fallbackIntervalMs: settings.fallbackIntervalMs,
    sweepIntervalMs: settings.sweepIntervalMs,
    maxSchedules: settings.maxSchedules,
    readSchedule: (definition) => readSchedule(definition, settings),
    log,
  });
  started.add(() => broker.stop());
  await broker.start();

  const grpc = await startGrpcServer({
    address: settings.grpcAddr,
    services: [
      jobService(broker, namespace, settings),
      queueService(broker, namespace),
      scheduleService(broker.schedules, namespace, settings),
    ],
    limits: {
      maxMessageBytes: settings.maxMessageBytes,
      maxStreams: settings.maxStreams,
      maxConcurrentStreamsPerConnection: CONCURRENT_CALLS_PER_CONNECTION,
    },
    keepalive: { intervalMs: settings.keepaliveIntervalMs, timeoutMs: settings.keepaliveTimeoutMs },
    maxConnectionAgeMs: settings.maxStreamAgeMs * CONNECTION_AGE,
    log,
  });
  // Workers' streams end with the broker: so first the broker, then the port.
  let lastCallsMs = 0;
  const health = new HealthWatch({ ping: () => broker.ping(), onChange: grpc.setServing, log });
  started.add(() => grpc.close(lastCallsMs));
  health.start();
  started.add(() => health.stop());

  const { promise: closed, resolve: onClosed } = Promise.withResolvers<void>();
  let stopping: Promise<void> | undefined;
  const stop = () => {
    stopping ??= health
      .stop()
      .then(() => broker.stop())
      .then(() => started.stop())
      .then(onClosed);
    return stopping;
  };
  return {
    grpcAddress: grpc.address,
    async drain() {
      await health.stop();
      grpc.setServing(false);
      await broker.drain(settings.drainGraceMs);
      lastCallsMs = LAST_CALLS_MS;
      await stop();
    },
    stop,
    closed,
  };
}

/** What holds for a queue that does not set it for itself. */
function queueDefaultsOf(settings: Settings): QueueDefaults {
  return {
    leaseMs: settings.defaultLeaseDurationMs,
    retentionMs: settings.defaultRetentionMs,
    retry: {
      ...DEFAULT_RETRY,
      maxAttempts: settings.defaultMaxAttempts,
      initialBackoffMs: settings.defaultInitialBackoffMs,
      maxBackoffMs: settings.defaultMaxBackoffMs,
    },
    deadLetterMax: settings.deadLetterMax,
    deadLetterAgeMs: settings.deadLetterAgeMs,
    historyMaxEvents: settings.historyMaxEvents,
  };
}

/** The private Redis is ended with the broker; one named by a URL is somebody else's. */
async function redisAddress(
  settings: Settings,
  log: Logger,
  started: Stack,
  signal: AbortSignal,
): Promise<RedisAddress> {
  const { redisUrl, dataDir, appendfsync } = settings;
  if (redisUrl !== undefined) {
    const socketPath = /^(?:unix:(?:\/\/)?)?(\/.*)$/.exec(redisUrl)?.[1];
    return socketPath === undefined ? { url: redisUrl } : { socketPath };
  }
  const embedded: EmbeddedRedis = await startEmbeddedRedis({ dataDir, appendfsync, log, install: true, signal });
  started.add(() => embedded.stop());
  return { socketPath: embedded.socketPath };
}
