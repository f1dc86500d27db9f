/**
 * JobService as any gRPC client sees it: takes messages or bare bytes, checks nothing, and shows an error with all the
 * details that came with it.
 */
import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { anyUnpack, type DurationSchema, durationMs } from "@bufbuild/protobuf/wkt";
import {
  type CallOptions,
  Client,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  status as StatusCode,
} from "@grpc/grpc-js";
import type { ReservedJob } from "../../gen/baton/v1/job_pb.js";
import {
  JobService,
  SubscribeRequestSchema,
  type SubscribeResponse,
  SubscribeResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { until, within } from "../support/wait.ts";

type Methods = typeof JobService.method;
export type Method = { [K in keyof Methods]: Methods[K] extends DescMethodUnary ? K : never }[keyof Methods];
export type Request<K extends Method> = MessageInitShape<Methods[K]["input"]>;
export type Response<K extends Method> = MessageShape<Methods[K]["output"]>;

export type CallError = {
  /** NOT_FOUND and the like. */
  readonly code: string;
  readonly message: string;
  /** Of the ErrorInfo; undefined without one. */
  readonly reason: string | undefined;
  readonly domain: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly { readonly field: string; readonly description: string }[];
  readonly retryAfterMs: number | undefined;
};

export type Answer<T> = { readonly response: T } | { readonly error: CallError };

type ReserveOptions = {
  readonly leaseDuration?: MessageInitShape<typeof DurationSchema>;
  readonly workerId?: string;
  /** Default 8 s. */
  readonly wait?: MessageInitShape<typeof DurationSchema>;
};

export type OpenCall<T> = { readonly answer: Promise<Answer<T>>; cancel(): void };

type Event = SubscribeResponse["event"];
export type EventOf<C extends Event["case"]> = Extract<Event, { case: C }>["value"];

const ANSWER_WITHIN_MS = 10_000;

export class RawClient {
  readonly #client: Client;

  constructor(address: string, options: Readonly<Record<string, number>> = {}) {
    this.#client = new Client(address, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.max_receive_message_length": -1,
      ...options,
    });
  }

  /** `request`: a message, or any bytes. */
  start<K extends Method>(
    method: K,
    request: Request<K> | Uint8Array,
    options: CallOptions = {},
  ): OpenCall<Response<K>> {
    const { name, input, output }: DescMethodUnary = JobService.method[method];
    const bytes =
      request instanceof Uint8Array
        ? request
        : toBinary(input, create(input, request as MessageInitShape<typeof input>));
    const call = this.startPath(`/${JobService.typeName}/${name}`, bytes, options);
    const answer = call.answer.then((it) =>
      "error" in it ? it : { response: fromBinary(output, it.response) as Response<K> },
    );
    return { answer, cancel: call.cancel };
  }

  /** Any path, also one that there is not. */
  startPath(path: string, bytes: Uint8Array, options: CallOptions = {}): OpenCall<Buffer> {
    const { promise, resolve } = Promise.withResolvers<Answer<Buffer>>();
    const call = this.#client.makeUnaryRequest(
      path,
      asItIs,
      asItIs,
      Buffer.from(bytes),
      new Metadata(),
      options,
      (error, response = Buffer.alloc(0)) => resolve(error ? { error: callError(error) } : { response }),
    );
    const answer = within(promise, { what: `an answer from ${path}`, withinMs: ANSWER_WITHIN_MS });
    return { answer, cancel: () => call.cancel() };
  }

  call<K extends Method>(method: K, request: Request<K> | Uint8Array, options?: CallOptions) {
    return this.start(method, request, options).answer;
  }

  /** For a call that should end well. */
  async good<K extends Method>(method: K, request: Request<K>, options?: CallOptions): Promise<Response<K>> {
    const answer = await this.call(method, request, options);
    if ("response" in answer) return answer.response;
    throw new Error(`${method} failed: ${JSON.stringify(answer.error)}`);
  }

  /** For a call that should fail. */
  async bad<K extends Method>(method: K, request: Request<K> | Uint8Array, options?: CallOptions): Promise<CallError> {
    const answer = await this.call(method, request, options);
    if ("error" in answer) return answer.error;
    throw new Error(`${method} should have failed, and answered ${JSON.stringify(answer.response, bigintAsText)}`);
  }

  /** The jobs of a Reserve. */
  async reserve(request: Request<"reserve">): Promise<ReservedJob[]> {
    return (await this.good("reserve", request)).jobs;
  }

  /** So many jobs of this queue, which must be there, in as many calls as it takes: one may give fewer than it is asked for. */
  async reserveMany(queue: string, count: number): Promise<ReservedJob[]> {
    const all: ReservedJob[] = [];
    while (all.length < count) {
      const jobs = await this.reserve({ queues: [{ name: queue }], maxJobs: Math.min(1_000, count - all.length) });
      if (jobs.length === 0) throw new Error(`queue ${queue} had ${all.length} jobs instead of ${count}`);
      all.push(...jobs);
    }
    return all;
  }

  /** The one job that a Reserve of this queue gets. */
  async reserveOne(queue: string, options: ReserveOptions = {}): Promise<ReservedJob> {
    const jobs = await this.reserve({ queues: [{ name: queue }], wait: { seconds: 8n }, ...options });
    if (jobs[0] && jobs.length === 1) return jobs[0];
    throw new Error(`queue ${queue} gave ${jobs.length} jobs instead of one`);
  }

  subscribe(request: MessageInitShape<typeof SubscribeRequestSchema> | Uint8Array): RawStream {
    const bytes =
      request instanceof Uint8Array
        ? request
        : toBinary(SubscribeRequestSchema, create(SubscribeRequestSchema, request));
    return new RawStream(
      this.#client.makeServerStreamRequest(
        `/${JobService.typeName}/Subscribe`,
        asItIs,
        (answer: Buffer) => fromBinary(SubscribeResponseSchema, answer),
        Buffer.from(bytes),
        new Metadata(),
        {},
      ),
    );
  }

  close(): void {
    this.#client.close();
  }
}

/** A Subscribe call, whose events pile up where a test can see them. */
export class RawStream {
  readonly events: Event[] = [];
  /** Undefined when the broker ended it well. */
  readonly ended: Promise<CallError | undefined>;
  readonly call: ClientReadableStream<SubscribeResponse>;

  constructor(call: ClientReadableStream<SubscribeResponse>) {
    this.call = call;
    call.on("data", ({ event }: SubscribeResponse) => this.events.push(event));
    this.ended = new Promise((resolve) => {
      call.once("error", (error: ServiceError) => resolve(callError(error)));
      call.once("end", () => resolve(undefined));
    });
  }

  all<C extends Event["case"]>(kind: C): EventOf<C>[] {
    return this.events.flatMap((event) => (event.case === kind ? [event.value as EventOf<C>] : []));
  }

  jobs(): ReservedJob[] {
    return this.all("jobs").flatMap(({ jobs }) => jobs);
  }

  /** Until so many events of this kind have come; the last of them. */
  async saw<C extends Event["case"]>(kind: C, count = 1): Promise<EventOf<C>> {
    const events = await until(
      () => {
        const found = this.all(kind);
        return found.length >= count && found;
      },
      { what: `a stream to say "${kind}" ${count} times`, withinMs: ANSWER_WITHIN_MS },
    );
    return events[count - 1] as EventOf<C>;
  }

  /** Until so many jobs have come; all that have. */
  async got(count: number): Promise<ReservedJob[]> {
    await until(() => this.jobs().length >= count, {
      what: `a stream to get ${count} jobs`,
      withinMs: ANSWER_WITHIN_MS,
    });
    return this.jobs();
  }

  cancel(): void {
    this.call.cancel();
  }
}

type Settled = { readonly case: string | undefined; readonly value?: unknown };

/** Of one result of a batch, which should be an error. */
export function errorIn(result: Settled | undefined, what = "this"): CallError {
  if (result?.case !== "error") throw new Error(`${what} should have failed`);
  return statusError(result.value as Status);
}

/** What stands in a batch's result, or travels with a failed call. */
export function statusError({ code, message, details }: Status): CallError {
  const find = <D extends DescMessage>(schema: D) =>
    details.map((any) => anyUnpack(any, schema)).find((found) => found !== undefined);
  const info = find(ErrorInfoSchema);
  const retry = find(RetryInfoSchema)?.retryDelay;
  return {
    code: StatusCode[code] ?? String(code),
    message,
    reason: info?.reason,
    domain: info?.domain,
    metadata: { ...info?.metadata },
    violations: (find(BadRequestSchema)?.fieldViolations ?? []).map(({ field, description }) => ({
      field,
      description,
    })),
    retryAfterMs: retry && durationMs(retry),
  };
}

export function callError({ code, details, metadata }: ServiceError): CallError {
  const [bytes] = metadata.get("grpc-status-details-bin");
  if (Buffer.isBuffer(bytes)) return statusError(fromBinary(StatusSchema, bytes));
  const nothing = { reason: undefined, domain: undefined, metadata: {}, violations: [], retryAfterMs: undefined };
  return { code: StatusCode[code] ?? String(code), message: details, ...nothing };
}

const asItIs = (bytes: Buffer) => bytes;

const bigintAsText = (_key: string, value: unknown) => (typeof value === "bigint" ? String(value) : value);
