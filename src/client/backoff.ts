/** Waiting between attempts: exponential, with jitter, so that clients that failed together don't return together. */
import { setTimeout as sleep } from "node:timers/promises";
import { isDeadlineExceeded, isUnavailable } from "./error.ts";

export type BackoffOptions = { readonly initialMs: number; readonly maxMs: number };

/** The wait before attempt `n` (1 for the first repetition): between half of its exponential value and all of it. */
export function backoffMs(n: number, { initialMs, maxMs }: BackoffOptions, random = Math.random()): number {
  const full = Math.min(maxMs, initialMs * 2 ** Math.min(n - 1, 30));
  return full * (0.5 + random / 2);
}

export type RepeatLimits = {
  readonly deadlineMs: number;
  /** Default: the deadline. */
  readonly repeatForMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
};

const CALL_BACKOFF: BackoffOptions = { initialMs: 50, maxMs: 2_000 };

/**
 * Repeats `attempt` while it ends UNAVAILABLE and there is time. Each attempt is told how much is left.
 * When the next wait would be longer than that, the last error is thrown at once.
 */
export async function repeatWhileUnavailable<T>(
  attempt: (leftMs: number) => Promise<T>,
  { deadlineMs, repeatForMs = deadlineMs, signal }: RepeatLimits,
): Promise<T> {
  const endsAt = performance.now() + deadlineMs;
  const repeatsUntil = performance.now() + Math.min(repeatForMs, deadlineMs);
  let lastWord: unknown;
  for (let n = 1; ; n++) {
    try {
      return await attempt(Math.max(1, endsAt - performance.now()));
    } catch (error) {
      // An attempt that the deadline cut short says less than the one before.
      if (lastWord !== undefined && isDeadlineExceeded(error)) throw lastWord;
      if (!isUnavailable(error)) throw error;
      lastWord = error;
      const waitMs = Math.max(backoffMs(n, CALL_BACKOFF), error.retryAfterMs ?? 0);
      if (performance.now() + waitMs >= repeatsUntil) throw error;
      await pause(waitMs, signal);
    }
  }
}

/** Waits, or throws the signal's reason as soon as it aborts. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}
