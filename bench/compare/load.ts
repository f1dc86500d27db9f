/** The load that all comparisons share. */
import type { Load } from "../systems/system.ts";

/** So that a system never waits for the next batch, and no caller waits long for its own. */
export const BATCHES: Pick<Load, "batch" | "calls"> = { batch: 100, calls: 4 };

/** Jobs that are put and not finished: enough for every worker's hands, and far from a queue that grows. */
export const UNFINISHED = 10_000;

export function queueNames(queues: number): string[] {
  return Array.from({ length: queues }, (_, n) => `bench-${n}`);
}
