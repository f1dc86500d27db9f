import { create } from "@bufbuild/protobuf";
import { type ListRequest, type ListResponse, ListResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { Position } from "../broker/jobs.ts";
import { Checks } from "./checks.ts";
import { jobMessage } from "./job-message.ts";
import { checkJobState } from "./job-state.ts";
import type { Limits } from "./limits.ts";
import { checkPageToken, encodePageToken } from "./page-token.ts";

const DEFAULT_PAGE_SIZE = 100;

export async function list(
  broker: Broker,
  namespace: string,
  limits: Limits,
  request: ListRequest,
): Promise<ListResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  const state = checkJobState(checks, "state", request.state);
  const pageSize = checks.integer("page_size", request.pageSize, 0, limits.maxBatch);
  const query = [namespace, "List", queue, state];
  const token = checkPageToken(checks, query, request.pageToken);
  checks.done();
  const most = pageSize || Math.min(DEFAULT_PAGE_SIZE, limits.maxBatch);
  const { jobs, last } = await broker.jobs.list(queue, state, most, token && positionOf(token));
  return create(ListResponseSchema, {
    jobs: jobs.map((job) => jobMessage(job, limits)),
    ...(last && { nextPageToken: encodePageToken(query, [last.score, last.member]) }),
  });
}

function positionOf([score, member]: readonly Buffer[]): Position | undefined {
  return score && member && { score: score.toString(), member };
}
