/** What the rooms tell each other of schedules. Times are ms since 1970 by Redis's clock. */
import type { NewJob } from "./job.ts";
import type { Timetable } from "./timetable.ts";

/** proto, CatchUp. */
export type CatchUp = "none" | "one" | "all";

/** A timetable, but for where its intervals begin. */
export type Timing =
  | { readonly kind: "cron"; readonly expression: string; readonly timeZone: string }
  | { readonly kind: "every"; readonly everyMs: number; readonly timeZone: string };

/** What a schedule's definition says, which is stored as bytes (a Schedule), and read only to be run. */
export type ScheduleDefinition = {
  readonly timing: Timing;
  readonly catchUp: CatchUp;
  readonly skipOverlap: boolean;
  readonly paused: boolean;
  /** The job of one run, made from the template. */
  readonly job: (id: string) => NewJob;
};

/** Throws for what cannot be run here. */
export type ReadDefinition = (definition: Uint8Array) => ScheduleDefinition;

/** Times: undefined for none. */
export type StoredSchedule = {
  readonly id: string;
  readonly definition: Uint8Array;
  readonly paused: boolean;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  readonly nextTickMs: number | undefined;
  readonly lastRunAtMs: number | undefined;
  readonly lastJobId: string;
  readonly runs: number;
  readonly skipped: number;
  /** Another one after each change. */
  readonly revision: number;
  /** Where its intervals begin. */
  readonly startMs: number;
};

/** Of the job of one tick: the same at every broker. */
export function tickJobId(scheduleId: string, tickMs: number): string {
  return `${scheduleId}@${new Date(tickMs).toISOString().replace(".000Z", "Z")}`;
}

/** `chance` tells those of one moment apart. */
export function triggerJobId(scheduleId: string, nowMs: number, chance: string): string {
  return `${tickJobId(scheduleId, nowMs)}-trigger-${chance}`;
}

export function timetableOf(timing: Timing, startMs: number): Timetable {
  return timing.kind === "every" ? { ...timing, startMs } : timing;
}

export function isSameTiming(one: Timing, other: Timing): boolean {
  if (one.timeZone !== other.timeZone) return false;
  if (one.kind === "every") return other.kind === "every" && one.everyMs === other.everyMs;
  return other.kind === "cron" && one.expression === other.expression;
}
