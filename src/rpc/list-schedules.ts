import { create } from "@bufbuild/protobuf";
import {
  type ListSchedulesRequest,
  type ListSchedulesResponse,
  ListSchedulesResponseSchema,
} from "../../gen/baton/v1/schedule_service_pb.js";
import type { Schedules } from "../broker/schedules.ts";
import { Checks } from "./checks.ts";
import { checkPageToken, encodePageToken } from "./page-token.ts";
import { scheduleView } from "./schedule-message.ts";

const MAX_PAGE_SIZE = 1_000;
const DEFAULT_PAGE_SIZE = 100;

export async function listSchedules(
  schedules: Schedules,
  namespace: string,
  request: ListSchedulesRequest,
): Promise<ListSchedulesResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  const query = [namespace, "ListSchedules", queue];
  const most = checks.integer("page_size", request.pageSize, 0, MAX_PAGE_SIZE) || DEFAULT_PAGE_SIZE;
  const position = checkPageToken(checks, query, request.pageToken);
  checks.done();
  const page = await schedules.list(queue, most, position?.[0]?.toString() ?? "");
  return create(ListSchedulesResponseSchema, {
    schedules: page.schedules.map((stored) => scheduleView(queue, stored)),
    ...(page.last !== undefined && { nextPageToken: encodePageToken(query, [page.last]) }),
  });
}
