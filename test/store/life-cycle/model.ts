/**
 * The life cycle in memory, as plainly as it can be said: what the Lua scripts are held against. It knows one queue,
 * works on plain objects, and takes one verb at a time. Slots and counts are not kept but counted; a job that has a slot
 * of its concurrency key carries a flag.
 */
import {
  DEFAULT_LEASE_MS,
  type JobView,
  type NewJob,
  type Outcome,
  type OwnRetryPolicy,
  type Progress,
  type PutOutcome,
  type Released,
  type RetryPolicy,
} from "../../../src/model/job.ts";
import type { QueueChange, QueueSettings } from "../../../src/model/queue.ts";
import { FAILURE_REASONS, JOB_STATES, type JobState } from "../../../src/model/states.ts";
import type { Claim, Extension, RetryOutcome } from "../../../src/store/store.ts";

const EPOCH_MS = Date.UTC(2026, 0, 1);
const TICKS_PER_MS = 256;
const MS_PER_DAY = 86_400_000;

export type Defaults = {
  readonly retentionMs: number;
  readonly retry: RetryPolicy;
  readonly deadLetterMax: number;
  readonly deadLetterAgeMs: number;
};

export type ModelJob = {
  readonly job: NewJob;
  readonly nonce: number;
  readonly putAtMs: number;
  /** Since when it may run. */
  dueMs: number;
  state: JobState;
  order: number;
  atMs: number;
  attempt: number;
  failures: number;
  fence: number;
  worker: string;
  /** The number of the stream that has taken the lease over; 0: nobody has. */
  holder: number;
  /** What was reported last, of this attempt. */
  progress: JobView["progress"];
  reservedAtMs: number;
  /** When it would have been due, where it was handed out ahead of that; 0: it was not. */
  aheadOfMs: number;
  finishedAtMs: number;
  reason: number;
  /** A result, or the last error; empty: none. */
  outcome: Uint8Array;
  released: Released | undefined;
  /** It has a slot of its concurrency key: it is RESERVED, or READY since one was kept for it. */
  hasSlot: boolean;
};

export type ModelLease = { readonly id: string; readonly fence: number };

/** A claim as it fills: it gets no more once the next job has more bytes than are left. */
type OpenClaim = {
  readonly claim: Claim;
  readonly got: ModelLease[];
  bytesLeft: number;
  takesAny: boolean;
  isOutgrown: boolean;
};

export class LifeCycle {
  readonly jobs = new Map<string, ModelJob>();
  /** How many slots each concurrency key has that unfinished jobs name. */
  readonly limits = new Map<string, number>();
  /** Which job keeps a unique key, and until when. */
  readonly uniqueKeys = new Map<string, { readonly id: string; readonly expiresAtMs: number }>();
  settings: QueueSettings = { paused: false };
  /** Every completion event that must have been published. */
  readonly events: string[] = [];
  /** Every end of a lease, or of a job, that must have been published. */
  readonly ends: string[] = [];
  /** name:day → number */
  readonly counters = new Map<string, number>();
  readonly #defaults: Defaults;
  #now: number;
  #order = 0;
  #dueOrder = 0;

  constructor(now: number, defaults: Defaults) {
    this.#now = now;
    this.#defaults = defaults;
  }

  get now(): number {
    return this.#now;
  }

  pass(ms: number): void {
    this.#now += ms;
  }

  put(jobs: readonly NewJob[], nonce: number): PutOutcome[] {
    const isOver = ({ state, atMs }: ModelJob) => state === "RESERVED" && atMs <= this.#now;
    if (jobs.some(({ id }) => this.#any(id, isOver))) this.moveDue();
    const outcomes = jobs.map((job, i) => this.#putOne(job, nonce + i + 1));
    this.#fillSlots();
    return outcomes;
  }

  /**
   * READY jobs fill the claims one after the other; those without a free slot are held, and it goes on past them. (The
   * script looks at no more than 200 such: no sequence here has as many.) Then what is due until a claim's time.
   */
  reserve(claims: readonly Claim[]): { leases: ModelLease[][]; remaining: boolean; outgrown: number[] } {
    this.moveDue();
    const open = claims.map(
      (claim): OpenClaim => ({
        claim,
        got: [],
        bytesLeft: claim.bytes?.most ?? Number.POSITIVE_INFINITY,
        takesAny: claim.bytes?.takesAny ?? false,
        isOutgrown: false,
      }),
    );
    const leases = open.map(({ got }) => got);
    if (this.settings.paused) return { leases, remaining: false, outgrown: [] };
    for (const [id, it] of this.inState("READY")) {
      if (!open.some(hasRoom)) break;
      const { expiresInMs } = it.job;
      if (it.attempt === 0 && expiresInMs !== undefined && this.#now >= it.dueMs + expiresInMs) {
        this.#bury(id, it, FAILURE_REASONS.JOB_EXPIRED);
      } else if (this.#findsSlot(it)) {
        const to = open.find((one) => hasRoom(one) && fits(one, it.job.spec.length));
        if (to) this.#handOut(id, it, to);
      } else {
        it.state = "HELD";
      }
    }
    for (const to of open) this.#takeAhead(to);
    this.#fillSlots();
    const outgrown = open.flatMap(({ isOutgrown }, n) => (isOutgrown ? [n] : []));
    return { leases, remaining: this.inState("READY").length > 0, outgrown };
  }

  release(
    leases: readonly ModelLease[],
    outcome: Outcome,
    chances: readonly number[],
    announce: boolean,
  ): (Released | undefined)[] {
    const answers = leases.map((lease, n) => this.#releaseOne(lease, outcome, chances[n] ?? 0, announce));
    this.#fillSlots();
    return answers;
  }

  /** `holder` undefined: whoever keeps it. */
  extend(
    { id, fence }: ModelLease,
    leaseMs: number,
    holder: number | undefined,
    takeOver: boolean,
  ): Extension["ends"][number] {
    const it = this.#any(id, (one) => one.fence === fence);
    if (it?.state !== "RESERVED" || !this.#leaseRuns(it)) {
      return it && this.#now >= runEnds(it) && !it.released ? "RUN_TIMEOUT" : "EXPIRED";
    }
    if (takeOver && holder !== undefined && it.holder !== holder) {
      it.holder = holder;
      this.ends.push(`RESUMED ${id} ${fence} ${holder}`);
    }
    if (holder !== undefined && it.holder !== holder) return "RESUMED";
    it.atMs = Math.min(this.#now + leaseMs, runEnds(it));
    return it.atMs;
  }

  /** Whether it was stored. */
  report({ id, fence }: ModelLease, progress: Progress): boolean {
    const it = this.#any(id, (one) => one.fence === fence && one.state === "RESERVED" && this.#leaseRuns(one));
    if (it) it.progress = { ...progress, reportedAtMs: this.#now };
    return it !== undefined;
  }

  delete(id: string): JobState | undefined {
    this.moveDue();
    const it = this.#present(id);
    if (it) this.#delete(id, it);
    this.jobs.delete(id);
    this.#fillSlots();
    return it?.state;
  }

  cancel(id: string, error: Uint8Array): { cancelled: boolean; previous: JobState | undefined } {
    this.moveDue();
    const it = this.#present(id);
    const previous = it?.state;
    if (!it || isFinished(it)) return { cancelled: false, previous };
    this.#announceEnd(id, it, "CANCELLED");
    it.outcome = error;
    this.#bury(id, it, FAILURE_REASONS.CANCELLED);
    this.#fillSlots();
    return { cancelled: true, previous };
  }

  retry(ids: readonly string[]): RetryOutcome[] {
    this.moveDue();
    return ids.map((id) => this.#retryOne(id));
  }

  retryFailed(untilMs: number, skip: number, most: number): { retried: number; refused: number } {
    this.moveDue();
    const failed = this.inState("FAILED").filter(([, { atMs }]) => atMs <= untilMs);
    const outcomes = failed.slice(skip, skip + most).map(([id]) => this.#retryOne(id));
    const retried = outcomes.filter(({ kind }) => kind === "retried").length;
    return { retried, refused: outcomes.length - retried };
  }

  purge(state: JobState, most: number): { purged: number; left: number; later: number } {
    this.moveDue();
    let purged = 0;
    for (const [id, it] of this.inState(state).slice(0, most)) {
      if (this.#present(id)) {
        this.#delete(id, it);
        purged += 1;
      }
      this.jobs.delete(id);
    }
    this.#fillSlots();
    return { purged, left: this.inState(state).length, later: 0 };
  }

  requeue(most: number): number {
    const over = this.inState("RESERVED").filter(([, { atMs }]) => atMs <= this.#now);
    for (const [id, it] of over.slice(0, most)) this.#expire(id, it);
    this.#fillSlots();
    return Math.min(over.length, most);
  }

  update({ retry, ...change }: QueueChange): QueueSettings {
    const merged = Object.entries({ ...this.settings, ...change }).filter(([, value]) => value !== null);
    const policy = Object.entries({ ...this.settings.retry, ...retry }).filter(([, value]) => value !== null);
    this.settings = {
      paused: false,
      ...Object.fromEntries(merged),
      retry: policy.length > 0 ? (Object.fromEntries(policy) as OwnRetryPolicy) : undefined,
    };
    return this.settings;
  }

  get(id: string): ModelJob | undefined {
    this.moveDue();
    return this.#present(id);
  }

  list(state: JobState): string[] {
    this.moveDue();
    return this.inState(state).flatMap(([id]) => (this.#present(id) ? [id] : []));
  }

  sweep(): void {
    this.moveDue();
    for (const id of [...this.jobs.keys()]) if (!this.#present(id)) this.jobs.delete(id);
    const { deadLetterAgeMs = this.#defaults.deadLetterAgeMs, deadLetterMax = this.#defaults.deadLetterMax } =
      this.settings;
    for (const [id, { atMs }] of this.inState("FAILED")) {
      if (atMs <= this.#now - deadLetterAgeMs) this.jobs.delete(id);
    }
    const failed = this.inState("FAILED");
    for (const [id] of failed.slice(0, Math.max(0, failed.length - deadLetterMax))) this.jobs.delete(id);
    for (const [key, { expiresAtMs }] of this.uniqueKeys) if (expiresAtMs <= this.#now) this.uniqueKeys.delete(key);
  }

  /** Until the next job is due or the next lease ends. */
  nextDueMs(): number | undefined {
    const waiting: JobState[] = ["SCHEDULED", "RETRYING"];
    if (this.settings.mode !== "recoverable") waiting.push("RESERVED");
    const times = [...this.jobs.values()].filter(({ state }) => waiting.includes(state)).map(({ atMs }) => atMs);
    return times.length > 0 ? Math.max(0, Math.min(...times) - this.#now) : undefined;
  }

  /** As Get shows it; when it runs only where its state has such a time. */
  view(it: ModelJob): Partial<JobView> {
    const { job, attempt, failures, state, putAtMs, worker: workerId, reservedAtMs, finishedAtMs, reason } = it;
    return {
      ...{ id: job.id, attempt, failures, state, putAtMs, workerId, reservedAtMs, finishedAtMs, reason },
      ...(state !== "READY" && state !== "HELD" && { atMs: it.atMs }),
      progress: state === "RESERVED" ? it.progress : undefined,
      concurrency: job.concurrency,
      unique: job.unique,
    };
  }

  /** The jobs of a state, in the order in which they stand. */
  inState(wanted: JobState): [string, ModelJob][] {
    const place = ({ job, order, atMs }: ModelJob): readonly (number | string)[] => {
      if (wanted === "READY") return [-job.priority, order];
      if (wanted === "HELD") return [job.concurrency?.key ?? "", -job.priority, order];
      return wanted === "SCHEDULED" ? [atMs, order] : [atMs];
    };
    return [...this.jobs]
      .filter(([, { state }]) => state === wanted)
      .sort(([idA, a], [idB, b]) => compare([...place(a), idA], [...place(b), idB]));
  }

  moveDue(): void {
    const due = [...this.jobs].filter(([, { atMs }]) => atMs <= this.#now);
    const scheduled = due.filter(([, { state }]) => state === "SCHEDULED");
    scheduled.sort(([, a], [, b]) => a.atMs - b.atMs || a.order - b.order);
    for (const [, it] of scheduled) {
      if (it.attempt === 0) {
        this.#dueOrder = Math.max(this.#dueOrder + 1, (it.atMs - EPOCH_MS) * TICKS_PER_MS);
        it.order = this.#dueOrder;
      }
      it.state = "READY";
    }
    for (const [, it] of due) if (it.state === "RETRYING") it.state = "READY";
    if (this.settings.mode !== "recoverable") {
      for (const [id, it] of due) if (it.state === "RESERVED") this.#expire(id, it);
    }
    this.#fillSlots();
  }

  #putOne(job: NewJob, nonce: number): PutOutcome {
    const { id, conflict, unique } = job;
    const old = this.jobs.get(id);
    if (old?.nonce === nonce) return { kind: "created", state: old.state };
    const there = this.#present(id);
    if (there) {
      const { state } = there;
      if (conflict === "keep") return { kind: "kept", state };
      if (!isFinished(there) && (conflict === "reject" || state === "RESERVED")) return { kind: "conflict", state };
    }
    const isReplaced = old && !isFinished(old);
    const keeperId = unique && this.#keeperOf(unique.key);
    if (keeperId !== undefined && !(keeperId === id && isReplaced)) {
      const kind = conflict === "keep" ? "unique kept" : "unique conflict";
      return { kind, state: this.#stateOf(keeperId), keeperId };
    }
    if (isReplaced) this.#freeKey(id, old);
    return { kind: "created", state: this.#create(job, nonce) };
  }

  #create(job: NewJob, nonce: number): JobState {
    const { id, concurrency } = job;
    const dueMs = job.runAtMs ?? this.#now + (job.delayMs ?? 0);
    const waits = dueMs > this.#now;
    const state = waits ? "SCHEDULED" : "READY";
    this.jobs.set(id, {
      job,
      nonce,
      putAtMs: this.#now,
      dueMs: waits ? dueMs : this.#now,
      state,
      order: this.#tick(),
      atMs: waits ? dueMs : 0,
      ...{
        attempt: 0,
        failures: 0,
        fence: 0,
        worker: "",
        holder: 0,
        progress: undefined,
        reservedAtMs: 0,
        aheadOfMs: 0,
        finishedAtMs: 0,
        reason: 0,
      },
      outcome: new Uint8Array(),
      released: undefined,
      hasSlot: false,
    });
    if (concurrency) this.limits.set(concurrency.key, concurrency.limit);
    this.#takeKey(id, job, this.#now);
    this.#count("put");
    return state;
  }

  #takeAhead(to: OpenClaim): void {
    const { availableByMs = 0 } = to.claim;
    for (const [id, it] of this.#dueBy(availableByMs)) {
      if (!hasRoom(to) || !this.#findsSlot(it) || !fits(to, it.job.spec.length)) continue;
      if (it.attempt === 0) it.order = (it.atMs - EPOCH_MS) * TICKS_PER_MS;
      const { atMs } = it;
      this.#handOut(id, it, to);
      it.aheadOfMs = atMs;
    }
  }

  #handOut(id: string, it: ModelJob, to: OpenClaim): void {
    const { leaseMs, workerId } = to.claim;
    it.state = "RESERVED";
    it.hasSlot = it.job.concurrency !== undefined;
    it.attempt += 1;
    it.fence = this.#tick();
    it.worker = workerId;
    it.holder = 0;
    it.progress = undefined;
    it.reservedAtMs = this.#now;
    it.aheadOfMs = 0;
    it.finishedAtMs = 0;
    it.released = undefined;
    const lease = leaseMs || it.job.leaseMs || this.settings.leaseMs || DEFAULT_LEASE_MS;
    it.atMs = Math.min(this.#now + lease, runEnds(it));
    if (it.job.unique?.until === "start") this.#freeKey(id, it);
    to.got.push({ id, fence: it.fence });
    to.bytesLeft = Math.max(0, to.bytesLeft - it.job.spec.length);
    to.takesAny = false;
  }

  #releaseOne({ id, fence }: ModelLease, outcome: Outcome, chance: number, announce: boolean): Released | undefined {
    if (fence === 0) return this.#releasePulled(id, outcome);
    const it = this.#present(id);
    if (!it || it.fence !== fence) return undefined;
    if (it.state === "RESERVED" && this.#leaseRuns(it)) {
      if (announce) this.#announceEnd(id, it, "RELEASED");
      it.hasSlot = false;
      it.released = this.#end(id, it, outcome, chance);
      return it.released;
    }
    // It is known until when it waits, or waited, as long as it has not been ended otherwise.
    const { state, runAtMs } = it.released ?? {};
    return state && { state, runAtMs: isFinished(it) || it.atMs === 0 ? undefined : runAtMs };
  }

  /** Nothing is known of it; a job that has its id now is another one. */
  #releasePulled(id: string, { kind }: Outcome): Released | undefined {
    if (this.jobs.has(id) || (kind !== "completed" && kind !== "failed")) return undefined;
    const state = kind === "completed" ? "COMPLETED" : "FAILED";
    this.events.push(`${state} ${id}`);
    return { state };
  }

  #end(id: string, it: ModelJob, outcome: Outcome, chance: number): Released {
    switch (outcome.kind) {
      case "pulled": {
        if (it.job.unique?.until !== "expiry") this.#freeKey(id, it);
        this.jobs.delete(id);
        this.#count("pulled");
        return { state: "GONE" };
      }
      case "completed":
        this.#complete(id, it, outcome.result ?? new Uint8Array());
        return { state: "COMPLETED" };
      case "failed": {
        it.failures += 1;
        it.outcome = outcome.error;
        it.reason = FAILURE_REASONS.RELEASED;
        if (outcome.permanent || it.failures >= this.#retryOf(it).maxAttempts) {
          this.#bury(id, it, FAILURE_REASONS.RELEASED);
          return { state: "FAILED" };
        }
        it.state = "RETRYING";
        it.atMs = this.#now + (outcome.retryAfterMs ?? this.#backoff(it, chance));
        return { state: "RETRYING", runAtMs: it.atMs };
      }
      case "returned":
      case "undelivered": {
        if (outcome.kind === "undelivered") this.#undo(id, it);
        const runAtMs = outcome.kind === "returned" ? this.#now + outcome.delayMs : it.aheadOfMs;
        it.state = runAtMs > this.#now ? "SCHEDULED" : "READY";
        it.atMs = runAtMs > this.#now ? runAtMs : 0;
        return runAtMs > this.#now ? { state: "SCHEDULED", runAtMs } : { state: "READY" };
      }
    }
  }

  /** It is as if it had not been reserved. */
  #undo(id: string, it: ModelJob): void {
    it.attempt -= 1;
    const { unique } = it.job;
    const isFree = unique?.until === "start" && this.#keeperOf(unique.key) === undefined;
    if (it.attempt === 0 && isFree) this.#takeKey(id, it.job, it.putAtMs);
  }

  #complete(id: string, it: ModelJob, result: Uint8Array): void {
    const retentionMs = it.job.retentionMs ?? this.settings.retentionMs ?? this.#defaults.retentionMs;
    it.state = "COMPLETED";
    it.atMs = this.#now + retentionMs;
    it.finishedAtMs = this.#now;
    it.reason = 0;
    it.outcome = result;
    this.events.push(`COMPLETED ${id}`);
    this.#count("completed");
    if (it.job.unique?.until !== "expiry") this.#freeKey(id, it);
    if (retentionMs === 0) this.jobs.delete(id);
  }

  #backoff(it: ModelJob, chance: number): number {
    const { initialBackoffMs, maxBackoffMs, multiplier, jitter, curve } = this.#retryOf(it);
    const n = it.failures;
    if (curve === "exq") {
      const said = it.job.retry?.maxBackoffMs ?? this.settings.retry?.maxBackoffMs ?? Number.POSITIVE_INFINITY;
      return Math.ceil(Math.min(said, (n ** 4 + 15 + chance * 30 * (n + 1)) * 1_000));
    }
    const most = Math.max(maxBackoffMs, initialBackoffMs);
    return Math.ceil(Math.min(most, initialBackoffMs * multiplier ** (n - 1)) * (1 - jitter * chance));
  }

  #retryOf(it: ModelJob): RetryPolicy {
    const layers = [this.#defaults.retry, this.settings.retry ?? {}, it.job.retry ?? {}];
    const said = layers.flatMap((policy) => Object.entries(policy)).filter(([, value]) => value !== undefined);
    return Object.fromEntries(said) as RetryPolicy;
  }

  #expire(id: string, it: ModelJob): void {
    this.#announceEnd(id, it, this.#now >= runEnds(it) ? "RUN_TIMEOUT" : "EXPIRED");
    it.hasSlot = false;
    it.failures += 1;
    it.outcome = new Uint8Array();
    it.reason = FAILURE_REASONS.LEASE_EXPIRED;
    if (it.failures >= this.#retryOf(it).maxAttempts) {
      this.#bury(id, it, FAILURE_REASONS.LEASE_EXPIRED);
    } else {
      it.state = "READY";
      it.atMs = 0;
    }
  }

  #bury(id: string, it: ModelJob, reason: number): void {
    it.state = "FAILED";
    it.hasSlot = false;
    it.atMs = this.#now;
    it.finishedAtMs = this.#now;
    it.reason = reason;
    this.events.push(`FAILED ${id}`);
    this.#count("failed");
    this.#freeKey(id, it);
  }

  #retryOne(id: string): RetryOutcome {
    const it = this.#present(id);
    if (!it) return { kind: "not found" };
    if (!isFinished(it)) return { kind: "not finished", state: it.state };
    const { unique, concurrency } = it.job;
    if (unique && (unique.until !== "start" || it.attempt === 0)) {
      const keeperId = this.#keeperOf(unique.key);
      if (keeperId !== undefined && keeperId !== id) {
        return { kind: "unique conflict", state: this.#stateOf(keeperId), keeperId };
      }
      this.#takeKey(id, it.job, it.putAtMs);
    }
    if (concurrency && !this.#isInUse(concurrency.key)) this.limits.set(concurrency.key, concurrency.limit);
    it.state = "READY";
    it.atMs = 0;
    it.failures = 0;
    it.reason = 0;
    it.finishedAtMs = 0;
    it.outcome = new Uint8Array();
    if (it.attempt === 0) {
      it.order = this.#tick();
      it.dueMs = this.#now;
    }
    return { kind: "retried" };
  }

  #delete(id: string, it: ModelJob): void {
    this.#announceEnd(id, it, "DELETED");
    this.#freeKey(id, it);
  }

  #announceEnd(id: string, it: ModelJob, reason: string): void {
    this.ends.push(`${reason} ${id} ${it.state === "RESERVED" ? it.fence : 0}`);
  }

  /** What is due only later, but until this time. */
  #dueBy(byMs: number): [string, ModelJob][] {
    return [...this.inState("SCHEDULED"), ...this.inState("RETRYING")]
      .filter(([, { atMs }]) => atMs <= byMs)
      .sort(([, a], [, b]) => a.atMs - b.atMs || JOB_STATES[a.state] - JOB_STATES[b.state]);
  }

  #findsSlot({ job, hasSlot }: ModelJob): boolean {
    if (!job.concurrency || hasSlot) return true;
    const { key } = job.concurrency;
    return this.#freeSlots(key) > 0 && !this.#some(key, ({ state }) => state === "HELD");
  }

  /** Held jobs come back, in order, as far as there are slots, which are kept for them. */
  #fillSlots(): void {
    for (const [, it] of this.inState("HELD")) {
      if (this.#freeSlots(it.job.concurrency?.key ?? "") <= 0) continue;
      it.state = "READY";
      it.hasSlot = true;
    }
  }

  #freeSlots(key: string): number {
    const taken = [...this.jobs.values()].filter(({ job, hasSlot }) => hasSlot && job.concurrency?.key === key).length;
    return (this.limits.get(key) ?? 0) - taken;
  }

  #isInUse(key: string): boolean {
    return this.#some(key, (it) => !isFinished(it));
  }

  #some(key: string, test: (it: ModelJob) => boolean): boolean {
    return [...this.jobs.values()].some((it) => it.job.concurrency?.key === key && test(it));
  }

  #keeperOf(key: string): string | undefined {
    const entry = this.uniqueKeys.get(key);
    return entry && entry.expiresAtMs > this.#now ? entry.id : undefined;
  }

  /** Of the job that keeps a key. One that is gone was COMPLETED, for it keeps its key. */
  #stateOf(keeperId: string): JobState {
    return this.jobs.get(keeperId)?.state ?? "COMPLETED";
  }

  #takeKey(id: string, { unique }: NewJob, putAtMs: number): void {
    if (!unique) return;
    const { key, expiresInMs = Number.POSITIVE_INFINITY } = unique;
    this.uniqueKeys.set(key, { id, expiresAtMs: putAtMs + expiresInMs });
  }

  #freeKey(id: string, { job }: ModelJob): void {
    if (job.unique && this.uniqueKeys.get(job.unique.key)?.id === id) this.uniqueKeys.delete(job.unique.key);
  }

  #count(name: string): void {
    const field = `${name}:${Math.floor(this.#now / MS_PER_DAY)}`;
    this.counters.set(field, (this.counters.get(field) ?? 0) + 1);
  }

  /** A completed job is there until the end of its retention. */
  #present(id: string): ModelJob | undefined {
    return this.#any(id, ({ state, atMs }) => state !== "COMPLETED" || atMs > this.#now);
  }

  #any(id: string, test: (it: ModelJob) => boolean): ModelJob | undefined {
    const it = this.jobs.get(id);
    return it && test(it) ? it : undefined;
  }

  #leaseRuns({ atMs }: ModelJob): boolean {
    return atMs > this.#now || this.settings.mode === "recoverable";
  }

  #tick(): number {
    this.#order = Math.max(this.#order + 1, (this.#now - EPOCH_MS) * TICKS_PER_MS);
    return this.#order;
  }
}

export function isFinished({ state }: ModelJob): boolean {
  return state === "COMPLETED" || state === "FAILED";
}

function hasRoom({ claim, got, isOutgrown }: OpenClaim): boolean {
  return got.length < claim.count && !isOutgrown;
}

/** One that it does not fit into gets no more: nothing is to overtake the job. */
function fits(to: OpenClaim, bytes: number): boolean {
  to.isOutgrown = bytes > to.bytesLeft && !to.takesAny;
  return !to.isOutgrown;
}

function runEnds({ job, reservedAtMs }: ModelJob): number {
  return reservedAtMs + (job.runTimeoutMs ?? Number.POSITIVE_INFINITY);
}

function compare(a: readonly (number | string)[], b: readonly (number | string)[]): number {
  for (const [i, x] of a.entries()) {
    const y = b[i] as typeof x;
    if (x !== y) return x < y ? -1 : 1;
  }
  return 0;
}
