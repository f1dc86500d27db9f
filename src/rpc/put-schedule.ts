import { create } from "@bufbuild/protobuf";
import {
  type PutScheduleRequest,
  type PutScheduleResponse,
  PutScheduleResponseSchema,
} from "../../gen/baton/v1/schedule_service_pb.js";
import type { Schedules } from "../broker/schedules.ts";
import { Checks } from "./checks.ts";
import type { Limits } from "./limits.ts";
import { checkSchedule } from "./schedule.ts";
import { scheduleBytes, scheduleView } from "./schedule-message.ts";

export async function putSchedule(
  schedules: Schedules,
  limits: Limits,
  { schedule }: PutScheduleRequest,
): Promise<PutScheduleResponse> {
  const checks = new Checks();
  if (schedule) checkSchedule(checks, schedule, limits);
  else checks.refuse("schedule", "must be set");
  checks.done();
  if (!schedule) return create(PutScheduleResponseSchema);
  const { queue, id } = schedule;
  const put = await schedules.put(queue, id, scheduleBytes(schedule));
  return create(PutScheduleResponseSchema, { schedule: scheduleView(queue, put.schedule), created: put.created });
}
