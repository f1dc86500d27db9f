/** `client.schedules`: one method for each RPC of ScheduleService. All but `trigger` are safe to repeat, and are repeated. */
import { create } from "@bufbuild/protobuf";
import {
  DeleteScheduleRequestSchema,
  GetScheduleRequestSchema,
  ListSchedulesRequestSchema,
  ListSchedulesResponseSchema,
  PauseScheduleRequestSchema,
  PutScheduleRequestSchema,
  PutScheduleResponseSchema,
  ResumeScheduleRequestSchema,
  ScheduleService,
  type ScheduleView,
  TriggerScheduleRequestSchema,
} from "../../gen/baton/v1/schedule_service_pb.js";
import type { CallOptions, Calls } from "./calls.ts";
import { BatonClientError } from "./error.ts";
import { type Jsonable, jsonOf } from "./output.ts";
import { allPages, type Page, type PageOptions } from "./page.ts";
import { fromScheduleView, type Schedule, type ScheduleInput, toSchedule } from "./schedule-types.ts";

/** What became of a put of a schedule. */
export type PutScheduleResult = Jsonable & {
  readonly schedule: Schedule;
  /** False when it was there already. */
  readonly created: boolean;
};

export class Schedules {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /**
   * Makes a schedule, or changes it. Its next tick follows from now only when timing or time zone changed, or when it was
   * paused: without `paused`, a pause ends.
   */
  async put(input: ScheduleInput, options: CallOptions = {}): Promise<PutScheduleResult> {
    const request = create(PutScheduleRequestSchema, { schedule: toSchedule(input) });
    const response = await this.#calls.repeated(ScheduleService.method.putSchedule, request, options);
    const { schedule, created } = response;
    return { schedule: shown(schedule), created, ...jsonOf(PutScheduleResponseSchema, response) };
  }

  /** Throws with reason SCHEDULE_NOT_FOUND. */
  async get(queue: string, id: string, options: CallOptions = {}): Promise<Schedule> {
    const request = create(GetScheduleRequestSchema, { queue, id });
    return shown((await this.#calls.repeated(ScheduleService.method.getSchedule, request, options)).schedule);
  }

  /** One page, in the order of their ids. */
  async list(queue: string, { pageSize = 0, pageToken = "", ...options }: PageOptions = {}): Promise<Page<Schedule>> {
    const request = create(ListSchedulesRequestSchema, { queue, pageSize, pageToken });
    const response = await this.#calls.repeated(ScheduleService.method.listSchedules, request, options);
    const { schedules, nextPageToken } = response;
    return {
      items: schedules.map(fromScheduleView),
      nextPageToken: nextPageToken || undefined,
      ...jsonOf(ListSchedulesResponseSchema, response),
    };
  }

  listAll(queue: string, options: Omit<PageOptions, "pageToken"> = {}): AsyncGenerator<Schedule, void, undefined> {
    return allPages((pageToken) => this.list(queue, { ...options, pageToken }));
  }

  /** Removes a schedule; jobs that it has put stay. False when there was none. */
  async delete(queue: string, id: string, options: CallOptions = {}): Promise<boolean> {
    const request = create(DeleteScheduleRequestSchema, { queue, id });
    return (await this.#calls.repeated(ScheduleService.method.deleteSchedule, request, options)).deleted;
  }

  /** Puts the schedule's job now, beside its ticks, and gives its id. Not repeated: every call puts a job. */
  async trigger(queue: string, id: string, options: CallOptions = {}): Promise<string> {
    const request = create(TriggerScheduleRequestSchema, { queue, id });
    return (await this.#calls.once(ScheduleService.method.triggerSchedule, request, options)).jobId;
  }

  /** Puts no jobs until it is resumed; ticks that pass meanwhile are not made up for. False when it was paused already. */
  async pause(queue: string, id: string, options: CallOptions = {}): Promise<boolean> {
    const request = create(PauseScheduleRequestSchema, { queue, id });
    return (await this.#calls.repeated(ScheduleService.method.pauseSchedule, request, options)).changed;
  }

  /** Ends a pause: the next tick follows from now. False when there was none. */
  async resume(queue: string, id: string, options: CallOptions = {}): Promise<boolean> {
    const request = create(ResumeScheduleRequestSchema, { queue, id });
    return (await this.#calls.repeated(ScheduleService.method.resumeSchedule, request, options)).changed;
  }
}

function shown(schedule: ScheduleView | undefined): Schedule {
  if (schedule === undefined) throw new BatonClientError("INTERNAL", "the broker's answer holds no schedule");
  return fromScheduleView(schedule);
}
