/** What the rooms tell each other of queues. */
import type { OwnRetryPolicy, RetryPolicy } from "./job.ts";
import type { JobState } from "./states.ts";

/** proto, QueueMode. */
export type QueueMode = "reliable" | "recoverable" | "simple";

/** What a queue sets for itself; what is not set is the broker's default. proto, QueueSettings. */
export type QueueSettings = {
  readonly paused: boolean;
  readonly mode?: QueueMode | undefined;
  readonly leaseMs?: number | undefined;
  readonly retentionMs?: number | undefined;
  readonly retry?: OwnRetryPolicy | undefined;
  readonly deadLetterMax?: number | undefined;
  readonly deadLetterAgeMs?: number | undefined;
  readonly historyMaxEvents?: number | undefined;
};

/** What the broker sets for queues that don't, from its own settings. */
export type QueueDefaults = {
  readonly leaseMs: number;
  readonly retentionMs: number;
  readonly retry: RetryPolicy;
  readonly deadLetterMax: number;
  readonly deadLetterAgeMs: number;
  readonly historyMaxEvents: number;
};

/** What changes: null goes back to the broker's default. */
export type QueueChange = {
  readonly [K in Exclude<keyof QueueSettings, "retry">]?: QueueSettings[K] | null;
} & { readonly retry?: { readonly [K in keyof OwnRetryPolicy]: OwnRetryPolicy[K] | null } };

export type Counters = {
  readonly put: number;
  readonly completed: number;
  readonly failed: number;
  readonly pulled: number;
};

export type QueueView = {
  readonly counts: Readonly<Record<JobState, number>>;
  readonly oldestReadyMs: number | undefined;
  readonly totals: Counters;
  /** The newest first; `date` such as 2026-11-21, UTC. */
  readonly days: readonly { readonly date: string; readonly counters: Counters }[];
  /** Jobs per second. */
  readonly rates: { readonly put: number; readonly completed: number; readonly failed: number };
  readonly settings: QueueSettings;
  readonly setAside: number;
};
