/** Somebody who waits for jobs, as the hub sees them: a Reserve call or a stream. */
import type { LeasedJob } from "../model/job.ts";
import type { ByteBudget } from "../store/store.ts";

/** A queue that a consumer takes jobs from; `weight` counts under policy "weighted" only. */
export type QueueShare = { readonly name: string; readonly weight: number };

export type QueuePolicy = "strict" | "weighted";

/** "pull": the jobs are forgotten as they are handed out. */
export type DeliveryMode = "lease" | "pull";

export type Consumer = {
  readonly queues: readonly QueueShare[];
  readonly policy: QueuePolicy;
  readonly workerId: string;
  /** 0: as each job says. */
  readonly leaseMs: number;
  /** Takes also what is due only later, until then, when nothing is READY. */
  readonly availableByMs?: number | undefined;
  /** Has to have asked at each of its queues: to know that it missed, or to take what is due only later. */
  readonly asksItself: boolean;
  /** How many more jobs it can take now. */
  capacity(): number;
  /** How many bytes these may have together; undefined: any. */
  byteBudget(): ByteBudget | undefined;
  /** The next job for it has more bytes than that, so there was none, or no more. */
  outgrown(): void;
  /**
   * At least one job, and never more than its capacity was when the hub asked. `pull`: their queue is of mode SIMPLE, so
   * they are to be forgotten as they are handed out.
   */
  deliver(jobs: readonly LeasedJob[], pull: boolean): void;
  /** The queue was looked into for this consumer, and had less than it can take. */
  missed(queue: string): void;
  /** Redis could not be asked. The hub asks again; who does not want to wait for that leaves. */
  failed(error: unknown): void;
};
