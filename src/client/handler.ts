/** What a user's handler may do with a job, and how that becomes the outcome of its reservation. */
import type { ReleaseRequest } from "../../gen/baton/v1/job_service_pb.js";
import { type Outcome, toReleaseRequest } from "./input.ts";
import type { ReservedJob, RevokedReasonName } from "./output.ts";
import type { PayloadInput } from "./payload.ts";

/** The contract's limits on an error; more is cut off, because a refused failure would be worse than a short one. */
const MESSAGE_LIMIT_BYTES = 16 * 1024;
const TYPE_LIMIT_BYTES = 255;
/** The contract's limits on waits. What is beyond them is refused here, where it is the handler's failure. */
const LONGEST_RETRY_DAYS = 365;
const LONGEST_RETURN_DAYS = 36_525;

/** Throw it in a handler when trying again is of no use: the job becomes FAILED at once. */
export class PermanentError extends Error {
  override readonly name = "PermanentError";
  /** A short name for programs; default PermanentError. */
  readonly type: string;

  constructor(
    message: string,
    { type = "PermanentError", ...options }: ErrorOptions & { readonly type?: string } = {},
  ) {
    super(message, options);
    this.type = type;
  }
}

/** Throw it in a handler to fail this attempt and say when the next may be, in place of the retry policy's wait. */
export class RetryLater extends Error {
  override readonly name = "RetryLater";
  readonly delayMs: number;
  /** A short name for programs; default RetryLater. */
  readonly type: string;

  constructor(
    delayMs: number,
    message = "to be tried again later",
    { type = "RetryLater", ...options }: ErrorOptions & { readonly type?: string } = {},
  ) {
    super(message, options);
    checkDelay(delayMs, LONGEST_RETRY_DAYS);
    this.delayMs = delayMs;
    this.type = type;
  }
}

/** What `job.giveBack()` makes: return it from the handler. */
export class GiveBack {
  readonly delayMs: number | undefined;

  /** @internal */
  constructor(delayMs: number | undefined) {
    if (delayMs !== undefined) checkDelay(delayMs, LONGEST_RETURN_DAYS);
    this.delayMs = delayMs;
  }
}

/** Why a job's signal aborts: DISCONNECTED: the lease could not be kept while there was no stream. */
export type JobAbortedReason = RevokedReasonName | "LEASE_LOST" | "DISCONNECTED" | "WORKER_STOPPED";

/** The reason of a job's AbortSignal. Whatever the handler does then, the job is no longer its own. */
export class JobAborted extends Error {
  override readonly name = "JobAborted";
  readonly reason: JobAbortedReason;

  constructor(reason: JobAbortedReason) {
    super(`the job was taken away: ${reason}`);
    this.reason = reason;
  }
}

/** A job in the hands of a handler. */
export type WorkerJob = ReservedJob & {
  /**
   * `return job.giveBack()` ends the reservation without success or failure: the job goes back to its old place, or
   * may be handed out again `delayMs` from now.
   */
  giveBack(options?: { readonly delayMs?: number | undefined }): GiveBack;
};

// biome-ignore lint/suspicious/noConfusingVoidType: a handler without a result is `async () => { … }`.
export type HandlerResult = PayloadInput | GiveBack | undefined | void;

export type HandlerContext = {
  /** Aborts when the job is no longer this worker's: stop as soon as you can. Its reason is a JobAborted. */
  readonly signal: AbortSignal;
  /**
   * Says how far the job has come, in percent (made a whole number from 0 to 100), and a note for people, of which 1 KiB
   * is kept. Call it as often as you like: at most ten reports a second go out, the last one wins. Nothing waits for it,
   * and it throws nothing but a TypeError for what is no number.
   */
  readonly progress: (percent: number, note?: string) => void;
};

/** Runs a job. What it returns is the job's result; what it throws makes the attempt a failure. */
export type Handler = (job: WorkerJob, context: HandlerContext) => HandlerResult | Promise<HandlerResult>;

/** What a handler did: the outcome, the release that says so, and what it threw if nobody foresaw that. */
export type Handled = {
  readonly outcome: Outcome;
  readonly request: ReleaseRequest;
  readonly unforeseen?: unknown;
};

export async function handle(handler: Handler, job: ReservedJob, context: HandlerContext): Promise<Handled> {
  try {
    const result = await handler({ ...job, giveBack: ({ delayMs } = {}) => new GiveBack(delayMs) }, context);
    const outcome: Outcome =
      result instanceof GiveBack
        ? { outcome: "returned", delayMs: result.delayMs }
        : { outcome: "completed", result: result ?? undefined };
    // A result that cannot be sent is the handler's failure, so this stands inside the try.
    return { outcome, request: toReleaseRequest(job.leaseToken, outcome) };
  } catch (error) {
    const outcome = failure(error);
    const request = toReleaseRequest(job.leaseToken, outcome);
    return { outcome, request, ...(!isForeseen(error) && { unforeseen: error }) };
  }
}

/** The outcome for a result that the broker refuses: the work is done, so doing it again would not help. */
export function refusedResult(why: string): Outcome {
  const message = cut(`the broker refused the job's result: ${why}`, MESSAGE_LIMIT_BYTES);
  return { outcome: "failed", message, type: "RESULT_REFUSED", permanent: true };
}

function failure(error: unknown): Outcome {
  const message = cut(textOf(error instanceof Error ? error.message : error), MESSAGE_LIMIT_BYTES);
  const typeOf = (name: unknown) => cut(textOf(name), TYPE_LIMIT_BYTES);
  if (error instanceof PermanentError) return { outcome: "failed", message, type: typeOf(error.type), permanent: true };
  if (error instanceof RetryLater) {
    return { outcome: "failed", message, type: typeOf(error.type), retryAfterMs: error.delayMs };
  }
  return { outcome: "failed", message, type: typeOf(error instanceof Error ? error.name : typeof error) };
}

/** Anything can be thrown, and an error's message can be anything. */
function textOf(thrown: unknown): string {
  try {
    return String(thrown);
  } catch {
    return "what was thrown has no text";
  }
}

function checkDelay(delayMs: number, longestDays: number): void {
  if (delayMs >= 0 && delayMs <= longestDays * 86_400_000) return;
  throw new TypeError(`delayMs must be a number from 0 to ${longestDays.toLocaleString("en")} days`);
}

function isForeseen(error: unknown): boolean {
  return error instanceof PermanentError || error instanceof RetryLater;
}

/** At most so many bytes of UTF-8, not in the middle of a character. */
export function cut(text: string, limitBytes: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= limitBytes) return text;
  let end = limitBytes;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end);
}
