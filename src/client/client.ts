/**
 * The client: one method for each RPC, in TypeScript's own terms; those of the queues and the schedules stand in
 * `queues` and `schedules`.
 *
 * What is safe to repeat is repeated while the broker is UNAVAILABLE, with backoff, until the call's deadline: all that
 * changes nothing or changes the same only once, and every release and reserve; a put when the client made the id itself,
 * or when the user's own id comes with `onConflict: "KEEP"`. Other puts and the trigger of a schedule are the user's to
 * repeat.
 */
import { create } from "@bufbuild/protobuf";
import { type ChannelCredentials, credentials as grpcCredentials } from "@grpc/grpc-js";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import {
  CancelRequestSchema,
  DeleteRequestSchema,
  ExtendRequestSchema,
  GetRequestSchema,
  JobService,
  ListRequestSchema,
  ListResponseSchema,
  ReleaseManyRequestSchema,
  type ReleaseRequest,
  ReportProgressRequestSchema,
  RetryRequestSchema,
  type WorkRequest,
  type WorkResponse,
} from "../../gen/baton/v1/job_service_pb.js";
import { type AwaitOptions, awaitJob } from "./await.ts";
import { releaseBatch } from "./batch.ts";
import { Connection, type Duplex } from "./call.ts";
import { type CallOptions, Calls } from "./calls.ts";
import { BatonClientError, fromStatus } from "./error.ts";
import {
  type Outcome,
  type PutInput,
  type ReleaseInput,
  type ReserveInput,
  type SubscribeInput,
  toDuration,
  toReleaseRequest,
  toSubscribeRequest,
} from "./input.ts";
import {
  type BatchResult,
  type CancelResult,
  type DeleteResult,
  date,
  fromCancelResponse,
  fromDeleteResponse,
  fromJob,
  fromReleaseResponse,
  fromReservedJob,
  fromSubscribeResponse,
  type Job,
  type JobStateName,
  jsonOf,
  type PutResult,
  type ReleaseResult,
  type ReservedJob,
  type SubscribeEvent,
  stateName,
} from "./output.ts";
import { allPages, type Page, type PageOptions } from "./page.ts";
import { put, putMany } from "./put.ts";
import { Queues } from "./queues.ts";
import { reserve } from "./reserve.ts";
import { Schedules } from "./schedules.ts";
import { targetOf } from "./target.ts";
import { type WatchEvent, type WatchInput, type WatchOptions, watch } from "./watch.ts";

export type BatonClientOptions = {
  /**
   * `host:port`, or `unix:/path`. Of several brokers a list of `host:port`, or one of gRPC's targets that name several:
   * `dns:///host:port`, `ipv4:host:port,host:port`; the calls then go to those that are there in turn.
   */
  readonly address: string | readonly string[];
  /** Default: no TLS. From `credentials` of @grpc/grpc-js. */
  readonly credentials?: ChannelCredentials | undefined;
  /** How long a call may take, its repetitions included, unless it says so itself. Default 30 s. */
  readonly defaultDeadlineMs?: number | undefined;
  /** The largest answer that is taken. Default 64 MiB. */
  readonly maxMessageBytes?: number | undefined;
};

/** A state that a job can be in. */
export type ListedState = Exclude<JobStateName, "UNSPECIFIED">;

/**
 * A connection to a broker, or one to each of several. It connects with the first call and reconnects by itself.
 *
 * ```ts
 * const client = new BatonClient({ address: "127.0.0.1:7711" });
 * const { jobId } = await client.put({ queue: "email", payload: { json: { to: "ann@example.com" } } });
 * const { state, result } = await client.await("email", jobId);
 * client.close();
 * ```
 */
export class BatonClient {
  readonly address: string | readonly string[];
  /** Shows and runs queues, and the workers at them. */
  readonly queues: Queues;
  /** Puts jobs at recurring times. */
  readonly schedules: Schedules;
  readonly #connection: Connection;
  readonly #calls: Calls;

  constructor(options: BatonClientOptions) {
    this.address = options.address;
    const target = targetOf(options.address);
    this.#connection = new Connection(target.name, options.credentials ?? grpcCredentials.createInsecure(), {
      ...target.options,
      // gRPC's own defaults would leave a client deaf for up to two minutes after its broker came back, and for ever on
      // a connection that is dead without a word.
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 2_000,
      // A name may lead to other brokers after a restart; gRPC would look it up twice a minute, and ask for a TXT record.
      "grpc.dns_min_time_between_resolutions_ms": 2_000,
      "grpc.service_config_disable_resolution": 1,
      "grpc.keepalive_time_ms": 30_000,
      "grpc.keepalive_timeout_ms": 10_000,
      "grpc.max_receive_message_length": options.maxMessageBytes ?? 64 * 1024 * 1024,
      "grpc.max_send_message_length": -1,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.enable_channelz": 0,
    });
    this.#calls = new Calls(this.#connection, options.defaultDeadlineMs ?? 30_000);
    this.queues = new Queues(this.#calls);
    this.schedules = new Schedules(this.#calls);
  }

  /**
   * Puts one job. Throws BatonClientError with reason JOB_EXISTS where the id is taken, or UNIQUE_KEY_TAKEN where another
   * job keeps the unique key.
   */
  async put(input: PutInput, options: CallOptions = {}): Promise<PutResult> {
    return await put(this.#calls, input, options);
  }

  /** Puts several jobs. One result for each, in their order; throws only when nothing could be put at all. */
  async putMany(inputs: readonly PutInput[], options: CallOptions = {}): Promise<BatchResult<PutResult>[]> {
    return await putMany(this.#calls, inputs, options);
  }

  /** Takes jobs that are ready, or waits for the first for up to `waitMs`. Empty when there was none. */
  async reserve(input: ReserveInput, options: CallOptions = {}): Promise<ReservedJob[]> {
    const { jobs } = await reserve(this.#calls, input, options);
    return jobs.map(fromReservedJob);
  }

  /** Ends a reservation. Throws with reason LEASE_LOST when the lease had ended. */
  async release(leaseToken: string, outcome: Outcome, options: CallOptions = {}): Promise<ReleaseResult> {
    const request = toReleaseRequest(leaseToken, outcome);
    return fromReleaseResponse(await this.#calls.repeated(JobService.method.release, request, options));
  }

  /** Ends several reservations. One result for each, in their order; throws only when none could be ended at all. */
  async releaseMany(
    releases: readonly ReleaseInput[],
    options: CallOptions = {},
  ): Promise<BatchResult<ReleaseResult>[]> {
    return await this.releaseRequests(
      releases.map((release) => toReleaseRequest(release.leaseToken, release)),
      options,
    );
  }

  /** @internal As releaseMany, of messages that the worker has made already to know their size. */
  async releaseRequests(
    requests: readonly ReleaseRequest[],
    options: CallOptions = {},
  ): Promise<BatchResult<ReleaseResult>[]> {
    const results = await releaseBatch(
      requests,
      async (releases, deadlineMs) => {
        const request = create(ReleaseManyRequestSchema, { releases });
        return (await this.#calls.once(JobService.method.releaseMany, request, { ...options, deadlineMs })).results;
      },
      this.#calls.limits(options),
    );
    return results.map((result) => (result.ok ? { ok: true, value: fromReleaseResponse(result.value) } : result));
  }

  /** Lets leases end `leaseMs` from now (default 30 s). One result for each token: when its lease ends, or the error. */
  async extend(
    leaseTokens: readonly string[],
    { leaseMs, ...options }: CallOptions & { readonly leaseMs?: number | undefined } = {},
  ): Promise<BatchResult<Date>[]> {
    const request = create(ExtendRequestSchema, {
      leaseTokens: [...leaseTokens],
      ...(leaseMs !== undefined && { leaseDuration: toDuration("leaseMs", leaseMs) }),
    });
    const { results } = await this.#calls.repeated(JobService.method.extend, request, options);
    return results.map(({ result }) => {
      if (result.case === "error") return { ok: false, error: fromStatus(result.value) };
      return { ok: true, value: date(result.value) ?? new Date(0) };
    });
  }

  /**
   * Says how far a job has come, in percent, and in words of at most 1 KiB. What is reported more often than ten times a
   * second is merged. Throws with reason LEASE_LOST when the lease had ended. (A Worker's handlers have `progress` for it.)
   */
  async reportProgress(leaseToken: string, percent: number, note = "", options: CallOptions = {}): Promise<void> {
    const request = create(ReportProgressRequestSchema, { leaseToken, percent, note });
    await this.#calls.repeated(JobService.method.reportProgress, request, options);
  }

  /** Removes a job, in any state; `deleted` is false when there was none. */
  async delete(queue: string, id: string, options: CallOptions = {}): Promise<DeleteResult> {
    const request = create(DeleteRequestSchema, { queue, id });
    return fromDeleteResponse(await this.#calls.repeated(JobService.method.delete, request, options));
  }

  /** Ends a job that has not finished, and keeps it as FAILED; its worker is told at once. */
  async cancel(
    queue: string,
    id: string,
    { message = "", ...options }: CallOptions & { readonly message?: string | undefined } = {},
  ): Promise<CancelResult> {
    const request = create(CancelRequestSchema, { queue, id, message });
    return fromCancelResponse(await this.#calls.repeated(JobService.method.cancel, request, options));
  }

  /** Shows a job; `omitResult`: without its result. Throws with reason JOB_NOT_FOUND. */
  async get(
    queue: string,
    id: string,
    { omitResult = false, ...options }: CallOptions & { readonly omitResult?: boolean | undefined } = {},
  ): Promise<Job> {
    const request = create(GetRequestSchema, { queue, id, omitResult });
    const { job } = await this.#calls.repeated(JobService.method.get, request, options);
    if (job === undefined) throw new BatonClientError("INTERNAL", "the broker's answer holds no job");
    return fromJob(job);
  }

  /** One page of the jobs in one state: of READY the next ones first, of HELD by key, else by time. */
  async list(
    queue: string,
    state: ListedState,
    { pageSize = 0, pageToken = "", ...options }: PageOptions = {},
  ): Promise<Page<Job>> {
    const request = create(ListRequestSchema, { queue, state: JobState[state], pageSize, pageToken });
    const response = await this.#calls.repeated(JobService.method.list, request, options);
    return {
      items: response.jobs.map(fromJob),
      nextPageToken: response.nextPageToken || undefined,
      ...jsonOf(ListResponseSchema, response),
    };
  }

  /** All jobs in one state, page by page as they are needed. */
  listAll(
    queue: string,
    state: ListedState,
    options: Omit<PageOptions, "pageToken"> = {},
  ): AsyncGenerator<Job, void, undefined> {
    return allPages((pageToken) => this.list(queue, state, { ...options, pageToken }));
  }

  /** Lets jobs run again that are FAILED or COMPLETED. One result for each id, in their order: the state, or the error. */
  async retry(queue: string, ids: readonly string[], options: CallOptions = {}): Promise<BatchResult<JobStateName>[]> {
    const request = create(RetryRequestSchema, { queue, ids: [...ids] });
    const { results } = await this.#calls.repeated(JobService.method.retry, request, options);
    return results.map(({ result }) => {
      if (result.case === "error") return { ok: false, error: fromStatus(result.value) };
      return { ok: true, value: stateName(result.value ?? JobState.UNSPECIFIED) };
    });
  }

  /** Lets all jobs run again that are FAILED now, and gives the number of those that do. */
  async retryAllFailed(queue: string, options: CallOptions = {}): Promise<number> {
    const request = create(RetryRequestSchema, { queue, allFailed: true });
    return (await this.#calls.repeated(JobService.method.retry, request, options)).retried;
  }

  /**
   * Waits until a job is COMPLETED or FAILED, also when it was long ago, and gives it with its result or error. It calls
   * again when the connection or the broker goes away. Throws with reason AWAIT_TIMEOUT when the job has not finished
   * within `timeoutMs`, and JOB_NOT_FOUND when there is none (unless `expect`), or it was deleted.
   */
  async await(queue: string, id: string, options: AwaitOptions = {}): Promise<Job> {
    return await awaitJob(this.#calls, queue, id, options);
  }

  /**
   * What happens to the jobs of some queues, or to some jobs. It goes on over lost connections without missing an event,
   * and says where that was not possible (`gap`). It never ends by itself: leave the loop, or abort the signal, whose
   * reason it then throws.
   */
  watch(input: WatchInput, options: WatchOptions = {}): AsyncGenerator<WatchEvent, void, undefined> {
    return watch(this.#calls, input, options);
  }

  /**
   * Opens a stream of jobs and is told everything that happens on it. It ends when the broker ends it, throws
   * BatonClientError when it breaks, and the signal's reason when that aborts. A `Worker` does all of this for you.
   */
  async *subscribe(
    input: SubscribeInput,
    { signal }: { readonly signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<SubscribeEvent, void, undefined> {
    const request = toSubscribeRequest(input);
    for await (const response of this.#connection.stream(JobService.method.subscribe, request, { signal })) {
      const event = fromSubscribeResponse(response);
      if (event !== undefined) yield event;
    }
  }

  /** @internal The call on which a Worker works. */
  work(options: { readonly signal: AbortSignal }): Duplex<WorkRequest, WorkResponse> {
    return this.#connection.duplex(JobService.method.work, options);
  }

  /** Ends all calls and the connection. Harmless when done before. */
  close(): void {
    this.#connection.close();
  }
}
