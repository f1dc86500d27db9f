/**
 * What workers report of their progress, on its way to Redis: every 100 ms at most, all of one queue in one call, and of
 * the reports of one job the last. So a worker that reports in a tight loop costs no more than ten writes a second, and a
 * report that comes alone is written at once.
 */
import { type Lease, NO_LEASE, type Progress } from "../model/job.ts";
import type { ProgressReport, Store } from "../store/store.ts";

/** The contract says: at most 10 a second for each job. */
const INTERVAL_MS = 100;
/** Reports in one call: about 5 ms of Redis. */
const BATCH = 1_000;

type Pending = {
  readonly lease: Lease;
  progress: Progress;
  readonly settled: PromiseWithResolvers<boolean>;
};

export class ProgressReports {
  readonly #store: Pick<Store, "reportProgress">;
  /** queue → reservation → the last report; no more of them than there are callers who wait for an answer. */
  #pending = new Map<string, Map<string, Pending>>();
  #timer: NodeJS.Timeout | undefined;
  #writtenAt = Number.NEGATIVE_INFINITY;
  #writing = Promise.resolve();

  constructor(store: Pick<Store, "reportProgress">) {
    this.#store = store;
  }

  /** Whether it was stored, or has been followed by one that was; false: the lease is lost. Rejects when Redis fails. */
  report(lease: Lease, progress: Progress): Promise<boolean> {
    if (lease.fence === NO_LEASE) return Promise.resolve(false);
    let reports = this.#pending.get(lease.queue);
    if (!reports) {
      reports = new Map();
      this.#pending.set(lease.queue, reports);
    }
    const key = `${lease.fence} ${lease.id}`;
    const pending = reports.get(key);
    if (pending) {
      pending.progress = progress;
      return pending.settled.promise;
    }
    const settled = Promise.withResolvers<boolean>();
    reports.set(key, { lease, progress, settled });
    this.#timer ??= setTimeout(() => this.#write(), Math.max(0, this.#writtenAt + INTERVAL_MS - performance.now()));
    return settled.promise;
  }

  /** Writes what is left. Safe to call twice. */
  async stop(): Promise<void> {
    this.#write();
    await this.#writing;
  }

  #write(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writtenAt = performance.now();
    const pending = this.#pending;
    this.#pending = new Map();
    const writes = [...pending].map(([queue, reports]) => this.#writeQueue(queue, [...reports.values()]));
    // Without what they resolve with: else each would keep that of the one before, and so of all.
    this.#writing = Promise.all([this.#writing, ...writes]).then(() => undefined);
  }

  async #writeQueue(queue: string, reports: readonly Pending[]): Promise<void> {
    for (let i = 0; i < reports.length; i += BATCH) await this.#writeBatch(queue, reports.slice(i, i + BATCH));
  }

  /** Never rejects: its callers hear of it. */
  async #writeBatch(queue: string, batch: readonly (Pending & ProgressReport)[]): Promise<void> {
    try {
      const stored = await this.#store.reportProgress(queue, batch);
      for (const [i, { settled }] of batch.entries()) settled.resolve(stored[i] === true);
    } catch (error) {
      for (const { settled } of batch) settled.reject(error);
    }
  }
}
