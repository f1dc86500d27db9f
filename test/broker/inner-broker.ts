/** A broker without its ports, for tests of many streams: real Redis, scripts and connections, and what it asked of them. */
import { randomBytes } from "node:crypto";
import { Broker } from "../../src/broker/broker.ts";
import type { SubscribeOptions } from "../../src/broker/subscription.ts";
import { DEFAULT_LEASE_MS, DEFAULT_RETRY, type Lease } from "../../src/model/job.ts";
import {
  type ConnectionOptions,
  connectCommands,
  connectDoorbell,
  connectSubscriber,
  disconnect,
  waitUntilReady,
} from "../../src/store/connection.ts";
import { type Claim, type Extension, type ProgressReport, type Reservation, Store } from "../../src/store/store.ts";
import { collect, type LogLine } from "../support/broker.ts";
import type { TestRedis } from "../support/redis.ts";

const NAMESPACE = "inner";
const DEFAULTS = { retentionMs: 60_000, deadLetterMax: 1_000, deadLetterAgeMs: 600_000 };

export type InnerBroker = {
  readonly broker: Broker;
  readonly store: SpiedStore;
  readonly log: readonly LogLine[];
  stop(): Promise<void>;
};

/** `atMs` by performance.now(). */
export type ExtendCall = { readonly leases: number; readonly isTakeOver: boolean; readonly atMs: number };

/** Writes down what it is asked for. */
export class SpiedStore extends Store {
  /** How many claims each call had. */
  readonly claims: number[] = [];
  readonly extensions: ExtendCall[] = [];
  /** How many reports each call had. */
  readonly reports: number[] = [];

  override reserve(queue: string, caller: string, call: number, claims: readonly Claim[]): Promise<Reservation> {
    this.claims.push(claims.length);
    return super.reserve(queue, caller, call, claims);
  }

  override extend(...args: Parameters<Store["extend"]>): Promise<Extension> {
    const [, leases, , options] = args;
    const isTakeOver = options?.takeOver === true;
    this.extensions.push({ leases: leases.length, isTakeOver, atMs: performance.now() });
    return super.extend(...args);
  }

  override reportProgress(queue: string, reports: readonly ProgressReport[]): Promise<boolean[]> {
    this.reports.push(reports.length);
    return super.reportProgress(queue, reports);
  }
}

export type InnerOptions = {
  readonly redis: TestRedis;
  readonly redisTimeoutMs?: number;
  readonly fallbackIntervalMs?: number;
};

export async function startInnerBroker(options: InnerOptions): Promise<InnerBroker> {
  const lines: LogLine[] = [];
  const log = collect(lines);
  const connection: ConnectionOptions = {
    address: { socketPath: options.redis.socketPath },
    timeoutMs: options.redisTimeoutMs ?? 5_000,
    log,
  };
  const commands = connectCommands(connection);
  const subscriber = connectSubscriber(connection);
  await waitUntilReady([commands, subscriber], 10_000, new AbortController().signal);
  const { retentionMs: defaultRetentionMs, ...deadLetter } = DEFAULTS;
  const store = new SpiedStore({
    redis: commands,
    timeoutMs: connection.timeoutMs,
    namespace: NAMESPACE,
    defaultRetentionMs,
    ...deadLetter,
  });
  const broker = new Broker({
    brokerId: randomBytes(6).toString("hex"),
    namespace: NAMESPACE,
    store,
    queueDefaults: { ...DEFAULTS, leaseMs: DEFAULT_LEASE_MS, retry: DEFAULT_RETRY, historyMaxEvents: 1_000 },
    connections: { commands, subscriber, doorbell: () => connectDoorbell(connection) },
    keepaliveIntervalMs: 60_000,
    maxStreamAgeMs: 0,
    fallbackIntervalMs: options.fallbackIntervalMs ?? 1_000,
    sweepIntervalMs: 500,
    maxSchedules: 1,
    readSchedule: () => {
      throw new Error("there are no schedules here");
    },
    log,
  });
  await broker.start();
  return {
    broker,
    store,
    log: lines,
    async stop() {
      await broker.stop();
      await disconnect(subscriber);
      await disconnect(commands);
    },
  };
}

/** A stream at one queue, of a worker that takes what it may. */
export function streamAt(queue: string, options: Partial<SubscribeOptions> = {}): SubscribeOptions {
  return {
    queues: [{ name: queue, weight: 1 }],
    policy: "strict",
    credit: { maxOutstanding: 5, maxBytes: 0 },
    leaseMs: 30_000,
    workerId: "worker",
    graceMs: 2_000,
    mode: "lease",
    host: "",
    language: "",
    ...options,
  };
}

/** Small jobs of these ids, in pieces that a script takes. */
export async function putAll(store: Store, queue: string, ids: readonly string[]): Promise<void> {
  const jobs = ids.map((id) => ({ id, spec: Buffer.from(id), priority: 0, conflict: "reject" as const }));
  for (let i = 0; i < jobs.length; i += 1_000) await store.put(queue, jobs.slice(i, i + 1_000));
}

export function numbered(count: number, prefix = "job"): string[] {
  return Array.from({ length: count }, (_, i) => `${prefix}-${i}`);
}

export async function completeAll(broker: Broker, leases: readonly Lease[]): Promise<void> {
  const settled = await broker.jobs.release(leases.map((lease) => ({ lease, outcome: { kind: "completed" } })));
  const failed = settled.find((one) => "error" in one);
  if (failed) throw failed.error;
}
