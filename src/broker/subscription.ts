/**
 * A worker's stream: takes jobs from the hub as far as its credit goes, keeps their leases while it lives, and yields
 * what the worker is to be told.
 *
 * Jobs move through it in two steps. `waiting`: handed over by the hub, not yet taken by the transport; of those there are
 * no more than fit into a message or two, so a worker that does not read is not fed. `outstanding`: handed over and not yet
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
import { Outbox } from "./outbox.ts";

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

type Told<Answer> = readonly (SubscriptionEvent | Answer)[];

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
  /** The worker wants no more jobs, or some again. */
  readonly onQuiet: () => void;
  readonly onClose: () => void;
};

/** Jobs in one message: 2.5 ms of Redis, and the next ones are fetched while these are on their way. */
const BATCH = 250;
/** A stream with more than this to be taken is given no more, so that one that does not read costs no more memory. */
const WAITING_BYTES = 256 * 1024;
const KEEPALIVE = { kind: "keepalive" } as const;
/** What a lease takes in a message: queue and id, its token, in which they stand again, times and numbers. */
const LEASE_BYTES = 1_024;
/** A job that was too large for a stream may have gone elsewhere meanwhile: so soon the next one is looked for. */
const OUTGROWN_MS = 1_000;

type State =
  | { readonly kind: "open" }
  /** No new jobs, for as long as the worker wants none. */
  | { readonly kind: "quiet" }
  /** No new jobs; ends when the outstanding ones are released. */
  | { readonly kind: "draining" }
  /** The worker has closed its side; ends when everything is answered. */
  | { readonly kind: "finishing" }
  | { readonly kind: "closed" };

/** `bytes`: how many it takes in a message. `taken`: called when it goes out. */
export type StreamAnswer = { readonly kind: string; readonly bytes: number; readonly taken: () => void };

/** `Answer`: what else the worker can be told on this stream, see tell(). */
export class Subscription<Answer extends StreamAnswer = never> implements Consumer, Holder {
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
  readonly #outbox: Outbox<Waiting<Answer>, SubscriptionEvent | Answer>;
  /** Without those that are pulled. The very objects that HeldLeases was given. */
  readonly #outstanding = new Set<Lease>();
  #outstandingBytes = 0;
  #credit: Credit;
  /** Runs while the next job is, for all that is known, larger than what is left of the credit's bytes. */
  #outgrown: NodeJS.Timeout | undefined;
  #waitingJobs = 0;
  #waitingBytes = 0;
  /** The hub will hear at the end of this turn that there may be room. */
  #isLookingSoon = false;
  /** Answers that are still to come, or were taken a moment ago. */
  #owed = 0;
  #state: State = { kind: "open" };
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
    this.#outbox = new Outbox<Waiting<Answer>, SubscriptionEvent | Answer>({
      isOver: () => this.#isOver,
      onOver: () => this.close(),
      bytesOf,
      take: (waiting) => this.#take(waiting),
    });
    this.#outbox.push({ kind: "started", workerId: this.workerId, leaseMs: this.leaseMs, graceMs: options.graceMs });
    // Streams that began together, as after a restart, must not all speak at the same moment for ever.
    this.#keepalive = setTimeout(() => {
      this.#keepalive = setInterval(() => this.#sayAlive(), context.keepaliveMs);
      this.#sayAlive();
    }, context.keepaliveMs * Math.random());
    if (context.ageMs !== undefined) this.#ending = setTimeout(() => this.drain(undefined), context.ageMs);
    if (options.resumed) this.#resume(options.resumed);
    context.hub.join(this);
  }

  /** Jobs that the worker has and has not released. */
  get jobsInHand(): number {
    return this.#outstanding.size;
  }

  /** It gets no more jobs, whatever its worker's other streams get. */
  get isQuiet(): boolean {
    return this.#state.kind !== "open";
  }

  capacity(): number {
    const takesNone = this.#state.kind !== "open" || this.#outgrown !== undefined || this.#waitingBytes > WAITING_BYTES;
    if (takesNone || this.#context.isQuiet(this.workerId)) return 0;
    if (this.#mode === "pull") return this.#waitingJobs > 0 ? 0 : Math.min(this.#room, BATCH);
    return Math.min(this.#room, BATCH - this.#waitingJobs);
  }

  byteBudget(): ByteBudget | undefined {
    const { maxBytes } = this.#credit;
    if (maxBytes === 0 || this.#mode === "pull") return undefined;
    // A job that was put when the broker allowed larger ones must find a worker, too.
    const takesAny = this.#outstanding.size === 0;
    return { most: takesAny ? maxBytes : Math.max(0, maxBytes - this.#outstandingBytes), takesAny };
  }

  outgrown(): void {
    if (this.#outstanding.size === 0 || this.#state.kind === "closed") return;
    clearTimeout(this.#outgrown);
    this.#outgrown = setTimeout(() => {
      this.#lookAnew();
      if (this.capacity() > 0) this.#context.hub.wake(this);
    }, OUTGROWN_MS);
  }

  deliver(delivered: readonly LeasedJob[], pull: boolean): void {
    const { heldLeases } = this.#context;
    // The credit may have become smaller while the jobs were on their way.
    const fitting = this.#fitting(delivered);
    const jobs = fitting < delivered.length ? delivered.slice(0, fitting) : delivered;
    if (fitting < delivered.length) this.#context.giveBack(delivered.slice(fitting));
    if (jobs.length === 0) return;
    this.#countWaiting(jobs, 1);
    if (pull || this.#mode === "pull") {
      for (const job of jobs) heldLeases.hold(job, this.leaseMs, this);
      this.#outbox.push({ kind: "pull", jobs });
      return;
    }
    // Without what was put: the worker has that, maybe for days.
    const leases = jobs.map(({ queue, id, fence, spec }) => ({ queue, id, fence, bytes: spec.length }));
    for (const lease of leases) this.#count(lease);
    this.#outbox.push({ kind: "jobs", jobs, leases });
    // One that has ended already is revoked at once: after the worker has heard of it.
    for (const lease of leases) heldLeases.hold(lease, this.leaseMs, this);
  }

  missed(): void {}

  failed(): void {}

  onLeaseEnd(lease: Lease, reason: LeaseEnd): void {
    if (!this.#letGo(lease)) return;
    if (reason !== "RELEASED" && reason !== "RESUMED") this.#outbox.push({ kind: "revoked", lease, reason });
    if (this.#isLookingSoon) return;
    this.#isLookingSoon = true;
    // Once for all leases that end in this turn: asked at the first of them, the hub would fetch one job.
    queueMicrotask(() => {
      this.#isLookingSoon = false;
      if (this.capacity() > 0) this.#context.hub.wake(this);
      if (this.#isOver) this.#outbox.wake();
    });
  }

  /** From now on; what is outstanding already stays. */
  setCredit(credit: Credit): void {
    this.#credit = credit;
    this.#lookAnew();
    if (this.capacity() > 0) this.#context.hub.wake(this);
  }

  /** No more jobs, not even those that are on their way or wait; or jobs again. */
  setQuiet(isQuiet: boolean): void {
    if (isQuiet && this.#state.kind === "open") {
      this.#setState({ kind: "quiet" });
      this.#takeNoMore();
      this.#context.onQuiet();
    } else if (!isQuiet && this.#state.kind === "quiet") {
      this.#setState({ kind: "open" });
      this.#context.hub.join(this);
      this.#context.onQuiet();
    }
  }

  /** An answer will be told: until then the stream does not end by itself. */
  owe(): void {
    this.#owed += 1;
  }

  /** Goes out after what was told before. */
  tell(answer: Answer): void {
    if (this.#state.kind !== "closed") this.#outbox.push(answer);
  }

  /** What owe() announced has been told. */
  paid(): void {
    this.#owed -= 1;
    if (this.#isOver) this.#outbox.wake();
  }

  /** Tells the worker; hands out nothing more, and ends when everything is released, or the grace, if any, is over. */
  drain(graceMs: number | undefined): void {
    const { kind } = this.#state;
    if (kind === "closed" || kind === "finishing") return;
    clearTimeout(this.#ending);
    if (graceMs !== undefined) this.#ending = setTimeout(() => this.close(), graceMs);
    if (kind !== "draining") {
      this.#setState({ kind: "draining" });
      this.#takeNoMore();
    }
    this.#outbox.push({ kind: "draining", graceMs });
  }

  /** The worker says no more: ends when it has all its answers. */
  finish(): void {
    if (this.#state.kind === "closed") return;
    this.#setState({ kind: "finishing" });
    this.#takeNoMore();
    this.#outbox.wake();
  }

  /** Ends the stream, from whichever side. */
  close(): void {
    if (this.#state.kind === "closed") return;
    this.#setState({ kind: "closed" });
    clearTimeout(this.#keepalive);
    clearTimeout(this.#ending);
    this.#takeNoMore();
    this.#lookAnew();
    this.#outbox.takeBack(() => true);
    const leases = [...this.#outstanding];
    this.#outstanding.clear();
    if (leases.length > 0) this.#context.relinquish(leases, this.#graceMs);
    this.#outbox.wake();
    this.#context.onClose();
  }

  /** The next event; undefined when the stream has ended. */
  async next(): Promise<SubscriptionEvent | Answer | undefined> {
    return (await this.#outbox.read(1))?.[0];
  }

  /** All events that there are and that fit into one message, at least one; undefined when the stream has ended. */
  nextAll(): Promise<Told<Answer> | undefined> {
    return this.#outbox.read(Number.POSITIVE_INFINITY);
  }

  get #room(): number {
    const { maxOutstanding } = this.#credit;
    return this.#mode === "pull" ? maxOutstanding : maxOutstanding - this.#outstanding.size;
  }

  /** How many of these jobs its credit allows, in their order. */
  #fitting(jobs: readonly LeasedJob[]): number {
    const most = Math.min(jobs.length, Math.max(0, this.#room));
    const budget = this.byteBudget();
    if (!budget) return most;
    let bytes = 0;
    for (const [i, { spec }] of jobs.slice(0, most).entries()) {
      bytes += spec.length;
      if (bytes > budget.most && !(i === 0 && budget.takesAny)) return i;
    }
    return most;
  }

  get #isOver(): boolean {
    const { kind } = this.#state;
    if (kind === "closed") return true;
    const isSilent = this.#outbox.isEmpty && this.#owed === 0;
    return isSilent && (kind === "finishing" || (kind === "draining" && this.#outstanding.size === 0));
  }

  #setState(state: State): void {
    this.#state = state;
  }

  /** As the worker gets to see them. */
  #take(waiting: readonly Waiting<Answer>[]): Told<Answer> | Promise<Told<Answer>> {
    const events: (SubscriptionEvent | Answer)[] = [];
    const pulled: LeasedJob[] = [];
    for (const event of waiting) {
      if (isOfKind(event, "jobs") || isOfKind(event, "pull")) this.#countWaiting(event.jobs, -1);
      if (isOfKind(event, "pull")) {
        pulled.push(...event.jobs);
        continue;
      }
      if ("taken" in event) event.taken();
      events.push(event);
    }
    if (this.capacity() > 0) this.#context.hub.wake(this);
    return pulled.length === 0 ? events : this.#pull(pulled, events);
  }

  /** What has expired or was deleted meanwhile is not pulled. */
  async #pull(pulled: readonly LeasedJob[], events: Told<Answer>): Promise<Told<Answer>> {
    this.#context.heldLeases.forget(pulled);
    const jobs = await this.#context.pull(pulled);
    return jobs.length > 0 ? [...events, { kind: "jobs", jobs }] : events;
  }

  #resume({ number, kept, lost }: TakenOver): void {
    for (const lease of kept) {
      this.#count(lease);
      this.#context.heldLeases.hold(lease, this.leaseMs, this, number);
    }
    for (const { lease, reason } of lost) this.#outbox.push({ kind: "revoked", lease, reason });
  }

  #countWaiting(jobs: readonly LeasedJob[], sign: 1 | -1): void {
    this.#waitingJobs += sign * jobs.length;
    for (const { spec } of jobs) this.#waitingBytes += sign * spec.length;
  }

  #count(lease: SizedLease): void {
    this.#outstanding.add(lease);
    this.#outstandingBytes += lease.bytes;
  }

  #letGo(lease: Lease): boolean {
    if (!this.#outstanding.delete(lease)) return false;
    this.#outstandingBytes -= (lease as SizedLease).bytes;
    this.#lookAnew();
    return true;
  }

  /** The next job may fit now. */
  #lookAnew(): void {
    clearTimeout(this.#outgrown);
    this.#outgrown = undefined;
  }

  #sayAlive(): void {
    if (this.#outbox.isEmpty) this.#outbox.push(KEEPALIVE);
  }

  /** What is on its way to it goes back, and what the worker has not seen, as if it had never been reserved. */
  #takeNoMore(): void {
    this.#context.hub.leave(this);
    const unseen: Lease[] = [];
    this.#outbox.takeBack((event) => {
      // One that is not outstanding any more has ended.
      if (isOfKind(event, "jobs")) unseen.push(...event.leases.filter((lease) => this.#letGo(lease)));
      else if (isOfKind(event, "pull")) unseen.push(...event.jobs);
      else return false;
      return true;
    });
    this.#waitingJobs = 0;
    this.#waitingBytes = 0;
    this.#context.heldLeases.forget(unseen);
    if (unseen.length > 0) this.#context.giveBack(unseen);
  }
}

function bytesOf(event: Waiting<StreamAnswer>): number {
  if ("bytes" in event) return event.bytes;
  if (isOfKind(event, "jobs") || isOfKind(event, "pull")) {
    return event.jobs.reduce((bytes, { spec }) => bytes + spec.length + LEASE_BYTES, 0);
  }
  return LEASE_BYTES;
}

/** Answers are of kinds of their own. */
function isOfKind<K extends Waiting<never>["kind"]>(
  event: { readonly kind: string },
  kind: K,
): event is Extract<Waiting<never>, { kind: K }> {
  return event.kind === kind;
}
