/**
 * A worker's stream: takes jobs from the hub as far as its credit goes, keeps their leases while it lives, and yields
 * what the worker is to be told.
 *
 * Jobs move through it in two steps. `waiting`: handed over by the hub, not yet taken by the transport; while there are
 * any, the hub gives no more, so a worker that does not read is not fed. `outstanding`: taken by the transport, not yet
 * released. When the stream ends, the waiting ones go back as if they had never been reserved, and the outstanding
 * ones after the grace.
 */
import type { Lease, LeasedJob, LeaseEnd } from "../model/job.ts";
import type { Consumer, QueuePolicy, QueueShare } from "./consumer.ts";
import type { HeldLeases, Holder } from "./held-leases.ts";
import type { Hub } from "./hub.ts";

export type SubscriptionEvent =
  | { readonly kind: "started"; readonly workerId: string; readonly leaseMs: number; readonly graceMs: number }
  | { readonly kind: "jobs"; readonly jobs: readonly LeasedJob[] }
  | { readonly kind: "revoked"; readonly lease: Lease; readonly reason: Exclude<LeaseEnd, "RELEASED"> }
  | { readonly kind: "keepalive" }
  | { readonly kind: "draining"; readonly graceMs: number };

export type SubscribeOptions = {
  readonly queues: readonly QueueShare[];
  readonly policy: QueuePolicy;
  readonly maxOutstanding: number;
  readonly leaseMs: number;
  readonly workerId: string;
  readonly graceMs: number;
};

export type SubscriptionContext = {
  readonly hub: Hub;
  readonly heldLeases: HeldLeases;
  /** For jobs that the worker has not seen. */
  readonly giveBack: (leases: readonly Lease[]) => void;
  /** For jobs that it has: their leases run out after the grace. */
  readonly relinquish: (leases: readonly Lease[], graceMs: number) => void;
  readonly keepaliveMs: number;
  readonly onClose: (subscription: Subscription) => void;
};

/** Jobs in one message: 2.5 ms of Redis, and the next ones are fetched while these are on their way. */
const BATCH = 250;

type State =
  | { readonly kind: "open" }
  /** No new jobs; ends when the outstanding ones are released. */
  | { readonly kind: "draining" }
  | { readonly kind: "closed" };

export class Subscription implements Consumer, Holder, AsyncIterableIterator<SubscriptionEvent> {
  readonly queues: readonly QueueShare[];
  readonly policy: QueuePolicy;
  readonly workerId: string;
  readonly leaseMs: number;
  readonly #options: SubscribeOptions;
  readonly #context: SubscriptionContext;
  /** Events that are not yet taken: jobs within the credit, at most one revocation for each, one of each other kind. */
  readonly #events: SubscriptionEvent[] = [];
  /** The very objects that HeldLeases was given. */
  readonly #outstanding = new Set<Lease>();
  #waitingJobs = 0;
  #state: State = { kind: "open" };
  #wakeReader: (() => void) | undefined;
  #keepalive: NodeJS.Timeout;

  constructor(options: SubscribeOptions, context: SubscriptionContext) {
    this.#options = options;
    this.#context = context;
    this.queues = options.queues;
    this.policy = options.policy;
    this.workerId = options.workerId;
    this.leaseMs = options.leaseMs;
    this.#events.push({ kind: "started", workerId: this.workerId, leaseMs: this.leaseMs, graceMs: options.graceMs });
    this.#keepalive = setInterval(() => this.#sayAlive(), context.keepaliveMs);
    context.hub.join(this);
  }

  capacity(): number {
    if (this.#state.kind !== "open" || this.#waitingJobs > 0) return 0;
    return Math.min(this.#options.maxOutstanding - this.#outstanding.size, BATCH);
  }

  deliver(jobs: readonly LeasedJob[]): void {
    this.#waitingJobs += jobs.length;
    for (const job of jobs) {
      this.#outstanding.add(job);
      this.#context.heldLeases.hold(job, this.leaseMs, this);
    }
    this.#push({ kind: "jobs", jobs });
  }

  missed(): void {}

  failed(): void {}

  onLeaseEnd(lease: Lease, reason: LeaseEnd): void {
    if (!this.#outstanding.delete(lease)) return;
    if (reason !== "RELEASED") this.#push({ kind: "revoked", lease, reason });
    if (this.capacity() > 0) this.#context.hub.wake(this);
    if (this.#state.kind === "draining" && this.#outstanding.size === 0) this.#wakeReader?.();
  }

  /** Tells the worker; hands out nothing more, and ends when everything is released. */
  drain(graceMs: number): void {
    if (this.#state.kind !== "open") return;
    this.#setState({ kind: "draining" });
    this.#context.hub.leave(this);
    this.#takeBackWaiting();
    this.#push({ kind: "draining", graceMs });
  }

  /** Ends the stream, from whichever side. */
  close(): void {
    if (this.#state.kind === "closed") return;
    this.#setState({ kind: "closed" });
    clearInterval(this.#keepalive);
    this.#context.hub.leave(this);
    this.#takeBackWaiting();
    const leases = [...this.#outstanding];
    this.#outstanding.clear();
    if (leases.length > 0) this.#context.relinquish(leases, this.#options.graceMs);
    this.#wakeReader?.();
    this.#context.onClose(this);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<SubscriptionEvent>> {
    while (this.#events.length === 0) {
      if (this.#state.kind === "closed") return { done: true, value: undefined };
      if (this.#state.kind === "draining" && this.#outstanding.size === 0) {
        this.close();
        continue;
      }
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
      this.#wakeReader = undefined;
    }
    const event = this.#events.shift() as SubscriptionEvent;
    if (event.kind === "jobs") {
      this.#waitingJobs -= event.jobs.length;
      if (this.capacity() > 0) this.#context.hub.wake(this);
    }
    return { done: false, value: event };
  }

  async return(): Promise<IteratorResult<SubscriptionEvent>> {
    this.close();
    return { done: true, value: undefined };
  }

  #setState(state: State): void {
    this.#state = state;
  }

  #push(event: SubscriptionEvent): void {
    this.#events.push(event);
    this.#wakeReader?.();
  }

  #sayAlive(): void {
    if (this.#events.length === 0) this.#push({ kind: "keepalive" });
  }

  /** What the worker has not seen goes back as if it had never been reserved. */
  #takeBackWaiting(): void {
    const unseen = this.#events.flatMap((event) => (event.kind === "jobs" ? event.jobs : []));
    const others = this.#events.filter(({ kind }) => kind !== "jobs" && this.#state.kind === "draining");
    this.#events.length = 0;
    this.#events.push(...others);
    this.#waitingJobs = 0;
    const lost = unseen.filter((job) => this.#outstanding.delete(job));
    this.#context.heldLeases.forget(lost);
    if (lost.length > 0) this.#context.giveBack(lost);
  }
}
