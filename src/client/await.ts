/**
 * Waits for a job to finish, over whatever happens to the connection and the broker meanwhile: an Await is safe to
 * repeat, because it answers also for a job that has finished long before.
 *
 * One call waits as long as the contract lets it. Shorter calls would leave gaps between them, in which the outcome of a
 * job that is not retained would be missed; a connection that is dead without a word is found by its keepalive.
 */
import { create } from "@bufbuild/protobuf";
import { AwaitRequestSchema, JobService } from "../../gen/baton/v1/job_service_pb.js";
import { backoffMs, pause } from "./backoff.ts";
import type { Calls } from "./calls.ts";
import { BatonClientError, isUnavailable } from "./error.ts";
import { toDuration } from "./input.ts";
import { fromJob, type Job } from "./output.ts";

const DEFAULT_TIMEOUT_MS = 60_000;
/** The contract's longest wait of one call (--max-await). */
const LONGEST_CALL_MS = 3_600_000;

export type AwaitOptions = {
  /** How long to wait for the job to finish; default 1 min. 0: only look. */
  readonly timeoutMs?: number | undefined;
  /** Wait also for a job that is not there: one that is put only now, or was pulled. */
  readonly expect?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
};

export async function awaitJob(
  calls: Calls,
  queue: string,
  id: string,
  { timeoutMs = DEFAULT_TIMEOUT_MS, expect = false, signal }: AwaitOptions,
): Promise<Job> {
  const begunAt = performance.now();
  const leftMs = () => Math.max(0, begunAt + timeoutMs - performance.now());
  let failures = 0;
  for (;;) {
    const callMs = Math.min(Math.ceil(leftMs()), LONGEST_CALL_MS);
    try {
      const request = create(AwaitRequestSchema, { queue, id, expect, timeout: toDuration("timeoutMs", callMs) });
      const deadlineMs = callMs + calls.defaultDeadlineMs;
      const { job } = await calls.once(JobService.method.await, request, { deadlineMs, signal });
      if (job === undefined) throw new BatonClientError("INTERNAL", "the broker's answer holds no job");
      return fromJob(job);
    } catch (error) {
      if (isOver(error) && leftMs() > 0) continue;
      if (!isUnavailable(error)) throw error;
      failures++;
      const waitMs = Math.max(backoffMs(failures, { initialMs: 50, maxMs: 2_000 }), error.retryAfterMs ?? 0);
      // A broker that is away for a moment is no reason to fail a call that was only to look.
      const patienceMs = Math.max(leftMs(), begunAt + calls.defaultDeadlineMs - performance.now());
      if (waitMs >= patienceMs) throw error;
      await pause(waitMs, signal);
    }
  }
}

function isOver(error: unknown): boolean {
  return error instanceof BatonClientError && error.reason === "AWAIT_TIMEOUT";
}
