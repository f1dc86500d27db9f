/** A schedule as it is stored, and as it is shown. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Schedule,
  ScheduleSchema,
  type ScheduleView,
  ScheduleViewSchema,
} from "../../gen/baton/v1/schedule_service_pb.js";
import type { StoredSchedule } from "../model/schedule.ts";

export function scheduleBytes(schedule: Schedule): Uint8Array {
  return toBinary(ScheduleSchema, schedule, { writeUnknownFields: false });
}

export function scheduleView(queue: string, stored: StoredSchedule): ScheduleView {
  const { id, paused, nextTickMs, lastRunAtMs, lastJobId } = stored;
  const schedule = readOrBlank(stored.definition);
  const view = create(ScheduleViewSchema, {
    // Who pauses it changes no definition.
    schedule: { ...schedule, queue, id, paused },
    createdAt: timestampFromMs(stored.createdAtMs),
    updatedAt: timestampFromMs(stored.updatedAtMs),
    lastJobId,
    runs: BigInt(stored.runs),
    skipped: BigInt(stored.skipped),
  });
  if (nextTickMs !== undefined) view.nextRunAt = timestampFromMs(nextTickMs);
  if (lastRunAtMs !== undefined) view.lastRunAt = timestampFromMs(lastRunAtMs);
  return view;
}

/** One that cannot be read must not hide the others of its page. */
function readOrBlank(definition: Uint8Array): Schedule {
  try {
    return fromBinary(ScheduleSchema, definition);
  } catch {
    return create(ScheduleSchema);
  }
}
