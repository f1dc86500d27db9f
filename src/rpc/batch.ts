/** The answers of a batch: each item has its own, and what is wrong with one does not hinder the others. */
import type { Status } from "../../gen/google/rpc/status_pb.js";
import type { Settled } from "../broker/jobs.ts";
import { BatonError } from "../model/errors.ts";
import { statusOf } from "./status.ts";

/** Converts and checks each item by itself. */
export function settleEach<T, R>(items: readonly T[], convert: (item: T, index: number) => R): Settled<R>[] {
  return items.map((item, index) => {
    try {
      return { ok: convert(item, index) };
    } catch (error) {
      return { error };
    }
  });
}

/** Likewise, then runs `work` on the good ones only, and puts its answers in their places. */
export async function settleBatch<T, Good, R>(
  items: readonly T[],
  convert: (item: T, index: number) => Good,
  work: (good: readonly Good[]) => Promise<Settled<R>[]>,
): Promise<Settled<R>[]> {
  const good: Good[] = [];
  const errors = new Map<number, unknown>();
  for (let i = 0; i < items.length; i++) {
    try {
      good.push(convert(items[i] as T, i));
    } catch (error) {
      errors.set(i, error);
    }
  }
  const answers = good.length === 0 ? [] : await work(good);
  throwIfAllUnavailable(answers);
  if (errors.size === 0) return answers;
  let next = 0;
  return items.map((_, i) => (errors.has(i) ? { error: errors.get(i) } : (answers[next++] as Settled<R>)));
}

/** When nothing could be done, the call as a whole failed, so that a client's retry policy sees it. */
function throwIfAllUnavailable(answers: readonly Settled<unknown>[]): void {
  const [first] = answers;
  if (!first || !answers.every(isUnavailable)) return;
  throw (first as { error: unknown }).error;
}

function isUnavailable(answer: Settled<unknown>): boolean {
  return "error" in answer && answer.error instanceof BatonError && answer.error.code === "UNAVAILABLE";
}

/** An item's error as it stands in the results. What no caller can act upon fails the whole call, and is logged there. */
export function itemStatus(error: unknown): Status {
  if (error instanceof BatonError) return statusOf(error);
  throw error;
}
