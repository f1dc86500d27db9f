/**
 * A worker's stream: takes jobs from the hub as far as its credit goes, keeps their leases while it lives, and yields
 * what the worker is to be told.
 *
 * Jobs move through it in two steps. `waiting`: handed over by the hub, not yet taken by the transport; while there are
 * any, the hub gives no more, so a worker that does not read is not fed. `outstanding`: taken by the transport, not yet
 * released. When the stream ends, the waiting ones go back as if they had never been reserved, and the outstanding
 * ones after the grace.
 *
 * Jobs that are pulled wait likewise, and are forgotten the moment that the transport takes them: until then they can
 * still go back.
 */
import type { Lease, LeasedJob, LeaseEnd } from "../model/job.ts";
import type { Consumer, DeliveryMode, QueuePolicy, QueueShare } from "./consumer.ts";
import type { HeldLeases, Holder, TakenOver } from "./held-leases.ts";
import type { Hub } from "./hub.ts";

export type SubscriptionEvent =
  | { readonly kind: "started"; readonly workerId: string; readonly leaseMs: number; readonly graceMs: number }
  | { readonly kind: "jobs"; readonly jobs: readonly LeasedJob[] }
  | { readonly kind: "revoked"; readonly lease: Lease; readonly reason: Exclude<LeaseEnd, "RELEASED" | "RESUMED"> }
  | { readonly kind: "keepalive" }
  | { readonly kind: "draining"; readonly graceMs: number };

/** What waits to be taken: events as the worker sees them, and jobs that are pulled as it takes them. */
type Waiting = SubscriptionEvent | { readonly kind: "pull"; readonly jobs: readonly LeasedJob[] };

export type SubscribeOptions = {
  readonly queues: readonly QueueShare[];
  readonly policy: QueuePolicy;
  readonly maxOutstanding: number;
  readonly leaseMs: number;
  readonly workerId: string;
  readonly graceMs: number;
  readonly mode: DeliveryMode;
  readonly host: string;
  readonly language: string;
  /** The leases that the worker brought along. */
  readonly resumed?: TakenOver | undefined;
};

export type SubscriptionContext = {
  readonly hub: Hub;
  readonly heldLeases: HeldLeases;
  /** For jobs that the worker has not seen. */
  readonly giveBack: (leases: readonly Lease[]) => void;
  /** For jobs that it has: their leases run out after the grace. */
  readonly relinquish: (leases: readonly Lease[], graceMs: number) => void;
  /** Forgets jobs; those for which that worked are the worker's. */
  readonly pull: (jobs: readonly LeasedJob[]) => Promise<readonly LeasedJob[]>;
  readonly isQuiet: (workerId: string) => boolean;
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
  readonly asksItself = false;
  readonly host: string;
  readonly language: string;
  readonly #options: SubscribeOptions;
  readonly #context: SubscriptionContext;
  /** Events that are not yet taken: jobs within the credit, at most one revocation for each, one of each other kind. */
  readonly #events: Waiting[] = [];
  /** Without those that are pulled. The very objects that HeldLeases was given. */
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
    this.host = options.host;
    this.language = options.language;
    this.#events.push({ kind: "started", workerId: this.workerId, leaseMs: this.leaseMs, graceMs: options.graceMs });
    this.#keepalive = setInterval(() => this.#sayAlive(), context.keepaliveMs);
    if (options.resumed) this.#resume(options.resumed);
    context.hub.join(this);
  }

  /** Jobs that the worker has and has not released. */
  get jobsInHand(): number {
    return this.#outstanding.size;
  }

  capacity(): number {
    if (this.#state.kind !== "open" || this.#waitingJobs > 0 || this.#context.isQuiet(this.workerId)) return 0;
    const { mode, maxOutstanding } = this.#options;
    return Math.min(mode === "pull" ? maxOutstanding : maxOutstanding - this.#outstanding.size, BATCH);
  }

  deliver(jobs: readonly LeasedJob[], pull: boolean): void {
    this.#waitingJobs += jobs.length;
    const isPulled = pull || this.#options.mode === "pull";
    for (const job of jobs) {
      if (!isPulled) this.#outstanding.add(job);
      this.#context.heldLeases.hold(job, this.leaseMs, this);
    }
    this.#push({ kind: isPulled ? "pull" : "jobs", jobs });
  }

  missed(): void {}

  failed(): void {}

  onLeaseEnd(lease: Lease, reason: LeaseEnd): void {
    if (!this.#outstanding.delete(lease)) return;
    if (reason !== "RELEASED" && reason !== "RESUMED") this.#push({ kind: "revoked", lease, reason });
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
    for (;;) {
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
      const event = this.#events.shift() as Waiting;
      if (event.kind === "jobs" || event.kind === "pull") {
        this.#waitingJobs -= event.jobs.length;
        if (this.capacity() > 0) this.#context.hub.wake(this);
      }
      if (event.kind !== "pull") return { done: false, value: event };
      const jobs = await this.#pull(event.jobs);
      if (jobs.length > 0) return { done: false, value: { kind: "jobs", jobs } };
    }
  }

  /** What has expired or was deleted meanwhile is not pulled. */
  #pull(jobs: readonly LeasedJob[]): Promise<readonly LeasedJob[]> {
    this.#context.heldLeases.forget(jobs);
    return this.#context.pull(jobs);
  }

  async return(): Promise<IteratorResult<SubscriptionEvent>> {
    this.close();
    return { done: true, value: undefined };
  }

  #setState(state: State): void {
    this.#state = state;
  }

  #resume({ number, kept, lost }: TakenOver): void {
    for (const lease of kept) {
      this.#outstanding.add(lease);
      this.#context.heldLeases.hold(lease, this.leaseMs, this, number);
    }
    for (const { lease, reason } of lost) this.#push({ kind: "revoked", lease, reason });
  }

  #push(event: Waiting): void {
    this.#events.push(event);
    this.#wakeReader?.();
  }

  #sayAlive(): void {
    if (this.#events.length === 0) this.#push({ kind: "keepalive" });
  }

  /** What the worker has not seen goes back as if it had never been reserved. */
  #takeBackWaiting(): void {
    const [unseen, others]: [LeasedJob[], Waiting[]] = [[], []];
    for (const event of this.#events) {
      if (event.kind === "pull") unseen.push(...event.jobs);
      // One that is not outstanding any more has ended.
      else if (event.kind === "jobs") unseen.push(...event.jobs.filter((job) => this.#outstanding.delete(job)));
      else if (this.#state.kind === "draining") others.push(event);
    }
    this.#events.length = 0;
    this.#events.push(...others);
    this.#waitingJobs = 0;
    this.#context.heldLeases.forget(unseen);
    if (unseen.length > 0) this.#context.giveBack(unseen);
  }
}
