import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type ListWorkersRequest,
  type ListWorkersResponse,
  ListWorkersResponseSchema,
  type QuietWorkerRequest,
  type QuietWorkerResponse,
  QuietWorkerResponseSchema,
  type ResumeWorkerRequest,
  type ResumeWorkerResponse,
  ResumeWorkerResponseSchema,
  type WorkerInfo,
  WorkerInfoSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { WorkerView } from "../model/worker.ts";
import { Checks } from "./checks.ts";
import { checkPageToken, encodePageToken } from "./page-token.ts";

const MOST = 1_000;
const DEFAULT_PAGE = 100;

export async function listWorkers(
  broker: Broker,
  namespace: string,
  { queue, pageSize, pageToken }: ListWorkersRequest,
): Promise<ListWorkersResponse> {
  const checks = new Checks();
  if (queue !== "") checks.queue("queue", queue);
  const most = checks.integer("page_size", pageSize, 0, MOST) || DEFAULT_PAGE;
  const query = [namespace, "ListWorkers", queue];
  const [after] = checkPageToken(checks, query, pageToken) ?? [];
  checks.done();
  const { workers, last } = await broker.workers.list(queue, most, after?.toString());
  return create(ListWorkersResponseSchema, {
    workers: workers.map(workerInfo),
    nextPageToken: last === undefined ? "" : encodePageToken(query, [last]),
  });
}

export async function quietWorker(broker: Broker, { workerId }: QuietWorkerRequest): Promise<QuietWorkerResponse> {
  const changed = await broker.workers.setQuiet(checkWorkerId(workerId), true);
  return create(QuietWorkerResponseSchema, { changed });
}

export async function resumeWorker(broker: Broker, { workerId }: ResumeWorkerRequest): Promise<ResumeWorkerResponse> {
  const changed = await broker.workers.setQuiet(checkWorkerId(workerId), false);
  return create(ResumeWorkerResponseSchema, { changed });
}

function checkWorkerId(workerId: string): string {
  const checks = new Checks();
  if (workerId === "") checks.refuse("worker_id", "is required");
  checks.name("worker_id", workerId);
  checks.done();
  return workerId;
}

function workerInfo(worker: WorkerView): WorkerInfo {
  const { connectedAtMs, lastSeenMs, queues, ...same } = worker;
  return create(WorkerInfoSchema, {
    ...same,
    queues: [...queues],
    connectedAt: timestampFromMs(connectedAtMs),
    lastSeenAt: timestampFromMs(lastSeenMs),
  });
}
