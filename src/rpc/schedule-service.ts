/** The verbs of ScheduleService, each with its handler: decode and check, call the broker, encode. No rules live here. */
import { create } from "@bufbuild/protobuf";
import {
  DeleteScheduleResponseSchema,
  GetScheduleResponseSchema,
  PauseScheduleResponseSchema,
  ResumeScheduleResponseSchema,
  ScheduleService,
  TriggerScheduleResponseSchema,
} from "../../gen/baton/v1/schedule_service_pb.js";
import type { Schedules } from "../broker/schedules.ts";
import { Checks } from "./checks.ts";
import { type Service, service } from "./handler.ts";
import type { Limits } from "./limits.ts";
import { listSchedules } from "./list-schedules.ts";
import { putSchedule } from "./put-schedule.ts";
import { checkScheduleId } from "./schedule.ts";
import { scheduleView } from "./schedule-message.ts";

export function scheduleService(schedules: Schedules, namespace: string, limits: Limits): Service {
  return service(ScheduleService, {
    putSchedule: (request) => putSchedule(schedules, limits, request),
    listSchedules: (request) => listSchedules(schedules, namespace, request),
    async getSchedule(request) {
      const { queue, id } = checkName(request);
      return create(GetScheduleResponseSchema, { schedule: scheduleView(queue, await schedules.get(queue, id)) });
    },
    async deleteSchedule(request) {
      const { queue, id } = checkName(request);
      return create(DeleteScheduleResponseSchema, { deleted: await schedules.delete(queue, id) });
    },
    async triggerSchedule(request) {
      const { queue, id } = checkName(request);
      return create(TriggerScheduleResponseSchema, { jobId: await schedules.trigger(queue, id) });
    },
    async pauseSchedule(request) {
      const { queue, id } = checkName(request);
      return create(PauseScheduleResponseSchema, { changed: await schedules.setPaused(queue, id, true) });
    },
    async resumeSchedule(request) {
      const { queue, id } = checkName(request);
      return create(ResumeScheduleResponseSchema, { changed: await schedules.setPaused(queue, id, false) });
    },
  });
}

type ScheduleName = { readonly queue: string; readonly id: string };

function checkName(request: ScheduleName): ScheduleName {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  const id = checkScheduleId(checks, "id", request.id);
  checks.done();
  return { queue, id };
}
