/**
 * The states of a job and the transitions between them, once, as data. The Lua scripts, the proto's diagram and the
 * README's are held against this table by a test.
 */

/** The numbers are those of the proto's JobState and of Lua's `lib/job.lua`. */
export const JOB_STATES = {
  SCHEDULED: 1,
  READY: 2,
  HELD: 3,
  RESERVED: 4,
  RETRYING: 5,
  COMPLETED: 6,
  FAILED: 7,
} as const;

export type JobState = keyof typeof JOB_STATES;

/** Before its put and after its end, a job is in no state. */
export type Place = JobState | "GONE";

/** What moves a job: the verb of an RPC, or time. */
export type Cause =
  | "put"
  | "due"
  | "hold"
  | "free"
  | "reserve"
  | "pull"
  | "extend"
  | "report"
  | "complete"
  | "fail"
  | "return"
  | "expire"
  | "lapse"
  | "cancel"
  | "retry"
  | "delete"
  | "trim";

type Transition = { readonly cause: Cause; readonly from: readonly Place[]; readonly to: readonly Place[] };

export const TRANSITIONS: readonly Transition[] = [
  // A put takes the place of a job that has ended, and with REPLACE of any that is not reserved.
  {
    cause: "put",
    from: ["GONE", "SCHEDULED", "READY", "HELD", "RETRYING", "COMPLETED", "FAILED"],
    to: ["SCHEDULED", "READY"],
  },
  { cause: "due", from: ["SCHEDULED", "RETRYING"], to: ["READY"] },
  // A reservation came upon it, and all slots of its concurrency key are taken.
  { cause: "hold", from: ["READY"], to: ["HELD"] },
  { cause: "free", from: ["HELD"], to: ["READY"] },
  { cause: "reserve", from: ["READY"], to: ["RESERVED"] },
  // Handed out and forgotten at once.
  { cause: "pull", from: ["RESERVED"], to: ["GONE"] },
  { cause: "extend", from: ["RESERVED"], to: ["RESERVED"] },
  // How far the worker has come.
  { cause: "report", from: ["RESERVED"], to: ["RESERVED"] },
  // With a retention of zero a completed job is gone at once.
  { cause: "complete", from: ["RESERVED"], to: ["COMPLETED", "GONE"] },
  { cause: "fail", from: ["RESERVED"], to: ["RETRYING", "FAILED"] },
  { cause: "return", from: ["RESERVED"], to: ["READY", "SCHEDULED"] },
  // The lease ran out, or the run timeout was over.
  { cause: "expire", from: ["RESERVED"], to: ["READY", "FAILED"] },
  // expires_in passed before a worker was free.
  { cause: "lapse", from: ["READY"], to: ["FAILED"] },
  { cause: "cancel", from: ["SCHEDULED", "READY", "HELD", "RESERVED", "RETRYING"], to: ["FAILED"] },
  // An operator's.
  { cause: "retry", from: ["COMPLETED", "FAILED"], to: ["READY"] },
  {
    cause: "delete",
    from: ["SCHEDULED", "READY", "HELD", "RESERVED", "RETRYING", "COMPLETED", "FAILED"],
    to: ["GONE"],
  },
  // The end of the retention, or of the dead letter's age or size.
  { cause: "trim", from: ["COMPLETED", "FAILED"], to: ["GONE"] },
];

/** How the last failed attempt of a job failed, or why the job lapsed: the numbers are Lua's REASON_…. */
export const FAILURE_REASONS = { RELEASED: 1, LEASE_EXPIRED: 2, JOB_EXPIRED: 3, CANCELLED: 4 } as const;

const NAMES_BY_NUMBER = new Map<number, JobState>(
  Object.entries(JOB_STATES).map(([name, number]) => [number, name as JobState]),
);

/** The state with this number; undefined for 0, which stands for no job. */
export function stateOf(number: number): JobState | undefined {
  return NAMES_BY_NUMBER.get(number);
}
