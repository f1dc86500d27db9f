/** What a workload is, and what it measures. */

/** What a workload runs against: a broker with a Redis of its own, both fresh, each in its own process. */
export type Stage = {
  readonly broker: { readonly address: string; readonly pid: number };
  readonly redis: { readonly socketPath: string; readonly pid: number };
  /** A run of about two minutes in all: fewer and shorter rounds. */
  readonly short: boolean;
};

export type Unit =
  | "jobs/s"
  | "ratio"
  | "ms"
  | "µs/job"
  | "bytes/job"
  | "bytes/stream"
  | "% of a core"
  | "calls"
  | "connections";

export type Goal = { readonly atLeast: number } | { readonly atMost: number };

/** One figure, as it came out in each round. What is told is the median. */
export type Figure = {
  readonly name: string;
  readonly unit: Unit;
  readonly rounds: readonly number[];
  readonly goal?: Goal;
};

export type Workload = {
  /** What is measured, in one line. */
  readonly title: string;
  /** Runs in a process of its own, which is the client. */
  run(stage: Stage): Promise<Figure[]>;
};
