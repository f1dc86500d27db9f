/** Schedules for people. */
import type { RetryInput, Schedule, Template } from "../client/index.ts";
import { showDuration } from "../setting-values.ts";
import { headerRows, oneLine, type Rows, shortTime, showPayload, showRows, showUnique, time } from "./show.ts";
import { type Column, table } from "./table.ts";

const COLUMNS: readonly Column<Schedule>[] = [
  { heading: "ID", of: (schedule) => oneLine(schedule.id) },
  { heading: "WHEN", of: when },
  { heading: "TIME ZONE", of: (schedule) => schedule.timeZone },
  { heading: "NEXT RUN", of: ({ paused, nextRunAt }) => (paused ? "paused" : shortTime(nextRunAt) || "never") },
  { heading: "LAST RUN", of: (schedule) => shortTime(schedule.lastRunAt) },
  { heading: "RUNS", of: (schedule) => schedule.runs },
  { heading: "SKIPPED", of: (schedule) => schedule.skipped },
];

export function scheduleTable(schedules: readonly Schedule[]): string {
  return table(COLUMNS, schedules);
}

export function showSchedule(schedule: Schedule): string {
  return showRows([
    ["queue", schedule.queue],
    ["id", oneLine(schedule.id)],
    ["when", when(schedule)],
    ["time zone", schedule.timeZone],
    ["paused", schedule.paused ? "yes" : "no"],
    ["catch-up", schedule.catchUp],
    ["overlap", schedule.overlap],
    ["next run", time(schedule.nextRunAt)],
    ["last run", time(schedule.lastRunAt)],
    ["last job", schedule.lastJobId && oneLine(schedule.lastJobId)],
    ["runs", String(schedule.runs)],
    ["skipped", String(schedule.skipped)],
    ["created at", time(schedule.createdAt)],
    ["changed at", time(schedule.updatedAt)],
    ...jobRows(schedule.job),
  ]);
}

function when({ cron, everyMs }: Schedule): string {
  return everyMs === undefined ? oneLine(cron ?? "") : `every ${showDuration(everyMs)}`;
}

function jobRows(job: Template): Rows {
  const { concurrency, unique } = job;
  return [
    ["priority", job.priority === 0 ? undefined : String(job.priority)],
    ["lease", duration(job.leaseMs)],
    ["run timeout", duration(job.runTimeoutMs)],
    ["retry", job.retry && showRetry(job.retry)],
    ["retention", duration(job.retentionMs)],
    ["expires in", duration(job.expiresInMs)],
    ["concurrency", concurrency && `${oneLine(concurrency.key)}, at most ${concurrency.limit} at once`],
    ["unique", unique && showUnique(unique)],
    ...headerRows(job.headers),
    ["payload", showPayload(job.payload)],
  ];
}

function showRetry({ maxAttempts, initialBackoffMs, maxBackoffMs, multiplier, jitter, curve }: RetryInput): string {
  const parts: readonly (readonly [string, string | number | undefined])[] = [
    ["max-attempts", maxAttempts],
    ["initial-backoff", duration(initialBackoffMs)],
    ["max-backoff", duration(maxBackoffMs)],
    ["multiplier", multiplier],
    ["jitter", jitter],
    ["backoff-curve", curve?.toLowerCase()],
  ];
  return parts.flatMap(([name, value]) => (value === undefined ? [] : [`${name} ${value}`])).join(", ");
}

function duration(ms: number | undefined): string | undefined {
  return ms === undefined ? undefined : showDuration(ms);
}
