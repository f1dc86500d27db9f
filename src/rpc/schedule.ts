/** What a schedule must be, when it is put and when it is run. */
import { create, fromBinary } from "@bufbuild/protobuf";
import { OnConflict, type PutRequest, PutRequestSchema } from "../../gen/baton/v1/job_service_pb.js";
import {
  CatchUp as CatchUpMessage,
  Overlap,
  type Schedule,
  ScheduleSchema,
} from "../../gen/baton/v1/schedule_service_pb.js";
import { BatonError } from "../model/errors.ts";
import type { NewJob } from "../model/job.ts";
import { type CatchUp, type ScheduleDefinition, type Timing, timetableOf } from "../model/schedule.ts";
import { checkTimetable } from "../model/timetable.ts";
import { Checks, isQueueName, YEAR_MS } from "./checks.ts";
import type { Limits } from "./limits.ts";
import { newJob } from "./put.ts";

const SHORTEST_INTERVAL_MS = 1_000;
const HOUR_MS = 3_600_000;
/** So that the id of a tick's job, which begins with it, is none too long. */
const ID_BYTES = 200;

const CATCH_UPS: ReadonlyMap<number, CatchUp> = new Map([
  [CatchUpMessage.UNSPECIFIED, "one"],
  [CatchUpMessage.NONE, "none"],
  [CatchUpMessage.ONE, "one"],
  [CatchUpMessage.ALL, "all"],
]);

const SKIPS_OVERLAP: ReadonlyMap<number, boolean> = new Map([
  [Overlap.UNSPECIFIED, false],
  [Overlap.ALLOW, false],
  [Overlap.SKIP, true],
]);

/** Throws INVALID_ARGUMENT for what cannot be run here: another broker may know time zones that this one does not. */
export function readSchedule(definition: Uint8Array, limits: Limits): ScheduleDefinition {
  const checks = new Checks();
  const read = checkSchedule(checks, fromBinary(ScheduleSchema, definition), limits);
  checks.done();
  return read;
}

export function checkSchedule(checks: Checks, schedule: Schedule, limits: Limits): ScheduleDefinition {
  const { queue, paused, template } = schedule;
  checks.queue("schedule.queue", queue);
  checkScheduleId(checks, "schedule.id", schedule.id);
  const timing = checkTiming(checks, schedule);
  const catchUp = checks.choice("schedule.catch_up", schedule.catchUp, CATCH_UPS, "NONE, ONE, ALL");
  const skipOverlap = checks.choice("schedule.overlap", schedule.overlap, SKIPS_OVERLAP, "ALLOW, SKIP");
  const request = template ?? create(PutRequestSchema);
  const jobIn = (name: string, id: string) => newJob({ ...request, queue: name, id }, limits, "schedule.template.").job;
  checkTemplate(checks, template);
  // What is wrong with the schedule's queue has been said.
  checkJob(checks, () => jobIn(isQueueName(queue) ? queue : "queue", "run"));
  return { timing, catchUp, skipOverlap, paused, job: (id) => jobIn(queue, id) };
}

export function checkScheduleId(checks: Checks, field: string, id: string): string {
  const bytes = Buffer.byteLength(id);
  if (bytes > 0 && bytes <= ID_BYTES) return checks.id(field, id);
  checks.refuse(field, `must be 1 to ${ID_BYTES} bytes of UTF-8, and has ${bytes}`);
  return id;
}

function checkTiming(checks: Checks, { timing, timeZone }: Schedule): Timing {
  // Zone and times are looked at one by one: a caller is told of both.
  const hourly: Timing = { kind: "every", everyMs: HOUR_MS, timeZone };
  checkTimes(checks, hourly);
  switch (timing.case) {
    case "cron": {
      const cron = { kind: "cron", expression: timing.value } as const;
      checkTimes(checks, { ...cron, timeZone: "" });
      return { ...cron, timeZone };
    }
    case "every": {
      const everyMs = checks.duration("schedule.every", timing.value, SHORTEST_INTERVAL_MS, YEAR_MS) ?? HOUR_MS;
      return { kind: "every", everyMs, timeZone };
    }
    default:
      checks.refuse("schedule.timing", "must be set: cron or every");
      return hourly;
  }
}

function checkTimes(checks: Checks, timing: Timing): void {
  const violation = checkTimetable(timetableOf(timing, 0));
  if (violation) checks.refuse(`schedule.${violation.field}`, violation.description);
}

function checkTemplate(checks: Checks, template: PutRequest | undefined): void {
  if (!template) {
    checks.refuse("schedule.template", "must be set");
    return;
  }
  const refuse = (field: string, reason: string) =>
    checks.refuse(`schedule.template.${field}`, `must not be set: ${reason}`);
  if (template.queue !== "") refuse("queue", "the schedule's holds");
  if (template.id !== "") refuse("id", "each run has its own");
  if (template.start.case === "delay") refuse("delay", "the schedule says when");
  if (template.start.case === "runAt") refuse("run_at", "the schedule says when");
  if (template.onConflict !== OnConflict.UNSPECIFIED) refuse("on_conflict", "a run's id is never taken");
}

/** As Put would. */
function checkJob(checks: Checks, job: () => NewJob): void {
  try {
    job();
  } catch (error) {
    if (!(error instanceof BatonError)) throw error;
    for (const { field, description } of error.details.violations ?? []) checks.refuse(field, description);
  }
}
