/**
 * The one error class of Baton. Every layer throws it for what a caller can act upon; anything else is a bug and
 * reaches the caller as INTERNAL without its text.
 */

/** The gRPC status codes that Baton uses, by their names in google.rpc.Code. */
export const STATUS_CODES = {
  CANCELLED: 1,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const;

export type StatusCode = keyof typeof STATUS_CODES;

/** One bad field: its path as in the request (`jobs[3].payload`), and what is allowed. */
export type FieldViolation = { readonly field: string; readonly description: string };

export type ErrorDetails = {
  /** What a program needs to act, such as the state of the job that is in the way. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  /** Waiting helps: try again after so long. */
  readonly retryAfterMs?: number;
};

export class BatonError extends Error {
  override readonly name = "BatonError";
  readonly code: StatusCode;
  /** UPPER_SNAKE, stable, part of the contract: what programs switch on. */
  readonly reason: string;
  readonly details: ErrorDetails;

  constructor(code: StatusCode, reason: string, message: string, details: ErrorDetails = {}) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.details = details;
  }
}

export function badRequest(violations: readonly FieldViolation[]): BatonError {
  const message = violations.map(({ field, description }) => `${field} ${description}`).join("; ");
  return new BatonError("INVALID_ARGUMENT", "BAD_REQUEST", message, { violations });
}

export function jobNotFound(queue: string, id: string): BatonError {
  return new BatonError("NOT_FOUND", "JOB_NOT_FOUND", `queue ${queue} has no job ${id}`, { metadata: { queue, id } });
}

/** `state`: what it is instead; GONE when there is no such job, which the caller said it expects. */
export function awaitTimeout(queue: string, id: string, state: string): BatonError {
  const message = `job ${id} of queue ${queue} has not finished in time: it is ${state}`;
  return new BatonError("DEADLINE_EXCEEDED", "AWAIT_TIMEOUT", message, { metadata: { queue, id, state } });
}

/** Retry is for jobs that have finished. */
export function jobNotFinished(queue: string, id: string, state: string): BatonError {
  const message = `job ${id} of queue ${queue} has not finished: it is ${state}`;
  return new BatonError("FAILED_PRECONDITION", "JOB_NOT_FINISHED", message, { metadata: { queue, id, state } });
}

export function queueNotFound(queue: string): BatonError {
  const message = `there is no queue ${queue}: it comes to be with its first job, schedule or setting`;
  return new BatonError("NOT_FOUND", "QUEUE_NOT_FOUND", message, { metadata: { queue } });
}

export function scheduleNotFound(queue: string, id: string): BatonError {
  const message = `queue ${queue} has no schedule ${id}`;
  return new BatonError("NOT_FOUND", "SCHEDULE_NOT_FOUND", message, { metadata: { queue, id } });
}

export function tooManySchedules(queue: string, most: number): BatonError {
  const message = `queue ${queue} has ${most} schedules already, and may have no more (--max-schedules)`;
  return new BatonError("RESOURCE_EXHAUSTED", "TOO_MANY_SCHEDULES", message, { metadata: { queue } });
}

/** Others have changed it in every moment in which this call tried to. */
export function scheduleBusy(queue: string, id: string): BatonError {
  const message = `schedule ${id} of queue ${queue} is being changed by others again and again`;
  return new BatonError("UNAVAILABLE", "SCHEDULE_BUSY", message, { metadata: { queue, id }, retryAfterMs: 1_000 });
}

export function jobExists(queue: string, id: string, state: string): BatonError {
  const message = `queue ${queue} already has a job ${id}, which is ${state}`;
  return new BatonError("ALREADY_EXISTS", "JOB_EXISTS", message, { metadata: { queue, id, state } });
}

/** `id`: the job that keeps the key. */
export function uniqueKeyTaken(queue: string, id: string, state: string): BatonError {
  const message = `another job of queue ${queue} keeps this unique key: ${id}, which is ${state}`;
  return new BatonError("ALREADY_EXISTS", "UNIQUE_KEY_TAKEN", message, { metadata: { queue, id, state } });
}

export function leaseLost(queue: string, id: string): BatonError {
  const message = `the lease on job ${id} of queue ${queue} has ended: it ran out, was taken over, or the job was deleted or cancelled`;
  return new BatonError("FAILED_PRECONDITION", "LEASE_LOST", message, { metadata: { queue, id } });
}

/** Where there are other brokers, they take it at once. */
export function draining(): BatonError {
  return new BatonError("UNAVAILABLE", "DRAINING", "this broker is shutting down", { retryAfterMs: 100 });
}

export function storeUnavailable(): BatonError {
  const message = "Redis cannot be reached, or did not answer in time; the call may or may not have taken effect";
  return new BatonError("UNAVAILABLE", "STORE_UNAVAILABLE", message, { retryAfterMs: 1_000 });
}

export function storeFull(): BatonError {
  const message = "Redis has no memory left: let workers finish jobs, delete some, or raise its maxmemory";
  return new BatonError("RESOURCE_EXHAUSTED", "STORE_FULL", message, { retryAfterMs: 5_000 });
}
