/**
 * The life cycle in memory, as plainly as it can be said: what the Lua scripts are held against. It knows one queue,
 * works on plain objects, and takes one verb at a time.
 */
import {
  DEFAULT_LEASE_MS,
  DEFAULT_RETRY,
  type NewJob,
  type Outcome,
  type PutOutcome,
  type Released,
} from "../../../src/model/job.ts";
import type { JobState } from "../../../src/model/states.ts";

const EPOCH_MS = Date.UTC(2026, 0, 1);
const TICKS_PER_MS = 256;

export type ModelJob = {
  readonly job: NewJob;
  readonly nonce: number;
  readonly putAtMs: number;
  /** Since when it may run. */
  readonly dueMs: number;
  /** Of its put: scheduled jobs of one due time become ready in the order of their puts. */
  readonly inserted: number;
  state: JobState;
  order: number;
  atMs: number;
  attempt: number;
  failures: number;
  fence: number;
  worker: string;
  reservedAtMs: number;
  released: Released | undefined;
};

export type ModelLease = { readonly id: string; readonly fence: number };

export class LifeCycle {
  readonly jobs = new Map<string, ModelJob>();
  /** Every completion event that must have been published, in order. */
  readonly events: string[] = [];
  readonly #retentionMs: number;
  #now: number;
  #order = 0;
  #dueOrder = 0;

  constructor(now: number, retentionMs: number) {
    this.#now = now;
    this.#retentionMs = retentionMs;
  }

  get now(): number {
    return this.#now;
  }

  pass(ms: number): void {
    this.#now += ms;
  }

  put(jobs: readonly NewJob[], nonce: number): PutOutcome[] {
    if (jobs.some(({ id }) => this.#leaseIsOver(id))) this.moveDue();
    return jobs.map((job, i) => this.#putOne(job, nonce + i + 1));
  }

  reserve(count: number, leaseMs: number, worker: string): { leases: ModelLease[]; remaining: boolean } {
    this.moveDue();
    const leases: ModelLease[] = [];
    for (const [id, it] of this.ready().slice(0, count)) {
      const { expiresInMs, runTimeoutMs = Number.POSITIVE_INFINITY } = it.job;
      if (it.attempt === 0 && expiresInMs !== undefined && this.#now >= it.dueMs + expiresInMs) {
        this.#fail(id, it);
        continue;
      }
      const lease = leaseMs || it.job.leaseMs || DEFAULT_LEASE_MS;
      it.state = "RESERVED";
      it.attempt += 1;
      it.fence = this.#tick();
      it.worker = worker;
      it.reservedAtMs = this.#now;
      it.released = undefined;
      it.atMs = this.#now + Math.min(lease, runTimeoutMs);
      leases.push({ id, fence: it.fence });
    }
    return { leases, remaining: this.ready().length > 0 };
  }

  release({ id, fence }: ModelLease, outcome: Outcome, chance: number): Released | undefined {
    const it = this.#present(id);
    if (!it || it.fence !== fence) return undefined;
    if (it.state !== "RESERVED" || it.atMs <= this.#now) return it.released;
    it.released = this.#end(id, it, outcome, chance);
    return it.released;
  }

  extend({ id, fence }: ModelLease, leaseMs: number): number | undefined {
    const it = this.jobs.get(id);
    if (!it || it.fence !== fence || it.state !== "RESERVED" || it.atMs <= this.#now) return undefined;
    const { runTimeoutMs = Number.POSITIVE_INFINITY } = it.job;
    it.atMs = Math.min(this.#now + leaseMs, it.reservedAtMs + runTimeoutMs);
    return it.atMs;
  }

  delete(id: string): JobState | undefined {
    this.moveDue();
    const state = this.#present(id)?.state;
    this.jobs.delete(id);
    return state;
  }

  get(id: string): ModelJob | undefined {
    this.moveDue();
    return this.#present(id);
  }

  sweep(): void {
    this.moveDue();
    for (const id of [...this.jobs.keys()]) if (!this.#present(id)) this.jobs.delete(id);
  }

  /** READY jobs, the next one first. */
  ready(): [string, ModelJob][] {
    return [...this.jobs]
      .filter(([, { state }]) => state === "READY")
      .sort(([idA, a], [idB, b]) => b.job.priority - a.job.priority || a.order - b.order || (idA < idB ? -1 : 1));
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
    for (const [id, it] of due) if (it.state === "RESERVED") this.#expire(id, it);
  }

  #putOne(job: NewJob, nonce: number): PutOutcome {
    const there = this.#present(job.id);
    if (there && there.nonce !== nonce) {
      const { state } = there;
      if (job.conflict === "keep") return { kind: "kept", state };
      const finished = state === "COMPLETED" || state === "FAILED";
      if (!finished && (job.conflict === "reject" || state === "RESERVED")) return { kind: "conflict", state };
    } else if (there) {
      return { kind: "created", state: there.state };
    }
    const dueMs = job.runAtMs ?? this.#now + (job.delayMs ?? 0);
    const waits = dueMs > this.#now;
    const order = this.#tick();
    const state = waits ? "SCHEDULED" : "READY";
    this.jobs.set(job.id, {
      job,
      nonce,
      putAtMs: this.#now,
      dueMs: waits ? dueMs : this.#now,
      inserted: order,
      state,
      order,
      atMs: waits ? dueMs : 0,
      attempt: 0,
      failures: 0,
      fence: 0,
      worker: "",
      reservedAtMs: 0,
      released: undefined,
    });
    return { kind: "created", state };
  }

  #end(id: string, it: ModelJob, outcome: Outcome, chance: number): Released {
    switch (outcome.kind) {
      case "completed": {
        const retentionMs = it.job.retentionMs ?? this.#retentionMs;
        it.state = "COMPLETED";
        it.atMs = this.#now + retentionMs;
        this.events.push(`COMPLETED ${id}`);
        if (retentionMs === 0) this.jobs.delete(id);
        return { state: "COMPLETED" };
      }
      case "failed": {
        it.failures += 1;
        const { maxAttempts, initialBackoffMs, maxBackoffMs, multiplier, jitter } = it.job.retry ?? DEFAULT_RETRY;
        if (outcome.permanent || it.failures >= maxAttempts) {
          this.#fail(id, it);
          return { state: "FAILED" };
        }
        const wait = initialBackoffMs && Math.min(maxBackoffMs, initialBackoffMs * multiplier ** (it.failures - 1));
        it.state = "RETRYING";
        it.atMs = this.#now + (outcome.retryAfterMs ?? Math.ceil(wait * (1 - jitter * chance)));
        return { state: "RETRYING", runAtMs: it.atMs };
      }
      case "returned":
      case "undelivered": {
        if (outcome.kind === "undelivered") it.attempt -= 1;
        const delayMs = outcome.kind === "returned" ? outcome.delayMs : 0;
        it.state = delayMs > 0 ? "SCHEDULED" : "READY";
        it.atMs = delayMs > 0 ? this.#now + delayMs : 0;
        return delayMs > 0 ? { state: "SCHEDULED", runAtMs: it.atMs } : { state: "READY" };
      }
    }
  }

  #expire(id: string, it: ModelJob): void {
    it.failures += 1;
    const { maxAttempts } = it.job.retry ?? DEFAULT_RETRY;
    if (it.failures >= maxAttempts) {
      this.#fail(id, it);
    } else {
      it.state = "READY";
      it.atMs = 0;
    }
  }

  #fail(id: string, it: ModelJob): void {
    it.state = "FAILED";
    it.atMs = this.#now;
    this.events.push(`FAILED ${id}`);
  }

  /** A completed job is there until the end of its retention. */
  #present(id: string): ModelJob | undefined {
    const it = this.jobs.get(id);
    return it?.state === "COMPLETED" && it.atMs <= this.#now ? undefined : it;
  }

  #leaseIsOver(id: string): boolean {
    const it = this.jobs.get(id);
    return it?.state === "RESERVED" && it.atMs <= this.#now;
  }

  #tick(): number {
    this.#order = Math.max(this.#order + 1, (this.#now - EPOCH_MS) * TICKS_PER_MS);
    return this.#order;
  }
}
