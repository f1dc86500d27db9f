/** How tests wait: for a condition or an event, always with a bound, never for a fixed time. */
import type { EventEmitter } from "node:events";
import { setTimeout as delay } from "node:timers/promises";

export type WaitOptions = {
  /** What is waited for, as it reads after "waited 5000 ms for ". */
  readonly what: string;
  /** Default 5 s: generous, because CI's machine is shared. */
  readonly withinMs?: number;
};

const DEFAULT_WITHIN_MS = 5_000;
const POLL_INTERVAL_MS = 10;

/** Polls until the condition gives something truthy, and returns that. An error thrown by it counts as "not yet". */
export async function until<T>(
  condition: () => T | Promise<T>,
  options: WaitOptions,
): Promise<Exclude<T, false | 0 | "" | null | undefined>> {
  const withinMs = options.withinMs ?? DEFAULT_WITHIN_MS;
  const deadline = performance.now() + withinMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await within(Promise.resolve(condition()), {
        what: `one look at: ${options.what}`,
        withinMs: Math.max(deadline - performance.now(), POLL_INTERVAL_MS),
      });
      if (value) return value as Exclude<T, false | 0 | "" | null | undefined>;
      last = value;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= deadline) {
      throw new Error(`waited ${withinMs} ms for ${options.what}; last saw: ${describe(last)}`, { cause: last });
    }
    await delay(POLL_INTERVAL_MS);
  }
}

/** Rejects when the promise takes too long, so that a hanging test says where it hangs. */
export async function within<T>(promise: Promise<T>, options: WaitOptions): Promise<T> {
  const withinMs = options.withinMs ?? DEFAULT_WITHIN_MS;
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${withinMs} ms for ${options.what}`)), withinMs);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** The arguments of the next such event. Call it before what causes the event. */
export async function eventOnce(emitter: EventEmitter, event: string, options?: Partial<WaitOptions>) {
  let listener: ((...args: unknown[]) => void) | undefined;
  const fired = new Promise<unknown[]>((resolve) => {
    listener = (...args) => resolve(args);
    emitter.once(event, listener);
  });
  try {
    return await within(fired, { what: `the event ${event}`, ...options });
  } finally {
    if (listener) emitter.removeListener(event, listener);
  }
}

function describe(value: unknown): string {
  if (value instanceof Error) return value.message;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
