/** `client.queues`: one method for each RPC of QueueService. All of them are safe to repeat, and are repeated. */
import { create } from "@bufbuild/protobuf";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import {
  GetQueueRequestSchema,
  ListQueuesRequestSchema,
  ListQueuesResponseSchema,
  ListWorkersRequestSchema,
  ListWorkersResponseSchema,
  PauseQueueRequestSchema,
  PurgeQueueRequestSchema,
  type Queue as QueueMessage,
  QueueService,
  QuietWorkerRequestSchema,
  RequeueRequestSchema,
  ResumeQueueRequestSchema,
  ResumeWorkerRequestSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import type { CallOptions, Calls } from "./calls.ts";
import { BatonClientError } from "./error.ts";
import { type JobStateName, jsonOf } from "./output.ts";
import { allPages, type Page, type PageOptions } from "./page.ts";
import {
  fromQueue,
  fromWorkerInfo,
  type Queue,
  type QueueChange,
  toUpdateRequest,
  type WorkerInfo,
} from "./queue-types.ts";

export type WorkersOptions = PageOptions & {
  /** Only workers at this queue. Default: at any. */
  readonly queue?: string | undefined;
};

export class Queues {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** One page, in the order of their names. */
  async list({ pageSize = 0, pageToken = "", ...options }: PageOptions = {}): Promise<Page<Queue>> {
    const request = create(ListQueuesRequestSchema, { pageSize, pageToken });
    const response = await this.#calls.repeated(QueueService.method.listQueues, request, options);
    const { queues, nextPageToken } = response;
    return {
      items: queues.map(fromQueue),
      nextPageToken: nextPageToken || undefined,
      ...jsonOf(ListQueuesResponseSchema, response),
    };
  }

  listAll(options: Omit<PageOptions, "pageToken"> = {}): AsyncGenerator<Queue, void, undefined> {
    return allPages((pageToken) => this.list({ ...options, pageToken }));
  }

  /** Throws with reason QUEUE_NOT_FOUND. */
  async get(queue: string, options: CallOptions = {}): Promise<Queue> {
    const request = create(GetQueueRequestSchema, { queue });
    return shown((await this.#calls.repeated(QueueService.method.getQueue, request, options)).queue);
  }

  /** Changes settings, those that `change` names. They hold from the next call on, at every broker. */
  async update(queue: string, change: QueueChange, options: CallOptions = {}): Promise<Queue> {
    const request = toUpdateRequest(queue, change);
    return shown((await this.#calls.repeated(QueueService.method.updateQueue, request, options)).queue);
  }

  /** No job is handed out any more; what is running goes on. False when the queue was paused already. */
  async pause(queue: string, options: CallOptions = {}): Promise<boolean> {
    const request = create(PauseQueueRequestSchema, { queue });
    return (await this.#calls.repeated(QueueService.method.pauseQueue, request, options)).changed;
  }

  /** Ends a pause. False when there was none. */
  async resume(queue: string, options: CallOptions = {}): Promise<boolean> {
    const request = create(ResumeQueueRequestSchema, { queue });
    return (await this.#calls.repeated(QueueService.method.resumeQueue, request, options)).changed;
  }

  /** Removes all jobs in one of these states, and gives their number. */
  async purge(
    queue: string,
    states: readonly Exclude<JobStateName, "UNSPECIFIED">[],
    options: CallOptions = {},
  ): Promise<number> {
    const request = create(PurgeQueueRequestSchema, { queue, states: states.map((state) => JobState[state]) });
    return Number((await this.#calls.repeated(QueueService.method.purgeQueue, request, options)).purged);
  }

  /** Gives back at most `limit` (default 1,000) reservations whose lease has ended, and gives their number. */
  async requeue(
    queue: string,
    { limit = 0, ...options }: CallOptions & { readonly limit?: number | undefined } = {},
  ): Promise<number> {
    const request = create(RequeueRequestSchema, { queue, limit });
    return (await this.#calls.repeated(QueueService.method.requeue, request, options)).requeued;
  }

  /** One page of the workers that hold a stream open, or have called reserve within the last 30 s. */
  async workers({
    queue = "",
    pageSize = 0,
    pageToken = "",
    ...options
  }: WorkersOptions = {}): Promise<Page<WorkerInfo>> {
    const request = create(ListWorkersRequestSchema, { queue, pageSize, pageToken });
    const response = await this.#calls.repeated(QueueService.method.listWorkers, request, options);
    const { workers, nextPageToken } = response;
    return {
      items: workers.map(fromWorkerInfo),
      nextPageToken: nextPageToken || undefined,
      ...jsonOf(ListWorkersResponseSchema, response),
    };
  }

  allWorkers(options: Omit<WorkersOptions, "pageToken"> = {}): AsyncGenerator<WorkerInfo, void, undefined> {
    return allPages((pageToken) => this.workers({ ...options, pageToken }));
  }

  /** Hands no more jobs to the workers of this id; what they run goes on. False when they were quiet already. */
  async quiet(workerId: string, options: CallOptions = {}): Promise<boolean> {
    const request = create(QuietWorkerRequestSchema, { workerId });
    return (await this.#calls.repeated(QueueService.method.quietWorker, request, options)).changed;
  }

  /** Ends what `quiet` began. False when they were not quiet. */
  async resumeWorker(workerId: string, options: CallOptions = {}): Promise<boolean> {
    const request = create(ResumeWorkerRequestSchema, { workerId });
    return (await this.#calls.repeated(QueueService.method.resumeWorker, request, options)).changed;
  }
}

function shown(queue: QueueMessage | undefined): Queue {
  if (queue === undefined) throw new BatonClientError("INTERNAL", "the broker's answer holds no queue");
  return fromQueue(queue);
}
