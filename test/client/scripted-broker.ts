/**
 * A JobService over a real socket whose answers a test writes: for what a real broker does only by accident, such as
 * answering UNAVAILABLE twice, or losing a stream at a chosen moment. All else is tested against the real broker.
 */
import {
  create,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { anyPack, durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerWritableStream,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { JobState, type ReservedJobSchema } from "../../gen/baton/v1/job_pb.js";
import {
  JobService,
  type ReleaseRequest,
  type ReleaseResultSchema,
  type SubscribeRequest,
  SubscribeRequestSchema,
  type SubscribeResponse,
  SubscribeResponseSchema,
  type WorkRequest,
  type WorkResponse,
  WorkResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { until } from "../support/wait.ts";

type Methods = typeof JobService.method;
type UnaryName = Exclude<keyof Methods, "subscribe" | "work" | "watch">;

export type Script = {
  [K in UnaryName]?: (
    request: MessageShape<Methods[K]["input"]>,
  ) => MessageInitShape<Methods[K]["output"]> | Promise<MessageInitShape<Methods[K]["output"]>>;
};

/** Throw it in a script: the call ends with this status. */
export class Refusal extends Error {
  readonly status: Status;

  constructor(status: Status) {
    super(status.message);
    this.status = status;
  }
}

export function statusOf(
  code: number,
  reason: string,
  { message = reason, metadata = {}, violations, retryAfterMs }: StatusExtras = {},
): Status {
  const details = [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { domain: "baton", reason, metadata }))];
  if (violations !== undefined) {
    details.push(anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations: violations })));
  }
  if (retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(retryAfterMs);
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
  }
  return create(StatusSchema, { code, message, details });
}

type StatusExtras = {
  message?: string;
  metadata?: Record<string, string>;
  violations?: { field: string; description: string }[];
  retryAfterMs?: number;
};

/** What the streams of both kinds have in common. */
abstract class ScriptedCall {
  readonly openedAt = performance.now();
  cancelled = false;
  readonly #call:
    | ServerWritableStream<SubscribeRequest, SubscribeResponse>
    | ServerDuplexStream<WorkRequest, WorkResponse>;

  constructor(
    call: ServerWritableStream<SubscribeRequest, SubscribeResponse> | ServerDuplexStream<WorkRequest, WorkResponse>,
  ) {
    this.#call = call;
    call.on("cancelled", () => {
      this.cancelled = true;
    });
  }

  end(): void {
    this.#call.end();
  }

  break(status: Status): void {
    this.#call.emit("error", toServiceError(status));
  }
}

/** One open Subscribe, as the broker sees it. */
export class ScriptedStream extends ScriptedCall {
  readonly request: SubscribeRequest;
  readonly #call: ServerWritableStream<SubscribeRequest, SubscribeResponse>;

  constructor(call: ServerWritableStream<SubscribeRequest, SubscribeResponse>) {
    super(call);
    this.request = call.request;
    this.#call = call;
  }

  send(event: MessageInitShape<typeof SubscribeResponseSchema>["event"]): void {
    this.#call.write(create(SubscribeResponseSchema, event === undefined ? {} : { event }));
  }

  start(times: Times = {}): this {
    this.send({ case: "started", value: startedOf(times) });
    return this;
  }

  jobs(...ids: string[]): void {
    this.send({ case: "jobs", value: { jobs: ids.map(job) } });
  }
}

/** One open Work, as the broker sees it. */
export class ScriptedWork extends ScriptedCall {
  /** All that came. */
  readonly messages: WorkRequest[] = [];
  /** The worker has closed its side. */
  finished = false;
  readonly #call: ServerDuplexStream<WorkRequest, WorkResponse>;

  constructor(call: ServerDuplexStream<WorkRequest, WorkResponse>, onMessage: OnWork) {
    super(call);
    this.#call = call;
    call.on("data", (message: WorkRequest) => {
      this.messages.push(message);
      onMessage(this, message);
    });
    call.on("end", () => {
      this.finished = !this.cancelled;
      this.end();
    });
  }

  /** What it was begun with; undefined: it has not come yet. */
  get request(): SubscribeRequest {
    return this.messages[0]?.start ?? create(SubscribeRequestSchema);
  }

  /** The credit in force. */
  get credit(): number {
    const credits = this.messages.flatMap(({ credit }) => (credit === undefined ? [] : [credit.maxOutstanding]));
    return credits.at(-1) ?? this.request.maxOutstanding;
  }

  send(response: MessageInitShape<typeof WorkResponseSchema>): void {
    this.#call.write(create(WorkResponseSchema, response));
  }

  start(times: Times = {}): this {
    this.send({ started: startedOf(times) });
    return this;
  }

  jobs(...ids: string[]): void {
    this.send({ jobs: ids.map(job) });
  }

  /** As jobs that have no lease. */
  pulled(...ids: string[]): void {
    this.send({ jobs: ids.map((id) => ({ ...job(id), leaseExpiresAt: undefined })) });
  }

  /** Reads no more for now. */
  pause(): void {
    this.#call.pause();
  }

  resume(): void {
    this.#call.resume();
  }

  answer(
    { sequence }: ReleaseRequest,
    result: Answer = { case: "released", value: { state: JobState.COMPLETED } },
  ): void {
    this.send({ released: [{ sequences: [sequence], result: { result } }] });
  }
}

export type Answer = NonNullable<MessageInitShape<typeof ReleaseResultSchema>["result"]>;

/** Called with each message of each Work call. */
export type OnWork = (stream: ScriptedWork, message: WorkRequest) => void;

/** As a broker does that accepts everything. */
export const acceptAll: OnWork = (stream, { releases, quiet }) => {
  for (const release of releases) stream.answer(release);
  if (quiet !== undefined) stream.send({ quiet });
};

type Times = { readonly leaseMs?: number; readonly graceMs?: number };

function startedOf({ leaseMs = 30_000, graceMs = 2_000 }: Times) {
  return { workerId: "w", leaseDuration: durationFromMs(leaseMs), disconnectGrace: durationFromMs(graceMs) };
}

/** A job whose token is `token-<id>`. */
export function job(id: string): MessageInitShape<typeof ReservedJobSchema> {
  return {
    queue: "q",
    id,
    payload: { content: { case: "text", value: `payload of ${id}` } },
    putAt: timestampFromMs(1_790_000_000_000),
    leaseToken: `token-${id}`,
    leaseExpiresAt: timestampFromMs(1_790_000_030_000),
    attempt: 1,
  };
}

export type ScriptedBroker = {
  readonly address: string;
  /** Waits for the nth Subscribe (0 for the first). */
  stream(index: number): Promise<ScriptedStream>;
  /** Every Work so far, the ended ones included. */
  readonly works: readonly ScriptedWork[];
  /** Waits for the nth Work to have begun. */
  work(index: number): Promise<ScriptedWork>;
  stop(): void;
};

export async function startScriptedBroker(
  script: Script,
  { port = 0, onWork = acceptAll }: { readonly port?: number; readonly onWork?: OnWork } = {},
): Promise<ScriptedBroker> {
  const server = new Server({ "grpc.max_receive_message_length": -1 });
  const streams: ScriptedStream[] = [];
  const works: ScriptedWork[] = [];
  const implementation: UntypedServiceImplementation = {
    subscribe: (call: ServerWritableStream<SubscribeRequest, SubscribeResponse>) => {
      streams.push(new ScriptedStream(call));
    },
    work: (call: ServerDuplexStream<WorkRequest, WorkResponse>) => {
      works.push(new ScriptedWork(call, onWork));
    },
  };
  for (const [name, answer] of Object.entries(script)) implementation[name] = unary(name as UnaryName, answer);
  server.addService(definition(), implementation);
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, actual) => {
      if (error === null) resolve(actual);
      else reject(error);
    });
  });
  return {
    address: `127.0.0.1:${bound}`,
    stream: (index) => until(() => streams[index], { what: `stream ${index} to be opened` }),
    works,
    work: (index) =>
      until(() => (works[index]?.messages.length ? works[index] : undefined), { what: `Work ${index} to begin` }),
    stop: () => server.forceShutdown(),
  };
}

function unary(name: UnaryName, answer: unknown): handleUnaryCall<unknown, unknown> {
  const method: DescMethod = JobService.method[name];
  const handle = answer as (request: unknown) => MessageInitShape<typeof method.output>;
  return (call, callback) => {
    Promise.resolve()
      .then(() => handle(call.request))
      .then((init) => callback(null, create(method.output, init)))
      .catch((error) => callback(error instanceof Refusal ? toServiceError(error.status) : error));
  };
}

function toServiceError(status: Status) {
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)));
  return Object.assign(new Error(status.message), { code: status.code, details: status.message, metadata });
}

function definition(): ServiceDefinition {
  return Object.fromEntries(
    JobService.methods.map((method) => [
      method.localName,
      {
        path: `/${JobService.typeName}/${method.name}`,
        requestStream: method.methodKind === "bidi_streaming",
        responseStream: method.methodKind !== "unary",
        requestSerialize: (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
        requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
        responseSerialize: (message: MessageShape<typeof method.output>) =>
          Buffer.from(toBinary(method.output, message)),
        responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
      },
    ]),
  );
}
