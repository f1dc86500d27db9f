/** Jobs of one state as a table: what matters of a job in that state. */
import type { Job, JobPayload, ListedState } from "../client/index.ts";
import type { Kind } from "../setting-values.ts";
import { asText, oneLine, shortTime } from "./show.ts";
import { type Column, table } from "./table.ts";

const STATES: readonly ListedState[] = ["SCHEDULED", "READY", "HELD", "RESERVED", "RETRYING", "COMPLETED", "FAILED"];

/** How much of a payload, a result or an error stands in a table. */
const CONTENT_LIMIT = 60;

/** A state, in letters of any size. */
export const state: Kind<ListedState> = {
  parse: (written) => STATES.find((name) => name === written.toUpperCase()),
  show: (name) => name.toLowerCase(),
  ask: `${STATES.slice(0, -1).join(", ").toLowerCase()} or failed`,
  placeholder: "STATE",
};

const id: Column<Job> = { heading: "ID", of: (job) => oneLine(job.id) };
const priority: Column<Job> = { heading: "PRIORITY", of: (job) => job.priority };
const putAt: Column<Job> = { heading: "PUT AT", of: (job) => shortTime(job.putAt) };
const runsAt: Column<Job> = { heading: "RUNS AT", of: (job) => shortTime(job.runAt) };
const attempt: Column<Job> = { heading: "ATTEMPT", of: (job) => job.attempt };
const failures: Column<Job> = { heading: "FAILURES", of: (job) => job.failures };
const worker: Column<Job> = { heading: "WORKER", of: (job) => oneLine(job.workerId) };
const payload: Column<Job> = { heading: "PAYLOAD", of: (job) => content(job.payload) };
const error: Column<Job> = {
  heading: "ERROR",
  of: (job) => oneLine([job.error?.type, job.error?.message].filter(Boolean).join(": "), CONTENT_LIMIT),
};

const COLUMNS: Readonly<Record<ListedState, readonly Column<Job>[]>> = {
  SCHEDULED: [id, priority, runsAt, putAt, payload],
  READY: [id, priority, putAt, attempt, failures, payload],
  HELD: [id, priority, putAt, { heading: "KEY", of: (job) => oneLine(job.concurrency?.key ?? "") }, payload],
  RESERVED: [
    id,
    worker,
    { heading: "LEASE UNTIL", of: (job) => shortTime(job.leaseExpiresAt) },
    attempt,
    { heading: "PROGRESS", of: (job) => (job.progress === undefined ? "" : `${job.progress.percent} %`) },
    payload,
  ],
  RETRYING: [id, runsAt, failures, error],
  COMPLETED: [
    id,
    { heading: "COMPLETED AT", of: (job) => shortTime(job.finishedAt) },
    { heading: "KEPT UNTIL", of: (job) => shortTime(job.retainedUntil) },
    worker,
    { heading: "RESULT", of: (job) => (job.result === undefined ? "" : content(job.result)) },
  ],
  FAILED: [id, { heading: "FAILED AT", of: (job) => shortTime(job.finishedAt) }, failures, worker, error],
};

export function jobTable(jobs: readonly Job[], of: ListedState): string {
  return table(COLUMNS[of], jobs);
}

function content(shown: JobPayload): string {
  const bytes = shown.bytes();
  const text = asText(bytes);
  return text === undefined ? `(${bytes.length} bytes)` : oneLine(text, CONTENT_LIMIT);
}
