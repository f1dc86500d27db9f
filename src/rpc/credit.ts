import type { Credit } from "../broker/subscription.ts";
import type { Checks } from "./checks.ts";
import type { Limits } from "./limits.ts";

/** What a job has beside its payload and headers: ids, names, and what headers take to be told apart. */
const ROOM_BYTES = 448 * 1024;
const MOST_BYTES = 2 ** 40;

/** `maxOutstandingBytes` 0: no limit. */
export function checkCredit(
  checks: Checks,
  path: string,
  { maxOutstanding, maxOutstandingBytes }: { readonly maxOutstanding: number; readonly maxOutstandingBytes: bigint },
  limits: Limits,
): Credit {
  const least = limits.maxPayloadBytes + limits.maxHeaderBytes + ROOM_BYTES;
  if (maxOutstandingBytes !== 0n && (maxOutstandingBytes < least || maxOutstandingBytes > MOST_BYTES)) {
    checks.refuse(
      `${path}max_outstanding_bytes`,
      `must be 0 (no limit) or ${least} (so that every job fits) to ${MOST_BYTES}, and is ${maxOutstandingBytes}`,
    );
  }
  return {
    maxOutstanding: checks.integer(`${path}max_outstanding`, maxOutstanding, 0, limits.maxOutstanding),
    maxBytes: Number(maxOutstandingBytes),
  };
}
