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
  type ServerWritableStream,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import type { ReservedJobSchema } from "../../gen/baton/v1/job_pb.js";
import {
  JobService,
  type SubscribeRequest,
  type SubscribeResponse,
  SubscribeResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { type Status, StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { until } from "../support/wait.ts";

type Methods = typeof JobService.method;
type UnaryName = Exclude<keyof Methods, "subscribe">;

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

/** One open Subscribe, as the broker sees it. */
export class ScriptedStream {
  readonly request: SubscribeRequest;
  readonly #call: ServerWritableStream<SubscribeRequest, SubscribeResponse>;
  readonly openedAt = performance.now();
  cancelled = false;

  constructor(call: ServerWritableStream<SubscribeRequest, SubscribeResponse>) {
    this.request = call.request;
    this.#call = call;
    call.on("cancelled", () => {
      this.cancelled = true;
    });
  }

  send(event: MessageInitShape<typeof SubscribeResponseSchema>["event"]): void {
    this.#call.write(create(SubscribeResponseSchema, event === undefined ? {} : { event }));
  }

  start({ leaseMs = 30_000, graceMs = 2_000 } = {}): this {
    const leaseDuration = durationFromMs(leaseMs);
    const disconnectGrace = durationFromMs(graceMs);
    this.send({ case: "started", value: { workerId: "w", leaseDuration, disconnectGrace } });
    return this;
  }

  jobs(...ids: string[]): void {
    this.send({ case: "jobs", value: { jobs: ids.map(job) } });
  }

  /** As jobs that have no lease. */
  pulled(...ids: string[]): void {
    const jobs = ids.map((id) => ({ ...job(id), leaseExpiresAt: undefined }));
    this.send({ case: "jobs", value: { jobs } });
  }

  end(): void {
    this.#call.end();
  }

  break(status: Status): void {
    this.#call.emit("error", toServiceError(status));
  }
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
  /** Every Subscribe so far, the ended ones included. */
  readonly streams: readonly ScriptedStream[];
  /** Waits for the nth Subscribe (0 for the first). */
  stream(index: number): Promise<ScriptedStream>;
  stop(): void;
};

export async function startScriptedBroker(script: Script, { port = 0 } = {}): Promise<ScriptedBroker> {
  const server = new Server();
  const streams: ScriptedStream[] = [];
  const implementation: UntypedServiceImplementation = {
    subscribe: (call: ServerWritableStream<SubscribeRequest, SubscribeResponse>) => {
      streams.push(new ScriptedStream(call));
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
    streams,
    stream: (index) => until(() => streams[index], { what: `stream ${index} to be opened` }),
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
        requestStream: false,
        responseStream: method.methodKind === "server_streaming",
        requestSerialize: (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
        requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
        responseSerialize: (message: MessageShape<typeof method.output>) =>
          Buffer.from(toBinary(method.output, message)),
        responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
      },
    ]),
  );
}
