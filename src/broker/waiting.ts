/** What those share who wait for Redis. */
import { BatonError, storeUnavailable } from "../model/errors.ts";

/** How long Redis may take to confirm a subscription. */
const LISTEN_WITHIN_MS = 5_000;

/** Rejects with STORE_UNAVAILABLE when that takes too long. */
export async function soon(listening: Promise<unknown>): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(storeUnavailable()), LISTEN_WITHIN_MS);
  try {
    await Promise.race([listening, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Redis is away: it helps to try again later. */
export function isUnavailable(error: unknown): boolean {
  return error instanceof BatonError && error.code === "UNAVAILABLE";
}
