/**
 * A worker's stream: takes jobs from the hub as far as its credit goes, keeps their leases while it lives, and yields
 * what the worker is to be told.
 *
 * Jobs move through it in two steps. `waiting`: handed over by the hub, not yet taken by the transport; while there are
 * any, the hub gives no more, so a worker that does not read is not fed. `outstanding`: handed over and not yet
 * released. When the stream ends, the waiting ones go back as if they had never been reserved, and the others after the
 * grace.
 *
 * Jobs that are pulled wait likewise, and are forgotten the moment that the transport takes them: until then they can
 * still go back.
 *
 * A stream ends: by close(), at once, from whichever side; after drain(), when its jobs are released, or the grace is
 * over; after finish(), when the worker has said its last, and all is answered.
 */
import type { Lease, LeasedJob, LeaseEnd } from "../model/job.ts";
import type { ByteBudget } from "../store/store.ts";
import type { Consumer, DeliveryMode, QueuePolicy, QueueShare } from "./consumer.ts";
import type { HeldLeases, Holder, SizedLease, TakenOver } from "./held-leases.ts";
import type { Hub } from "./hub.ts";

export type SubscriptionEvent =
  | { readonly kind: "started"; readonly workerId: string; readonly leaseMs: number; readonly graceMs: number }
  | { readonly kind: "jobs"; readonly jobs: readonly LeasedJob[] }
  | { readonly kind: "revoked"; readonly lease: Lease; readonly reason: Exclude<LeaseEnd, "RELEASED" | "RESUMED"> }
  | { readonly kind: "keepalive" }
  /** `graceMs` undefined: the stream stays until its jobs are released. */
  | { readonly kind: "draining"; readonly graceMs: number | undefined };

type JobsEvent = Extract<SubscriptionEvent, { kind: "jobs" }>;

/** What waits to be taken: events as the worker sees them, and jobs, with their leases, to be pulled or as they are. */
type Waiting<Answer> =
  | Exclude<SubscriptionEvent, JobsEvent>
  | (JobsEvent & { readonly leases: readonly SizedLease[] })
  | { readonly kind: "pull"; readonly jobs: readonly LeasedJob[] }
  | Answer;

/** How much may be unreleased; `maxBytes` 0: any number of them. */
export type Credit = { readonly maxOutstanding: number; readonly maxBytes: number };

export type SubscribeOptions = {
  readonly queues: readonly QueueShare[];
  readonly policy: QueuePolicy;
  readonly credit: Credit;
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
  /** When it drains by itself, so that workers spread anew over all brokers; undefined: never. */
  readonly ageMs: number | undefined;
  readonly onClose: () => void;
};

/** Jobs in one message: 2.5 ms of Redis, and the next ones are fetched while these are on their way. */
const BATCH = 250;

type State =
  | { readonly kind: "open" }
  /** No new jobs, for as long as the worker wants none. */
  | { readonly kind: "quiet" }
  /** No new jobs; ends when the outstanding ones are released. */
  | { readonly kind: "draining" }
  /** The worker has closed its side; ends when everything is answered. */
  | { readonly kind: "finishing" }
  | { readonly kind: "closed" };

/** `Answer`: what else the worker can be told on this stream, see tell(). */
export class Subscription<Answer extends { readonly kind: string } = never> implements Consumer, Holder {
  readonly queues: readonly QueueShare[];
  readonly policy: QueuePolicy;
  readonly workerId: string;
  readonly leaseMs: number;
  readonly asksItself = false;
  readonly host: string;
  readonly language: string;
  readonly #mode: DeliveryMode;
  readonly #graceMs: number;
  readonly #context: SubscriptionContext;
  /** Events not yet taken: jobs within the credit, at most one revocation for each, one of each other kind; and answers. */
  #events: Waiting<Answer>[] = [];
  /** Without those that are pulled. The very objects that HeldLeases was given. */
  readonly #outstanding = new Set<Lease>();
  #outstandingBytes = 0;
  #credit: Credit;
  /** The next job is larger than what is left of the credit's bytes. */
  #outgrown = false;
  #waitingJobs = 0;
  /** Answers that are still to come, or were taken a moment ago. */
  #owed = 0;
  #state: State = { kind: "open" };
  #wakeReader: (() => void) | undefined;
  #keepalive: NodeJS.Timeout;
  /** To the end of its age, and then of the grace. */
  #ending: NodeJS.Timeout | undefined;

  constructor(options: SubscribeOptions, context: SubscriptionContext) {
    this.#context = context;
    this.#mode = options.mode;
    this.#graceMs = options.graceMs;
    this.#credit = options.credit;
    this.queues = options.queues;
    this.policy = options.policy;
    this.workerId = options.workerId;
    this.leaseMs = options.leaseMs;
    this.host = options.host;
    this.language = options.language;
    this.#events.push({ kind: "started", workerId: this.workerId, leaseMs: this.leaseMs, graceMs: options.graceMs });
    this.#keepalive = setInterval(() => this.#sayAlive(), context.keepaliveMs);
    if (context.ageMs !== undefined) this.#ending = setTimeout(() => this.drain(undefined), context.ageMs);
    if (options.resumed) this.#resume(options.resumed);
    context.hub.join(this);
  }

  /** Jobs that the worker has and has not released. */
  get jobsInHand(): number {
    return this.#outstanding.size;
  }

  capacity(): number {
    const takesNone = this.#state.kind !== "open" || this.#waitingJobs > 0 || this.#outgrown;
    if (takesNone || this.#context.isQuiet(this.workerId)) return 0;
    return Math.min(this.#room, BATCH);
  }

  byteBudget(): ByteBudget | undefined {
    const { maxBytes } = this.#credit;
    if (maxBytes === 0 || this.#mode === "pull") return undefined;
    // A job that was put when the broker allowed larger ones must find a worker, too.
    const takesAny = this.#outstanding.size === 0;
    return { most: takesAny ? maxBytes : Math.max(0, maxBytes - this.#outstandingBytes), takesAny };
  }

  outgrown(): void {
    this.#outgrown = this.#outstanding.size > 0;
  }

  deliver(delivered: readonly LeasedJob[], pull: boolean): void {
    const { heldLeases } = this.#context;
    // The credit may have become smaller while the jobs were on their way.
    const room = Math.max(0, this.#room);
    const jobs = delivered.length > room ? delivered.slice(0, room) : delivered;
    if (jobs.length < delivered.length) this.#context.giveBack(delivered.slice(room));
    if (jobs.length === 0) return;
    this.#waitingJobs += jobs.length;
    if (pull || this.#mode === "pull") {
      for (const job of jobs) heldLeases.hold(job, this.leaseMs, this);
      this.#push({ kind: "pull", jobs });
      return;
    }
    // Without what was put: the worker has that, maybe for days.
    const leases = jobs.map(({ queue, id, fence, spec }) => ({ queue, id, fence, bytes: spec.length }));
    for (const lease of leases) this.#keep(lease);
    this.#push({ kind: "jobs", jobs, leases });
  }

  missed(): void {}

  failed(): void {}

  onLeaseEnd(lease: Lease, reason: LeaseEnd): void {
    if (!this.#letGo(lease)) return;
    if (reason !== "RELEASED" && reason !== "RESUMED") this.#push({ kind: "revoked", lease, reason });
    if (this.capacity() > 0) this.#context.hub.wake(this);
    if (this.#isOver) this.#wakeReader?.();
  }

  /** From now on; what is outstanding already stays. */
  setCredit(credit: Credit): void {
    this.#credit = credit;
    this.#outgrown = false;
    if (this.capacity() > 0) this.#context.hub.wake(this);
  }

  /** No more jobs, not even those that are on their way or wait; or jobs again. */
  setQuiet(isQuiet: boolean): void {
    if (isQuiet && this.#state.kind === "open") {
      this.#setState({ kind: "quiet" });
      this.#takeNoMore();
    } else if (!isQuiet && this.#state.kind === "quiet") {
      this.#setState({ kind: "open" });
      this.#context.hub.join(this);
    }
  }

  /** An answer will be told: until then the stream does not end by itself. */
  owe(): void {
    this.#owed += 1;
  }

  /** Goes out after what was told before. */
  tell(answer: Answer): void {
    if (this.#state.kind !== "closed") this.#push(answer);
  }

  /** What owe() announced has been told. */
  paid(): void {
    this.#owed -= 1;
    if (this.#isOver) this.#wakeReader?.();
  }

  /** Tells the worker; hands out nothing more, and ends when everything is released, or the grace, if any, is over. */
  drain(graceMs: number | undefined): void {
    const { kind } = this.#state;
    if (kind === "closed" || kind === "finishing") return;
    clearTimeout(this.#ending);
    if (graceMs !== undefined) this.#ending = setTimeout(() => this.close(), graceMs);
    if (kind === "draining") return;
    this.#setState({ kind: "draining" });
    this.#takeNoMore();
    this.#push({ kind: "draining", graceMs });
  }

  /** The worker says no more: ends when it has all its answers. */
  finish(): void {
    if (this.#state.kind === "closed") return;
    this.#setState({ kind: "finishing" });
    this.#takeNoMore();
    this.#wakeReader?.();
  }

  /** Ends the stream, from whichever side. */
  close(): void {
    if (this.#state.kind === "closed") return;
    this.#setState({ kind: "closed" });
    clearInterval(this.#keepalive);
    clearTimeout(this.#ending);
    this.#takeNoMore();
    this.#events = [];
    const leases = [...this.#outstanding];
    this.#outstanding.clear();
    if (leases.length > 0) this.#context.relinquish(leases, this.#graceMs);
    this.#wakeReader?.();
    this.#context.onClose();
  }

  /** The next event; undefined when the stream has ended. */
  async next(): Promise<SubscriptionEvent | Answer | undefined> {
    while (await this.#hasEvents()) {
      const [event] = await this.#take([this.#events.shift() as Waiting<Answer>]);
      if (event) return event;
    }
    return undefined;
  }

  /** All events that there are, at least one; undefined when the stream has ended. */
  async nextAll(): Promise<readonly (SubscriptionEvent | Answer)[] | undefined> {
    while (await this.#hasEvents()) {
      const waiting = this.#events;
      this.#events = [];
      const events = await this.#take(waiting);
      if (events.length > 0) return events;
    }
    return undefined;
  }

  get #room(): number {
    const { maxOutstanding } = this.#credit;
    return this.#mode === "pull" ? maxOutstanding : maxOutstanding - this.#outstanding.size;
  }

  get #isOver(): boolean {
    const { kind } = this.#state;
    if (kind === "closed") return true;
    const isSilent = this.#events.length === 0 && this.#owed === 0;
    return isSilent && (kind === "finishing" || (kind === "draining" && this.#outstanding.size === 0));
  }

  #setState(state: State): void {
    this.#state = state;
  }

  async #hasEvents(): Promise<boolean> {
    while (this.#events.length === 0) {
      if (this.#isOver) {
        this.close();
        return false;
      }
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
      this.#wakeReader = undefined;
    }
    return true;
  }

  /** As the worker gets to see them; what has expired or was deleted meanwhile is not pulled. */
  async #take(waiting: readonly Waiting<Answer>[]): Promise<readonly (SubscriptionEvent | Answer)[]> {
    const events: (SubscriptionEvent | Answer)[] = [];
    let pulled: LeasedJob[] | undefined;
    for (const event of waiting) {
      if (isOfKind(event, "jobs") || isOfKind(event, "pull")) this.#waitingJobs -= event.jobs.length;
      if (isOfKind(event, "pull")) pulled = [...(pulled ?? []), ...event.jobs];
      else events.push(event as SubscriptionEvent | Answer);
    }
    if (this.capacity() > 0) this.#context.hub.wake(this);
    if (!pulled) return events;
    this.#context.heldLeases.forget(pulled);
    const jobs = await this.#context.pull(pulled);
    if (jobs.length > 0) events.push({ kind: "jobs", jobs });
    return events;
  }

  #resume({ number, kept, lost }: TakenOver): void {
    for (const lease of kept) this.#keep(lease, number);
    for (const { lease, reason } of lost) this.#push({ kind: "revoked", lease, reason });
  }

  #keep(lease: SizedLease, number?: number): void {
    this.#outstanding.add(lease);
    this.#outstandingBytes += lease.bytes;
    this.#context.heldLeases.hold(lease, this.leaseMs, this, number);
  }

  #letGo(lease: Lease): boolean {
    if (!this.#outstanding.delete(lease)) return false;
    this.#outstandingBytes -= (lease as SizedLease).bytes;
    this.#outgrown = false;
    return true;
  }

  #push(event: Waiting<Answer>): void {
    this.#events.push(event);
    this.#wakeReader?.();
  }

  #sayAlive(): void {
    if (this.#events.length === 0) this.#push({ kind: "keepalive" });
  }

  /** What is on its way to it goes back, and what the worker has not seen, as if it had never been reserved. */
  #takeNoMore(): void {
    this.#context.hub.leave(this);
    const [unseen, others]: [Lease[], Waiting<Answer>[]] = [[], []];
    for (const event of this.#events) {
      if (isOfKind(event, "pull")) unseen.push(...event.jobs);
      // One that is not outstanding any more has ended.
      else if (isOfKind(event, "jobs")) unseen.push(...event.leases.filter((lease) => this.#letGo(lease)));
      else others.push(event);
    }
    this.#events = others;
    this.#waitingJobs = 0;
    this.#context.heldLeases.forget(unseen);
    if (unseen.length > 0) this.#context.giveBack(unseen);
  }
}

/** Answers are of kinds of their own. */
function isOfKind<K extends Waiting<never>["kind"]>(
  event: { readonly kind: string },
  kind: K,
): event is Extract<Waiting<never>, { kind: K }> {
  return event.kind === kind;
}
