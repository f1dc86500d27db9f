/**
 * Keeps the leases of jobs whose stream has ended, while their handlers still run.
 *
 * A broker extends the leases that it handed out on a stream for as long as the stream lives, and lets them end
 * `disconnect_grace` after it. A worker that lives on, because only its connection broke or its broker shut down,
 * presents its tokens with Extend: at once, and then often enough to come before the end of the grace, which the
 * broker may begin to count later than the worker does. A lease that a broker says is lost is lost; where no broker
 * answers, it counts as lost when the last time that one promised has passed.
 */
import type { BatonClient } from "./client.ts";

const LEAST_PERIOD_MS = 100;
const MOST_PERIOD_MS = 10_000;
/** The contract's limit on the tokens of one Extend. */
const BATCH_LIMIT = 1_000;

type Kept = { readonly graceMs: number; readonly leaseMs: number; aliveUntil: number };

export type LostLease = { readonly leaseToken: string; readonly reason: "LEASE_LOST" | "DISCONNECTED" };

export class LeaseKeeper {
  readonly #client: BatonClient;
  readonly #onLost: (lost: LostLease) => void;
  /** At most one for each job that the worker holds. */
  readonly #kept = new Map<string, Kept>();
  #timer: NodeJS.Timeout | undefined;
  #working = false;
  /** A lease has come while others were being extended, for which it must not wait any longer. */
  #hasNew = false;

  constructor(client: BatonClient, onLost: (lost: LostLease) => void) {
    this.#client = client;
    this.#onLost = onLost;
  }

  add(leaseToken: string, { graceMs, leaseMs }: { readonly graceMs: number; readonly leaseMs: number }): void {
    this.#kept.set(leaseToken, { graceMs, leaseMs, aliveUntil: performance.now() + graceMs });
    if (this.#working) this.#hasNew = true;
    else this.#schedule(0);
  }

  has(leaseToken: string): boolean {
    return this.#kept.has(leaseToken);
  }

  delete(leaseToken: string): void {
    this.#kept.delete(leaseToken);
    if (this.#kept.size === 0) clearTimeout(this.#timer);
  }

  #schedule(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#extendAll(), ms);
  }

  async #extendAll(): Promise<void> {
    this.#working = true;
    this.#hasNew = false;
    try {
      for (const [leaseMs, tokens] of this.#byLease()) {
        for (let start = 0; start < tokens.length; start += BATCH_LIMIT) {
          await this.#extend(tokens.slice(start, start + BATCH_LIMIT), leaseMs);
        }
      }
    } finally {
      this.#working = false;
    }
    for (const [leaseToken, { aliveUntil }] of this.#kept) {
      if (aliveUntil <= performance.now()) this.#lose({ leaseToken, reason: "DISCONNECTED" });
    }
    if (this.#kept.size > 0) this.#schedule(this.#hasNew ? 0 : this.#periodMs());
  }

  async #extend(leaseTokens: string[], leaseMs: number): Promise<void> {
    const sentAt = performance.now();
    try {
      // No longer than a period, so that one answer that does not come costs one turn and not the lease.
      const results = await this.#client.extend(leaseTokens, {
        leaseMs,
        deadlineMs: this.#periodMs(),
      });
      for (const [index, leaseToken] of leaseTokens.entries()) {
        const result = results[index];
        const kept = this.#kept.get(leaseToken);
        if (kept === undefined || result === undefined) continue;
        if (result.ok) kept.aliveUntil = sentAt + leaseMs;
        else if (result.error.reason === "LEASE_LOST") this.#lose({ leaseToken, reason: "LEASE_LOST" });
      }
    } catch {
      // No answer: the next turn tries again, and `aliveUntil` says when that is of no use any more.
    }
  }

  #lose(lost: LostLease): void {
    this.#kept.delete(lost.leaseToken);
    this.#onLost(lost);
  }

  /** Half of the grace, so that there is a second chance in it. */
  #periodMs(): number {
    let least = MOST_PERIOD_MS;
    for (const { graceMs, leaseMs } of this.#kept.values()) least = Math.min(least, graceMs / 2, leaseMs / 3);
    return Math.max(LEAST_PERIOD_MS, least);
  }

  #byLease(): Map<number, string[]> {
    return Map.groupBy(this.#kept.keys(), (leaseToken) => this.#kept.get(leaseToken)?.leaseMs ?? 0);
  }
}
