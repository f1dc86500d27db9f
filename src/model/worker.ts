/** A worker as it is listed: one of its streams, or all its Reserve calls. Times are ms since 1970 by Redis's clock. */
export type WorkerView = {
  readonly workerId: string;
  readonly host: string;
  readonly language: string;
  readonly queues: readonly string[];
  readonly jobsInHand: number;
  readonly connectedAtMs: number;
  readonly lastSeenMs: number;
  /** It is to get no jobs. */
  readonly quiet: boolean;
  readonly streaming: boolean;
  readonly brokerId: string;
};
