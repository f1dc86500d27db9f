/**
 * The client: one method for each RPC, in TypeScript's own terms.
 *
 * What is safe to repeat is repeated while the broker is UNAVAILABLE, with backoff, until the call's deadline: Get,
 * Delete, Extend and every release; a put when the client made the id itself, or when the user's own id comes with
 * `onConflict: "KEEP"`. Reserve and other puts are the user's to repeat.
 */
import { create } from "@bufbuild/protobuf";
import { type ChannelCredentials, credentials as grpcCredentials } from "@grpc/grpc-js";
import { v7 as uuidv7 } from "uuid";
import {
  DeleteRequestSchema,
  ExtendRequestSchema,
  GetRequestSchema,
  JobService,
  OnConflict,
  PutManyRequestSchema,
  type PutRequest,
  ReleaseManyRequestSchema,
  type ReleaseRequest,
} from "../../gen/baton/v1/job_service_pb.js";
import { repeatWhileUnavailable } from "./backoff.ts";
import { putBatch, releaseBatch } from "./batch.ts";
import { Connection } from "./call.ts";
import { BatonClientError, fromStatus } from "./error.ts";
import {
  type Outcome,
  type PutInput,
  type ReleaseInput,
  type ReserveInput,
  type SubscribeInput,
  toDuration,
  toPutRequest,
  toReleaseRequest,
  toReserveRequest,
  toSubscribeRequest,
} from "./input.ts";
import {
  type BatchResult,
  type DeleteResult,
  date,
  fromDeleteResponse,
  fromJob,
  fromPutResponse,
  fromReleaseResponse,
  fromReservedJob,
  fromSubscribeResponse,
  type Job,
  type PutResult,
  type ReleaseResult,
  type ReservedJob,
  type SubscribeEvent,
} from "./output.ts";

export type BatonClientOptions = {
  /** `host:port`, or any target that gRPC takes: `dns:///…`, `unix:/path`. */
  readonly address: string;
  /** Default: no TLS. From `credentials` of @grpc/grpc-js. */
  readonly credentials?: ChannelCredentials | undefined;
  /** How long a call may take, its repetitions included, unless it says so itself. Default 30 s. */
  readonly defaultDeadlineMs?: number | undefined;
  /** The largest answer that is taken. Default 64 MiB. */
  readonly maxMessageBytes?: number | undefined;
};

export type CallOptions = {
  /** How long the call may take, its repetitions included. */
  readonly deadlineMs?: number | undefined;
  /** Ends the call, which then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
};

/**
 * A connection to a broker. It connects with the first call and reconnects by itself.
 *
 * ```ts
 * const client = new BatonClient({ address: "127.0.0.1:7711" });
 * const { jobId } = await client.put({ queue: "email", payload: { json: { to: "ann@example.com" } } });
 * client.close();
 * ```
 */
export class BatonClient {
  readonly address: string;
  readonly #connection: Connection;
  readonly #defaultDeadlineMs: number;

  constructor(options: BatonClientOptions) {
    this.address = options.address;
    this.#defaultDeadlineMs = options.defaultDeadlineMs ?? 30_000;
    this.#connection = new Connection(options.address, options.credentials ?? grpcCredentials.createInsecure(), {
      // gRPC's own defaults would leave a client deaf for up to two minutes after its broker came back.
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 2_000,
      "grpc.max_receive_message_length": options.maxMessageBytes ?? 64 * 1024 * 1024,
      "grpc.max_send_message_length": -1,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.enable_channelz": 0,
    });
  }

  /** Puts one job. Throws BatonClientError, with reason JOB_EXISTS where the id is taken. */
  async put(input: PutInput, options: CallOptions = {}): Promise<PutResult> {
    const { request, ownId } = this.#prepare(input);
    const attempt = (deadlineMs: number) =>
      this.#connection.unary(JobService.method.put, request, { deadlineMs, signal: options.signal });
    const limits = this.#limits(options);
    const response = isRepeatable(request)
      ? await repeatWhileUnavailable(attempt, limits)
      : await attempt(limits.deadlineMs);
    // Nobody else has this id: where a repetition found the job, an earlier attempt of this call had created it.
    if (ownId) response.created = true;
    return fromPutResponse(response);
  }

  /** Puts several jobs. One result for each, in their order; throws only when nothing could be put at all. */
  async putMany(inputs: readonly PutInput[], options: CallOptions = {}): Promise<BatchResult<PutResult>[]> {
    const prepared = inputs.map((input) => this.#prepare(input));
    const results = await putBatch(
      prepared.map(({ request }) => request),
      isRepeatable,
      async (jobs, deadlineMs) => {
        const request = create(PutManyRequestSchema, { jobs });
        const call = { deadlineMs, signal: options.signal };
        return (await this.#connection.unary(JobService.method.putMany, request, call)).results;
      },
      this.#limits(options),
    );
    return results.map((result, index) => {
      if (!result.ok) return result;
      if (prepared[index]?.ownId) result.value.created = true;
      return { ok: true, value: fromPutResponse(result.value) };
    });
  }

  /** Takes jobs that are ready, or waits for the first for up to `waitMs`. Empty when there was none. */
  async reserve(input: ReserveInput, options: CallOptions = {}): Promise<ReservedJob[]> {
    const deadlineMs = options.deadlineMs ?? (input.waitMs ?? 0) + this.#defaultDeadlineMs;
    const call = { deadlineMs, signal: options.signal };
    const { jobs } = await this.#connection.unary(JobService.method.reserve, toReserveRequest(input), call);
    return jobs.map(fromReservedJob);
  }

  /** Ends a reservation. Throws with reason LEASE_LOST when the lease had ended. */
  async release(leaseToken: string, outcome: Outcome, options: CallOptions = {}): Promise<ReleaseResult> {
    const request = toReleaseRequest(leaseToken, outcome);
    const response = await repeatWhileUnavailable(
      (deadlineMs) =>
        this.#connection.unary(JobService.method.release, request, { deadlineMs, signal: options.signal }),
      this.#limits(options),
    );
    return fromReleaseResponse(response);
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
        const call = { deadlineMs, signal: options.signal };
        return (await this.#connection.unary(JobService.method.releaseMany, request, call)).results;
      },
      this.#limits(options),
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
    const { results } = await repeatWhileUnavailable(
      (deadlineMs) => this.#connection.unary(JobService.method.extend, request, { deadlineMs, signal: options.signal }),
      this.#limits(options),
    );
    return results.map(({ result }) => {
      if (result.case === "error") return { ok: false, error: fromStatus(result.value) };
      return { ok: true, value: date(result.value) ?? new Date(0) };
    });
  }

  /** Removes a job, in any state; `deleted` is false when there was none. */
  async delete(queue: string, id: string, options: CallOptions = {}): Promise<DeleteResult> {
    const request = create(DeleteRequestSchema, { queue, id });
    const response = await repeatWhileUnavailable(
      (deadlineMs) => this.#connection.unary(JobService.method.delete, request, { deadlineMs, signal: options.signal }),
      this.#limits(options),
    );
    return fromDeleteResponse(response);
  }

  /** Shows a job. Throws with reason JOB_NOT_FOUND. */
  async get(queue: string, id: string, options: CallOptions = {}): Promise<Job> {
    const request = create(GetRequestSchema, { queue, id });
    const { job } = await repeatWhileUnavailable(
      (deadlineMs) => this.#connection.unary(JobService.method.get, request, { deadlineMs, signal: options.signal }),
      this.#limits(options),
    );
    if (job === undefined) throw new BatonClientError("INTERNAL", "the broker's answer holds no job");
    return fromJob(job);
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

  /** Ends all calls and the connection. Harmless when done before. */
  close(): void {
    this.#connection.close();
  }

  #limits({ deadlineMs = this.#defaultDeadlineMs, signal }: CallOptions) {
    return { deadlineMs, signal };
  }

  /** A job without an id gets one here, so that repeating the put cannot make a second job. */
  #prepare(input: PutInput): { readonly request: PutRequest; readonly ownId: boolean } {
    const request = toPutRequest(input);
    const ownId = request.id === "";
    if (ownId) {
      request.id = uuidv7();
      request.onConflict = OnConflict.KEEP;
    }
    return { request, ownId };
  }
}

function isRepeatable(request: PutRequest): boolean {
  return request.onConflict === OnConflict.KEEP;
}
