/** What a Worker is told when it is made. */
import type { Handler } from "./handler.ts";
import type { Outcome, QueueInput } from "./input.ts";
import type { ReleaseResult, ReservedJob } from "./output.ts";

/** What an error belongs to. */
export type WorkerErrorContext = {
  /**
   * stream: it is replaced. release: the outcome was not accepted, or not yet: where no broker answers, it is repeated for
   * as long as the worker runs. handler: it threw what it was not made to throw. progress: a report was not stored, though
   * its job is still this worker's.
   */
  readonly during: "stream" | "release" | "handler" | "progress";
  readonly job?: ReservedJob | undefined;
};

export type WorkerOptions = {
  readonly queues: readonly QueueInput[];
  readonly handler: Handler;
  /** How many jobs are run at once; default 1. */
  readonly concurrency?: number | undefined;
  /** How many bytes the jobs in hand may have together; at least 3.5 MiB. Default: any number. */
  readonly maxOutstandingBytes?: number | undefined;
  /** STRICT (default) or WEIGHTED: see QueueInput. */
  readonly policy?: "STRICT" | "WEIGHTED" | undefined;
  /** Who takes the jobs, for people. Default: host and process id. */
  readonly workerId?: string | undefined;
  /** After a broker's sudden death, so long until its jobs return; default 30 s. */
  readonly leaseMs?: number | undefined;
  /** After this worker's sudden death, so long until its jobs go to others; default 2 s. */
  readonly disconnectGraceMs?: number | undefined;
  /** Stop by itself after so many jobs. Default: never. */
  readonly maxJobs?: number | undefined;
  /** How long `stop` lets handlers finish; default 30 s. */
  readonly stopTimeoutMs?: number | undefined;
  /** The longest wait before a lost stream is opened again; default 5 s. */
  readonly maxReconnectDelayMs?: number | undefined;
  /** A stream on which nothing comes for so long is taken for lost; default 60 s, three of the broker's keepalives. */
  readonly silenceLimitMs?: number | undefined;
  /** Told of what went wrong; the worker goes on. Default: a process warning, except for handlers. */
  readonly onError?: ((error: unknown, context: WorkerErrorContext) => void) | undefined;
  /** Told of every reservation that this worker has ended. */
  readonly onReleased?: ((job: ReservedJob, outcome: Outcome, result: ReleaseResult) => void) | undefined;
};
