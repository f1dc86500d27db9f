/**
 * Delivery mode PULL: jobs that were reserved as any others are forgotten just before their worker gets them. What was
 * forgotten and then gets lost on its way is lost: at most once.
 */
import { BatonError } from "../model/errors.ts";
import { type LeasedJob, NO_LEASE } from "../model/job.ts";
import type { Logger } from "../model/log.ts";
import type { Jobs } from "./jobs.ts";

export type Pulled = {
  /** The worker's from now on. */
  readonly jobs: readonly LeasedJob[];
  /** Why others are not: whether they were forgotten nobody knows, so nobody gets them from here. */
  readonly error: unknown;
};

/** A job that was deleted or cancelled meanwhile, or whose lease ran out, is left out. */
export async function pull(jobs: readonly LeasedJob[], release: Jobs["release"], log: Logger): Promise<Pulled> {
  const settled = await release(jobs.map((lease) => ({ lease, outcome: { kind: "pulled" } })));
  const pulled: LeasedJob[] = [];
  const errors: unknown[] = [];
  for (const [i, job] of jobs.entries()) {
    const one = settled[i];
    if (one && "ok" in one) pulled.push({ ...job, fence: NO_LEASE });
    else if (one && !isLeaseLost(one.error)) errors.push(one.error);
  }
  const [error] = errors;
  if (error !== undefined) {
    log.warn("pulled jobs not handed out", {
      jobs: errors.length,
      error: error instanceof Error ? error.message : String(error),
    });
  }
  return { jobs: pulled, error };
}

function isLeaseLost(error: unknown): boolean {
  return error instanceof BatonError && error.reason === "LEASE_LOST";
}
