/**
 * The leases that this broker keeps for its streams. While a stream lives they are renewed, all of one queue and
 * duration in one call; when it ends, they are made to run out a grace later, by which the ordinary expiry takes
 * care of the rest, even if this broker dies in between.
 *
 * A worker that lost its connection resumes its jobs on another stream, here or at another broker, maybe before this one
 * knows that the connection is dead. So each lease is kept in the name of one stream (lua/extend.lua): a stream that takes
 * it over keeps it by a number of its own, and what the first one still asks for is refused, and so found out.
 */
import { randomInt } from "node:crypto";
import { type Lease, type LeaseEnd, NO_LEASE } from "../model/job.ts";
import type { Logger } from "../model/log.ts";
import type { EndedLease } from "../store/lease-ends.ts";
import type { Extension, KeptLease } from "../store/store.ts";

/** Who has to know when a lease ends before its stream does. */
export type Holder = { onLeaseEnd(lease: Lease, reason: LeaseEnd): void };

/** `bytes`: how many the job has. `turn`: in which order leases were taken over by this broker; not set: before all. */
export type SizedLease = Lease & { readonly bytes: number; readonly turn?: number };

/** What came of taking leases over: those that run are to be held by this number. */
export type TakenOver = {
  readonly number: number;
  readonly kept: readonly SizedLease[];
  readonly lost: readonly { readonly lease: Lease; readonly reason: "EXPIRED" | "RUN_TIMEOUT" }[];
};

type HeldLease = {
  readonly lease: Lease;
  readonly leaseMs: number;
  readonly holder: Holder;
  /** In whose name it is kept: of a stream that took it over that stream's number, else 0. */
  readonly number: number;
  readonly turn: number;
  /** Infinity while a renewal is on its way. */
  renewAt: number;
};

type Relinquished = { readonly queue: string; readonly leases: readonly KeptLease[]; readonly graceMs: number };

type EndOfLease = Pick<EndedLease, "queue" | "fence" | "reason" | "holder">;

export type HeldLeasesOptions = {
  readonly extend: (
    queue: string,
    leases: readonly KeptLease[],
    leaseMs: number,
    options: { readonly takeOver?: boolean; readonly renew?: boolean },
  ) => Promise<Extension>;
  /** A lease of this queue will run out so soon. */
  readonly onNextDue: (queue: string, inMs: number) => void;
  readonly log: Logger;
};

/** A renewal is due after a third of the lease; one that failed is tried again soon, as long as there is lease left. */
const RENEW_AFTER = 1 / 3;
const RETRY_AFTER = 1 / 10;
const RETRY_MOST_MS = 1_000;
/** What happened to a lease while it was taken over went unheard here. */
const FIRST_RENEWAL_MOST_MS = 1_000;
/** What 6 bytes hold, as the scripts keep it. */
const NUMBER_LIMIT = 2 ** 48 - 1;
/** How often the leases are looked through; the shortest lease of a stream is 1 s. */
const TICK_MS = 250;
/** Leases in one call: about 5 ms of Redis. */
const BATCH = 1_000;
/** Ends of leases that are remembered: it is a matter of milliseconds until such a lease is here. */
const MOST_ENDED_EARLY = 1_000;

export class HeldLeases {
  readonly #options: HeldLeasesOptions;
  readonly #queues = new Map<string, Map<number, HeldLease>>();
  /**
   * queue → duration → when those leases are renewed next: all together, also those that came a moment ago, so that a
   * round costs one call for each 1,000 leases, however they came. (One call for 10,000 keeps Redis from everybody
   * else for 168 ms at best; ten of 1,000 take 5 ms each.)
   */
  readonly #rounds = new Map<string, Map<number, number>>();
  #turn = 0;
  /**
   * How leases ended that nobody keeps here, the last at the end: such news comes on another connection than the lease
   * itself, and may be quicker.
   */
  readonly #endedEarly = new Map<string, LeaseEnd>();
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

  /**
   * From now on the lease is kept for this holder, and for no other, unless another has taken it over in a later turn: then
   * that keeps it, and this one is told so. `number`: by which it was taken over.
   */
  hold(lease: Lease & { readonly turn?: number }, leaseMs: number, holder: Holder, number = 0): void {
    const { queue, fence } = lease;
    let leases = this.#queues.get(queue);
    if (!leases) {
      leases = new Map();
      this.#queues.set(queue, leases);
    }
    const before = number === 0 ? undefined : leases.get(fence);
    if (before && lease.turn !== undefined && before.turn > lease.turn) {
      holder.onLeaseEnd(lease, "RESUMED");
      return;
    }
    const now = performance.now();
    const renewAt = number === 0 ? this.#nextRound(queue, leaseMs, now) : now + firstRenewalMs(leaseMs);
    const held = { lease, leaseMs, holder, number, turn: lease.turn ?? 0, renewAt };
    leases.set(fence, held);
    before?.holder.onLeaseEnd(before.lease, "RESUMED");
    const ended = this.#endedEarly.size > 0 ? this.#endedEarly.get(nameOf(lease)) : undefined;
    if (ended) this.#end(held, ended);
  }

  /** Takes over leases that another stream kept, here or at another broker. Throws when Redis does not answer. */
  async takeOver(leases: readonly Lease[], leaseMs: number): Promise<TakenOver> {
    const number = randomInt(1, NUMBER_LIMIT);
    const kept: SizedLease[] = [];
    const lost: TakenOver["lost"][number][] = [];
    for (const [queue, group] of Map.groupBy(leases, ({ queue }) => queue)) {
      for (let i = 0; i < group.length; i += BATCH) {
        const batch = group.slice(i, i + BATCH);
        const named = batch.map((lease) => ({ ...lease, holder: number }));
        const { ends, bytes, nextDueMs } = await this.#options.extend(queue, named, leaseMs, { takeOver: true });
        if (nextDueMs !== undefined) this.#options.onNextDue(queue, nextDueMs);
        // Redis answers in the order in which it did it; who is done first with all its queues is another matter.
        this.#turn += 1;
        const turn = this.#turn;
        for (const [n, lease] of batch.entries()) {
          const end = ends[n];
          if (typeof end === "number") kept.push({ ...lease, bytes: bytes[n] ?? 0, turn });
          else lost.push({ lease, reason: end === "RUN_TIMEOUT" ? end : "EXPIRED" });
        }
      }
    }
    return { number, kept, lost };
  }

  has({ queue, fence }: Lease): boolean {
    return this.#queues.get(queue)?.has(fence) ?? false;
  }

  /** The worker has released it, by this broker: its holder is told. */
  onReleased({ queue, fence }: Lease): void {
    const leases = this.#queues.get(queue);
    const held = leases?.get(fence);
    if (!leases || !held) return;
    leases.delete(fence);
    if (leases.size === 0) this.#queues.delete(queue);
    held.holder.onLeaseEnd(held.lease, "RELEASED");
  }

  /** The lease is over: its holder is told, once. */
  onEnd({ queue, fence, reason, holder }: EndOfLease): void {
    const held = this.#queues.get(queue)?.get(fence);
    if (!held) {
      if (fence !== NO_LEASE && reason !== "RESUMED" && reason !== "RELEASED")
        this.#rememberEnd({ queue, fence }, reason);
      return;
    }
    // The news may be older than what this broker knows; the next renewal finds out.
    if (reason !== "RESUMED") this.#end(held, reason);
    else if (held.number !== holder) held.renewAt = 0;
  }

  /** Its worker has it end so long from now: the next renewal, which never makes a lease shorter, must not come later. */
  onExtended({ queue, fence }: Lease, leaseMs: number): void {
    const held = this.#queues.get(queue)?.get(fence);
    if (held && leaseMs < held.leaseMs) held.renewAt = 0;
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
    // Those that another stream keeps now are no longer this one's to give up.
    const kept = leases.flatMap((lease) => {
      const held = this.#heldBy(lease);
      return held ? [keptBy(held)] : [];
    });
    this.forget(leases);
    await this.#relinquishAll(kept, graceMs);
  }

  /** Likewise, where leases were taken over for a stream that does not come to be. */
  async abandon({ number, kept }: TakenOver, graceMs: number): Promise<void> {
    const named = kept.map(({ queue, id, fence }) => ({ queue, id, fence, holder: number }));
    await this.#relinquishAll(named, graceMs);
  }

  async #relinquishAll(leases: readonly KeptLease[], graceMs: number): Promise<void> {
    for (const [queue, group] of Map.groupBy(leases, ({ queue }) => queue)) {
      for (let i = 0; i < group.length; i += BATCH) {
        await this.#relinquishBatch({ queue, leases: group.slice(i, i + BATCH), graceMs });
      }
    }
  }

  async #relinquishBatch(batch: Relinquished): Promise<void> {
    const ends = await this.#extend(batch.queue, batch.leases, batch.graceMs, {});
    if (!ends) this.#relinquished.push(batch);
  }

  #end(held: HeldLease, reason: LeaseEnd): void {
    this.#forget(held.lease);
    held.holder.onLeaseEnd(held.lease, reason);
  }

  #rememberEnd(lease: Pick<Lease, "queue" | "fence">, reason: LeaseEnd): void {
    this.#endedEarly.set(nameOf(lease), reason);
    if (this.#endedEarly.size <= MOST_ENDED_EARLY) return;
    const [oldest] = this.#endedEarly.keys();
    if (oldest !== undefined) this.#endedEarly.delete(oldest);
  }

  /** Undefined when another holder keeps it: each holder has lease objects of its own. */
  #heldBy(lease: Lease): HeldLease | undefined {
    const held = this.#queues.get(lease.queue)?.get(lease.fence);
    return held?.lease === lease ? held : undefined;
  }

  /** A new one begins where there is none under way. */
  #nextRound(queue: string, leaseMs: number, now: number): number {
    let rounds = this.#rounds.get(queue);
    if (!rounds) {
      rounds = new Map();
      this.#rounds.set(queue, rounds);
    }
    const next = rounds.get(leaseMs) ?? 0;
    if (next > now) return next;
    const begun = now + leaseMs * RENEW_AFTER;
    rounds.set(leaseMs, begun);
    return begun;
  }

  #forget(lease: Lease): void {
    const leases = this.#queues.get(lease.queue);
    if (!leases || !this.#heldBy(lease)) return;
    leases.delete(lease.fence);
    if (leases.size === 0) this.#queues.delete(lease.queue);
  }

  /** Those of queues of which nothing is held any more. */
  #forgetRounds(now: number): void {
    for (const [queue, rounds] of this.#rounds) {
      for (const [leaseMs, next] of rounds) if (next <= now) rounds.delete(leaseMs);
      if (rounds.size === 0) this.#rounds.delete(queue);
    }
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
    this.#forgetRounds(now);
  }

  async #renewBatch(queue: string, batch: readonly HeldLease[], leaseMs: number): Promise<void> {
    for (const held of batch) held.renewAt = Number.POSITIVE_INFINITY;
    const ends = await this.#extend(queue, batch.map(keptBy), leaseMs, { renew: true });
    const now = performance.now();
    const renewAt = ends ? this.#nextRound(queue, leaseMs, now) : now + Math.min(leaseMs * RETRY_AFTER, RETRY_MOST_MS);
    for (const [i, held] of batch.entries()) {
      // Else something has happened to it meanwhile, after which it is to be renewed at once.
      if (held.renewAt === Number.POSITIVE_INFINITY) held.renewAt = renewAt;
      const end = ends?.[i];
      if (typeof end === "string" && this.#heldBy(held.lease)) this.#end(held, end);
    }
  }

  /** undefined when Redis did not answer: the next renewal, or the lease's end, settles it. */
  async #extend(queue: string, leases: readonly KeptLease[], leaseMs: number, options: { readonly renew?: boolean }) {
    try {
      const { ends, nextDueMs } = await this.#options.extend(queue, leases, leaseMs, options);
      if (nextDueMs !== undefined) this.#options.onNextDue(queue, nextDueMs);
      return ends;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#options.log.warn("leases not extended", { queue, leases: leases.length, error: message });
      return undefined;
    }
  }
}

function nameOf({ queue, fence }: Pick<Lease, "queue" | "fence">): string {
  return `${fence} ${queue}`;
}

function firstRenewalMs(leaseMs: number): number {
  return Math.min(leaseMs * RENEW_AFTER, FIRST_RENEWAL_MOST_MS);
}

function keptBy({ lease: { queue, id, fence }, number }: HeldLease): KeptLease {
  return { queue, id, fence, holder: number };
}
