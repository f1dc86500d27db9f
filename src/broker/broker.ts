/**
 * The broker: what Baton does, without saying over which protocol. It owns the hub, the leases kept for streams, the
 * doorbell and the sweeper, and starts and stops them.
 */
import { draining, storeUnavailable } from "../model/errors.ts";
import type { Lease, LeasedJob } from "../model/job.ts";
import type { Logger } from "../model/log.ts";
import type { Connections } from "../store/connection.ts";
import { Doorbell } from "../store/doorbell.ts";
import { LeaseEnds } from "../store/lease-ends.ts";
import type { Store } from "../store/store.ts";
import { HeldLeases } from "./held-leases.ts";
import { Hub } from "./hub.ts";
import { Jobs } from "./jobs.ts";
import { ReserveCalls, type ReserveOptions } from "./reserve-call.ts";
import { type SubscribeOptions, Subscription } from "./subscription.ts";
import { Sweeper } from "./sweeper.ts";

export type BrokerOptions = {
  readonly brokerId: string;
  readonly namespace: string;
  readonly store: Store;
  readonly connections: Connections;
  readonly keepaliveIntervalMs: number;
  readonly fallbackIntervalMs: number;
  readonly sweepIntervalMs: number;
  readonly log: Logger;
};

type State = { readonly kind: "serving" } | { readonly kind: "draining" } | { readonly kind: "stopped" };

export class Broker {
  readonly jobs: Jobs;
  readonly #options: BrokerOptions;
  readonly #hub: Hub;
  readonly #heldLeases: HeldLeases;
  readonly #leaseEnds: LeaseEnds;
  readonly #doorbell: Doorbell;
  readonly #sweeper: Sweeper;
  readonly #subscriptions = new Set<Subscription>();
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
      ring: (queue) => store.ring(queue),
      onNextDue: (queue, inMs) => this.#sweeper.soon(queue, inMs),
      giveBack: (leases) => this.#giveBack(leases),
      doorbell: this.#doorbell,
      fallbackMs: options.fallbackIntervalMs,
      log,
    });
    this.#reserveCalls = new ReserveCalls(this.#hub);
    this.#sweeper = new Sweeper({
      sweep: (queue) => store.sweep(queue),
      queues: () => store.queues(),
      intervalMs: options.sweepIntervalMs,
      log,
    });
    this.#heldLeases = new HeldLeases({
      extend: (...leases) => store.extend(...leases),
      onNextDue: (queue, inMs) => this.#sweeper.soon(queue, inMs),
      log,
    });
    this.#leaseEnds = new LeaseEnds(
      connections.subscriber,
      namespace,
      log,
      (lease) => this.#heldLeases.onEnd(lease),
      () => this.#heldLeases.renewAll(),
    );
    this.jobs = new Jobs(store, this.#heldLeases);
  }

  start(): void {
    this.#doorbell.start();
    this.#heldLeases.start();
    this.#sweeper.start();
  }

  /** Takes jobs for one caller; see ReserveOptions. Rejects with the signal's reason when the caller has gone. */
  async reserve(options: ReserveOptions, signal: AbortSignal): Promise<readonly LeasedJob[]> {
    if (this.#state.kind !== "serving") throw draining();
    const jobs = await this.#reserveCalls.reserve(options, signal);
    if (signal.aborted && jobs.length > 0) {
      this.#giveBack(jobs);
      signal.throwIfAborted();
    }
    return jobs;
  }

  /** A stream of jobs; whoever takes it must read it to its end, or call its return(). */
  subscribe(options: SubscribeOptions): Subscription {
    if (this.#state.kind !== "serving") throw draining();
    for (const { name } of options.queues) this.#leaseEnds.follow(name);
    const subscription = new Subscription(options, {
      hub: this.#hub,
      heldLeases: this.#heldLeases,
      giveBack: (leases) => this.#giveBack(leases),
      relinquish: (leases, graceMs) => this.#track(this.#heldLeases.relinquish(leases, graceMs)),
      keepaliveMs: this.#options.keepaliveIntervalMs,
      onClose: (closed) => this.#forget(closed),
    });
    this.#subscriptions.add(subscription);
    return subscription;
  }

  /**
   * No more reservations; streams are told, and end as their jobs are released. Resolves when all have ended, or after
   * the grace, when the others are cut. Everything else is served on. Safe to call twice.
   */
  async drain(graceMs: number): Promise<void> {
    if (this.#state.kind !== "serving") return;
    this.#state = { kind: "draining" };
    this.#reserveCalls.cancelAll(draining());
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
    await Promise.all(this.#pending);
  }

  /** Ends loops and connections of its own. Safe to call twice, and without a drain. */
  async stop(): Promise<void> {
    await this.drain(0);
    this.#state = { kind: "stopped" };
    await Promise.all([this.#doorbell.stop(), this.#heldLeases.stop(), this.#sweeper.stop()]);
  }

  #forget(subscription: Subscription): void {
    for (const { name } of subscription.queues) this.#leaseEnds.unfollow(name);
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
