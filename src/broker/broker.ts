/**
 * The broker: what Baton does, without saying over which protocol. It owns the hub, the leases kept for streams, the
 * doorbell and the sweeper, and starts and stops them.
 */
import { draining, storeUnavailable } from "../model/errors.ts";
import type { Lease, LeasedJob } from "../model/job.ts";
import type { Logger } from "../model/log.ts";
import type { QueueDefaults } from "../model/queue.ts";
import type { ReadDefinition } from "../model/schedule.ts";
import { Channels } from "../store/channels.ts";
import type { Connections } from "../store/connection.ts";
import { Doorbell } from "../store/doorbell.ts";
import { LeaseEnds } from "../store/lease-ends.ts";
import type { Store, Sweep } from "../store/store.ts";
import { WorkerStore } from "../store/worker-store.ts";
import { type AwaitOptions, Awaits, type Finished } from "./awaits.ts";
import type { Consumer } from "./consumer.ts";
import { HeldLeases, type TakenOver } from "./held-leases.ts";
import { Hub } from "./hub.ts";
import { Jobs } from "./jobs.ts";
import { type Pulled, pull } from "./pull.ts";
import { Queues } from "./queues.ts";
import { ReserveCalls, type ReserveOptions } from "./reserve-call.ts";
import { Schedules } from "./schedules.ts";
import { streamAge } from "./stream-age.ts";
import { type SubscribeOptions, Subscription } from "./subscription.ts";
import { Sweeper } from "./sweeper.ts";
import { Ticks } from "./ticks.ts";
import type { WatchOptions, WatchStream } from "./watch-stream.ts";
import { Watches } from "./watches.ts";
import { Work, type WorkAnswer } from "./work.ts";
import { type Caller, Workers } from "./workers.ts";

export type BrokerOptions = {
  readonly brokerId: string;
  readonly namespace: string;
  readonly store: Store;
  readonly queueDefaults: QueueDefaults;
  readonly connections: Connections;
  readonly keepaliveIntervalMs: number;
  /** 0: streams do not age. */
  readonly maxStreamAgeMs: number;
  readonly fallbackIntervalMs: number;
  readonly sweepIntervalMs: number;
  /** In one queue. */
  readonly maxSchedules: number;
  /** Schedules are stored as the room before this one writes them. */
  readonly readSchedule: ReadDefinition;
  readonly log: Logger;
};

/** Of Subscribe or Work. */
type OpenStream = Consumer & Pick<Subscription, "drain" | "close">;

type State = { readonly kind: "serving" } | { readonly kind: "draining" } | { readonly kind: "stopped" };

export class Broker {
  readonly jobs: Jobs;
  readonly queues: Queues;
  readonly schedules: Schedules;
  readonly workers: Workers;
  readonly #options: BrokerOptions;
  readonly #hub: Hub;
  readonly #heldLeases: HeldLeases;
  readonly #channels: Channels;
  readonly #leaseEnds: LeaseEnds;
  readonly #awaits: Awaits;
  readonly #watches: Watches;
  readonly #doorbell: Doorbell;
  readonly #sweeper: Sweeper;
  readonly #ticks: Ticks;
  readonly #subscriptions = new Set<OpenStream>();
  /** What must reach Redis before the connections end. */
  readonly #pending = new Set<Promise<void>>();
  readonly #reserveCalls: ReserveCalls;
  #state: State = { kind: "serving" };
  #onIdle: (() => void) | undefined;

  constructor(options: BrokerOptions) {
    const { store, namespace, brokerId, connections, log } = options;
    this.#options = options;
    this.#doorbell = new Doorbell({
      namespace,
      brokerId,
      connect: connections.doorbell,
      commands: connections.commands,
      log,
      onRing: (queue) => this.#hub.onRing(queue),
    });
    this.#hub = new Hub({
      brokerId,
      reserve: (...call) => store.reserve(...call),
      put: (queue, jobs) => store.put(queue, jobs),
      handOver: (...call) => store.handOver(...call),
      brokers: () => this.workers.brokers,
      ring: (queue) => store.ring(queue),
      onNextDue: (queue, inMs) => this.#sweeper.soon(queue, inMs),
      giveBack: (leases) => this.#giveBack(leases),
      doorbell: this.#doorbell,
      fallbackMs: options.fallbackIntervalMs,
      log,
    });
    this.#reserveCalls = new ReserveCalls(this.#hub, (workerId) => this.workers.isQuiet(workerId));
    this.#sweeper = new Sweeper({
      sweep: (queue) => this.#sweep(queue),
      queues: () => store.queues.names(),
      intervalMs: options.sweepIntervalMs,
      log,
    });
    this.#heldLeases = new HeldLeases({
      extend: (...leases) => store.extend(...leases),
      onNextDue: (queue, inMs) => this.#sweeper.soon(queue, inMs),
      log,
    });
    this.#channels = new Channels({ redis: connections.subscriber, log });
    this.#channels.onGap(() => this.#heldLeases.renewAll());
    this.#leaseEnds = new LeaseEnds(this.#channels, namespace, (lease) => this.#heldLeases.onEnd(lease));
    this.#awaits = new Awaits({ store, channels: this.#channels, namespace, log });
    const { keepaliveIntervalMs: keepaliveMs } = options;
    const ageMs = () => streamAge(options.maxStreamAgeMs);
    this.#watches = new Watches({ store, channels: this.#channels, namespace, keepaliveMs, ageMs, log });
    this.workers = new Workers({
      brokerId,
      store: new WorkerStore(connections.commands, this.#channels, namespace),
      now: () => store.now(),
      onQuiet: (workerId, isQuiet) => this.#onQuiet(workerId, isQuiet),
      log,
    });
    this.jobs = new Jobs(store, this.#hub, this.#heldLeases, (queue, inMs) => this.#sweeper.soon(queue, inMs));
    this.queues = new Queues(store, options.queueDefaults);
    this.#ticks = new Ticks({ store: store.schedules, read: options.readSchedule, log });
    this.schedules = new Schedules({
      store,
      read: options.readSchedule,
      maxSchedules: options.maxSchedules,
      onNextDue: (queue, inMs) => this.#sweeper.soon(queue, inMs),
    });
  }

  /** Rejects when Redis does not answer. */
  async start(): Promise<void> {
    this.#channels.start();
    await this.workers.start();
    this.#doorbell.start();
    this.#heldLeases.start();
    this.#sweeper.start();
    this.#awaits.start();
    this.#watches.start();
  }

  /** Takes jobs for one caller; see ReserveOptions. Rejects with the signal's reason when the caller has gone. */
  async reserve(
    options: ReserveOptions,
    caller: Caller & { readonly signal: AbortSignal },
  ): Promise<readonly LeasedJob[]> {
    if (this.#state.kind !== "serving") throw draining();
    const answered = this.workers.reserving(options.workerId, options.queues, caller);
    try {
      return await this.#reserve(options, caller.signal);
    } finally {
      answered();
    }
  }

  async #reserve(options: ReserveOptions, signal: AbortSignal): Promise<readonly LeasedJob[]> {
    const endsAt = performance.now() + options.waitMs;
    for (let { waitMs } = options; ; waitMs = Math.ceil(endsAt - performance.now())) {
      const delivery = await this.#reserveCalls.reserve({ ...options, waitMs: Math.max(0, waitMs) }, signal);
      if (signal.aborted && delivery.jobs.length > 0) {
        this.#giveBack(delivery.jobs);
        signal.throwIfAborted();
      }
      if (!delivery.pull || delivery.jobs.length === 0) return delivery.jobs;
      const { jobs, error } = await this.#pull(delivery.jobs);
      if (jobs.length > 0) return jobs;
      if (error !== undefined) throw error;
      // All were deleted in between: the call goes on as if they had never been.
      if (this.#state.kind !== "serving") throw draining();
    }
  }

  /** Takes over leases that a worker brings along from another stream, for one that is about to begin. */
  resume(leases: readonly Lease[], leaseMs: number): Promise<TakenOver> {
    if (this.#state.kind !== "serving") throw draining();
    return this.#heldLeases.takeOver(leases, leaseMs);
  }

  /** A stream of jobs; whoever takes it must read it to its end, or close it. */
  subscribe(options: SubscribeOptions): Subscription {
    return this.#open<never>(options);
  }

  /** A stream of jobs on which the worker speaks as well; likewise. */
  work(options: SubscribeOptions): Work {
    return new Work(this.#open<WorkAnswer>(options), this.jobs);
  }

  #open<Answer extends WorkAnswer>(options: SubscribeOptions): Subscription<Answer> {
    if (this.#state.kind !== "serving") {
      if (options.resumed) this.#track(this.#heldLeases.abandon(options.resumed, options.graceMs));
      throw draining();
    }
    const followed = new Set(options.queues.map(({ name }) => name));
    for (const { queue } of options.resumed?.kept ?? []) followed.add(queue);
    for (const name of followed) this.#leaseEnds.follow(name);
    const subscription: Subscription<Answer> = new Subscription<Answer>(options, {
      hub: this.#hub,
      heldLeases: this.#heldLeases,
      giveBack: (leases) => this.#giveBack(leases),
      relinquish: (leases, graceMs) => {
        // What the worker said last must not outlive it.
        this.jobs.flushExtensions();
        this.#track(this.#heldLeases.relinquish(leases, graceMs));
      },
      pull: async (jobs) => (await this.#pull(jobs)).jobs,
      isQuiet: (workerId) => this.workers.isQuiet(workerId),
      keepaliveMs: this.#options.keepaliveIntervalMs,
      ageMs: streamAge(this.#options.maxStreamAgeMs),
      onQuiet: () => entry.changed(),
      onClose: () => {
        entry.closed();
        for (const name of followed) this.#leaseEnds.unfollow(name);
        this.#forget(subscription);
      },
    });
    const entry = this.workers.opened(subscription);
    this.#subscriptions.add(subscription);
    return subscription;
  }

  /** Until the job has finished; rejects as Awaits.await does. */
  async await(options: AwaitOptions, signal: AbortSignal): Promise<Finished> {
    if (this.#state.kind !== "serving") throw draining();
    return await this.#awaits.await(options, signal);
  }

  /** A stream of what happens; whoever takes it must read it to its end, or call its return(). */
  watch(options: WatchOptions): WatchStream {
    if (this.#state.kind !== "serving") throw draining();
    return this.#watches.open(options);
  }

  /**
   * No more reservations; streams are told, and end as their jobs are released. Resolves when all have ended, or after
   * the grace, when the others are cut. Everything else is served on. Safe to call twice.
   */
  async drain(graceMs: number): Promise<void> {
    if (this.#state.kind !== "serving") return;
    this.#state = { kind: "draining" };
    this.#reserveCalls.cancelAll(draining());
    this.#awaits.cancelAll(draining());
    const watched = this.#watches.drain(graceMs);
    await this.#hub.stop();
    for (const subscription of this.#subscriptions) subscription.drain(graceMs);
    if (this.#subscriptions.size > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, graceMs);
      this.#onIdle = resolve;
      await promise;
      clearTimeout(timer);
    }
    for (const subscription of this.#subscriptions) subscription.close();
    await Promise.all([watched, ...this.#pending]);
  }

  /** Ends loops and connections of its own. Safe to call twice, and without a drain. */
  async stop(): Promise<void> {
    await this.drain(0);
    this.#state = { kind: "stopped" };
    this.#channels.stop();
    await this.jobs.stop();
    const parts = [this.#doorbell, this.#heldLeases, this.#sweeper, this.#awaits, this.#watches, this.workers];
    await Promise.all(parts.map((part) => part.stop()));
  }

  async #sweep(queue: string): Promise<Sweep> {
    const swept = await this.#options.store.sweep(queue);
    for (const id of swept.setAside) {
      this.#options.log.error("a record that cannot be read was set aside", { queue, id });
    }
    if (swept.due.length > 0) await this.#ticks.run(swept.due, swept.nowMs);
    return swept;
  }

  #onQuiet(workerId: string, isQuiet: boolean): void {
    this.#reserveCalls.onQuiet(workerId, isQuiet);
    if (isQuiet) return;
    for (const subscription of this.#subscriptions) {
      if (subscription.workerId === workerId) this.#hub.wake(subscription);
    }
  }

  #pull(jobs: readonly LeasedJob[]): Promise<Pulled> {
    const pulled = pull(jobs, (releases) => this.jobs.release(releases), this.#options.log);
    this.#track(pulled.then(() => undefined));
    return pulled;
  }

  #forget(subscription: OpenStream): void {
    this.#subscriptions.delete(subscription);
    if (this.#subscriptions.size === 0) this.#onIdle?.();
  }

  /** A failure costs a lease's duration, and an attempt. */
  #giveBack(leases: readonly Lease[]): void {
    const releases = leases.map((lease) => ({ lease, outcome: { kind: "undelivered" } as const }));
    this.#track(
      this.jobs.release(releases).then((settled) => {
        const failed = settled.filter((one) => "error" in one).length;
        if (failed > 0) this.#options.log.warn("jobs not given back: their leases will run out", { jobs: failed });
      }),
    );
  }

  #track(work: Promise<void>): void {
    const done = work.finally(() => this.#pending.delete(done));
    this.#pending.add(done);
  }

  /** Throws when Redis is away. */
  async ping(): Promise<void> {
    if (this.#options.connections.commands.status !== "ready") throw storeUnavailable();
    await this.#options.store.ping();
  }
}
