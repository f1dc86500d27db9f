/** The bounds of requests that are settings of the broker; the others stand where they are checked. */
export type Limits = {
  readonly maxPayloadBytes: number;
  readonly maxHeaders: number;
  readonly maxHeaderBytes: number;
  readonly maxBatch: number;
  readonly maxQueues: number;
  readonly maxWaitMs: number;
  readonly maxAwaitMs: number;
  readonly maxOutstanding: number;
};
