/**
 * The leases that this broker keeps for its streams. While a stream lives they are renewed, all of one queue and
 * duration in one call; when it ends, they are made to run out a grace later, by which the ordinary expiry takes
 * care of the rest, even if this broker dies in between.
 */
import type { Lease, LeaseEnd } from "../model/job.ts";
import type { Logger } from "../model/log.ts";
import type { EndedLease } from "../store/lease-ends.ts";
import type { Extension } from "../store/store.ts";

/** Who has to know when a lease ends before its stream does. */
export type Holder = { onLeaseEnd(lease: Lease, reason: LeaseEnd): void };

type HeldLease = { readonly lease: Lease; readonly leaseMs: number; readonly holder: Holder; renewAt: number };

type Relinquished = { readonly queue: string; readonly leases: readonly Lease[]; readonly graceMs: number };

export type HeldLeasesOptions = {
  readonly extend: (queue: string, leases: readonly Lease[], leaseMs: number) => Promise<Extension>;
  /** A lease of this queue will run out so soon. */
  readonly onNextDue: (queue: string, inMs: number) => void;
  readonly log: Logger;
};

/** A renewal is due after a third of the lease; one that failed is tried again soon, as long as there is lease left. */
const RENEW_AFTER = 1 / 3;
const RETRY_AFTER = 1 / 10;
const RETRY_MOST_MS = 1_000;
/** How often the leases are looked through; the shortest lease of a stream is 1 s. */
const TICK_MS = 250;
/** Leases in one call: about 5 ms of Redis. */
const BATCH = 1_000;

export class HeldLeases {
  readonly #options: HeldLeasesOptions;
  readonly #queues = new Map<string, Map<number, HeldLease>>();
  /** What Redis could not be told yet: at most what the streams that ended meanwhile held. */
  readonly #relinquished: Relinquished[] = [];
  #timer: NodeJS.Timeout | undefined;
  #renewing: Promise<void> | undefined;

  constructor(options: HeldLeasesOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer ??= setInterval(() => {
      this.#renewing ??= this.#renew().finally(() => {
        this.#renewing = undefined;
      });
    }, TICK_MS);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await this.#renewing;
  }

  hold(lease: Lease, leaseMs: number, holder: Holder): void {
    let leases = this.#queues.get(lease.queue);
    if (!leases) {
      leases = new Map();
      this.#queues.set(lease.queue, leases);
    }
    leases.set(lease.fence, { lease, leaseMs, holder, renewAt: performance.now() + leaseMs * RENEW_AFTER });
  }

  has({ queue, fence }: Lease): boolean {
    return this.#queues.get(queue)?.has(fence) ?? false;
  }

  /** The lease is over: its holder is told, once. */
  onEnd({ queue, fence, reason }: Pick<EndedLease, "queue" | "fence" | "reason">): void {
    const held = this.#queues.get(queue)?.get(fence);
    if (!held) return;
    this.#forget(held.lease);
    held.holder.onLeaseEnd(held.lease, reason);
  }

  /** News of leases may have been missed: the next renewal, which finds out, is due at once. */
  renewAll(): void {
    for (const leases of this.#queues.values()) for (const held of leases.values()) held.renewAt = 0;
  }

  /** Keeps these leases no longer; somebody else sees to them. */
  forget(leases: readonly Lease[]): void {
    for (const lease of leases) this.#forget(lease);
  }

  /** Keeps these leases no longer: they run out after the grace, even if Redis has to be asked again and again for it. */
  async relinquish(leases: readonly Lease[], graceMs: number): Promise<void> {
    this.forget(leases);
    for (const [queue, group] of Map.groupBy(leases, ({ queue }) => queue)) {
      for (let i = 0; i < group.length; i += BATCH) {
        await this.#relinquishBatch({ queue, leases: group.slice(i, i + BATCH), graceMs });
      }
    }
  }

  async #relinquishBatch(batch: Relinquished): Promise<void> {
    const ends = await this.#extend(batch.queue, batch.leases, batch.graceMs);
    if (!ends) this.#relinquished.push(batch);
  }

  #forget({ queue, fence }: Lease): void {
    const leases = this.#queues.get(queue);
    leases?.delete(fence);
    if (leases?.size === 0) this.#queues.delete(queue);
  }

  async #renew(): Promise<void> {
    for (const batch of this.#relinquished.splice(0)) await this.#relinquishBatch(batch);
    const now = performance.now();
    for (const [queue, leases] of this.#queues) {
      const due = [...leases.values()].filter(({ renewAt }) => renewAt <= now);
      for (const [leaseMs, group] of Map.groupBy(due, ({ leaseMs }) => leaseMs)) {
        for (let i = 0; i < group.length; i += BATCH) {
          // Those relinquished while the batch before was on its way must not get a whole lease again.
          const batch = group.slice(i, i + BATCH).filter((held) => leases.get(held.lease.fence) === held);
          if (batch.length > 0) await this.#renewBatch(queue, batch, leaseMs);
        }
      }
    }
  }

  async #renewBatch(queue: string, batch: readonly HeldLease[], leaseMs: number): Promise<void> {
    const ends = await this.#extend(
      queue,
      batch.map(({ lease }) => lease),
      leaseMs,
    );
    const waitMs = ends ? leaseMs * RENEW_AFTER : Math.min(leaseMs * RETRY_AFTER, RETRY_MOST_MS);
    const renewAt = performance.now() + waitMs;
    for (const [i, held] of batch.entries()) {
      held.renewAt = renewAt;
      const end = ends?.[i];
      if (typeof end === "string") this.onEnd({ ...held.lease, reason: end });
    }
  }

  /** undefined when Redis did not answer: the next renewal, or the lease's end, settles it. */
  async #extend(queue: string, leases: readonly Lease[], leaseMs: number) {
    try {
      const { ends, nextDueMs } = await this.#options.extend(queue, leases, leaseMs);
      if (nextDueMs !== undefined) this.#options.onNextDue(queue, nextDueMs);
      return ends;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#options.log.warn("leases not extended", { queue, leases: leases.length, error: message });
      return undefined;
    }
  }
}
