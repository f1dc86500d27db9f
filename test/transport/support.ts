/** A gRPC server with fake handlers of JobService, and a client of it that sees what is on the wire. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type CallOptions, Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import {
  JobService,
  type PutRequest,
  PutRequestSchema,
  PutResponseSchema,
  SubscribeRequestSchema,
  SubscribeResponseSchema,
  type WorkRequest,
  WorkRequestSchema,
  WorkResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import {
  type BadRequest,
  BadRequestSchema,
  type ErrorInfo,
  ErrorInfoSchema,
  type RetryInfo,
  RetryInfoSchema,
} from "../../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import type { LogFields, Logger } from "../../src/model/log.ts";
import { type Service, type ServiceHandlers, service } from "../../src/rpc/handler.ts";
import { type GrpcServerOptions, startGrpcServer } from "../../src/transport/grpc.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/wait.ts";

export const PUT = "/baton.v1.JobService/Put";
export const SUBSCRIBE = "/baton.v1.JobService/Subscribe";
export const WORK = "/baton.v1.JobService/Work";

export type LogEntry = { readonly level: string; readonly message: string; readonly fields: LogFields };

export type ServerSetting = {
  readonly handlers?: Partial<ServiceHandlers<typeof JobService>>;
  readonly address?: string;
  readonly limits?: Partial<GrpcServerOptions["limits"]>;
  readonly keepalive?: GrpcServerOptions["keepalive"];
  /** Default 0: connections don't age. */
  readonly maxConnectionAgeMs?: number;
};

export async function startServer(setting: ServerSetting = {}) {
  const entries: LogEntry[] = [];
  const server = await startGrpcServer({
    address: setting.address ?? "127.0.0.1:0",
    services: [fakeJobService(setting.handlers ?? {})],
    limits: { maxMessageBytes: 1 << 20, maxStreams: 100, maxConcurrentStreamsPerConnection: 1_000, ...setting.limits },
    keepalive: setting.keepalive ?? { intervalMs: 30_000, timeoutMs: 10_000 },
    maxConnectionAgeMs: setting.maxConnectionAgeMs ?? 0,
    log: collectingLogger(entries),
  });
  const client = new Client(server.address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });
  return {
    ...server,
    client,
    log: entries,
    async [Symbol.asyncDispose]() {
      client.close();
      await server.close(0);
    },
  };
}

/** A client whose connection to the server goes through a proxy, which can be cut or freeze with no goodbye. */
export async function startLink(address: string) {
  const proxy = await startTcpProxy(address);
  // A pool of its own: in the shared one the connection would outlive the client, and go on connecting.
  const client = new Client(proxy.address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });
  return {
    client,
    cut: () => proxy.cut(),
    /** From now on, what either side sends is lost. */
    freeze() {
      proxy.lose("requests");
      proxy.lose("replies");
    },
    async [Symbol.asyncDispose]() {
      client.close();
      await proxy.stop();
    },
  };
}

/** Answers with the id that was put; every other method fails. */
function fakeJobService(handlers: Partial<ServiceHandlers<typeof JobService>>): Service {
  const unused = async () => {
    throw new Error("this test has no such handler");
  };
  const unusedStream = () => {
    throw new Error("this test has no such handler");
  };
  return service(JobService, {
    put: async (request: PutRequest) => create(PutResponseSchema, { jobId: request.id, created: true }),
    putMany: unused,
    reserve: unused,
    release: unused,
    releaseMany: unused,
    extend: unused,
    delete: unused,
    cancel: unused,
    get: unused,
    reportProgress: unused,
    work: unusedStream,
    list: unused,
    retry: unused,
    await: unused,
    watch: unusedStream,
    subscribe: unusedStream,
    ...handlers,
  });
}

function collectingLogger(entries: LogEntry[]): Logger {
  const collect =
    (level: string) =>
    (message: string, fields: LogFields = {}) =>
      void entries.push({ level, message, fields });
  return { info: collect("info"), warn: collect("warn"), error: collect("error") };
}

export const encodeWith =
  <D extends DescMessage>(schema: D) =>
  (message: MessageShape<D>) =>
    Buffer.from(toBinary(schema, message));

export const decodeWith =
  <D extends DescMessage>(schema: D) =>
  (bytes: Buffer) =>
    fromBinary(schema, bytes);

const asItIs = (bytes: Buffer) => bytes;

export type Outcome = { readonly error?: ServiceError; readonly bytes?: Buffer };

export type RawCall = { readonly outcome: Promise<Outcome>; cancel(): void };

/** Calls a unary method with any bytes. */
export function callRaw(
  client: Client,
  path: string,
  bytes: Uint8Array,
  options: CallOptions = {},
  metadata = new Metadata(),
): RawCall {
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  const call = client.makeUnaryRequest(path, asItIs, asItIs, Buffer.from(bytes), metadata, options, (error, answer) =>
    resolve(error ? { error } : { bytes: answer ?? Buffer.alloc(0) }),
  );
  return { outcome: promise, cancel: () => call.cancel() };
}

export function putBytes(id: string): Uint8Array {
  return toBinary(PutRequestSchema, create(PutRequestSchema, { queue: "q", id }));
}

export async function put(client: Client, id: string, options: CallOptions = {}, metadata = new Metadata()) {
  const { error, bytes } = await callRaw(client, PUT, putBytes(id), options, metadata).outcome;
  if (error) throw error;
  return fromBinary(PutResponseSchema, bytes ?? Buffer.alloc(0));
}

export function putError(client: Client, id: string, options: CallOptions = {}): Promise<ServiceError> {
  return put(client, id, options).then(
    () => {
      throw new Error("the call should have failed");
    },
    (error) => error,
  );
}

export function subscribe(client: Client, options: CallOptions = {}) {
  const call = client.makeServerStreamRequest(
    SUBSCRIBE,
    encodeWith(SubscribeRequestSchema),
    decodeWith(SubscribeResponseSchema),
    create(SubscribeRequestSchema, {}),
    options,
  );
  // The status stands in the `error` event, too, and nobody listens to that one in most tests.
  call.on("error", () => {});
  return call;
}

/** A call on which both sides speak; it may also be given bytes that are no message. */
export function work(client: Client, options: CallOptions = {}) {
  const encode = encodeWith(WorkRequestSchema);
  const call = client.makeBidiStreamRequest(
    WORK,
    (message: WorkRequest | Buffer) => (Buffer.isBuffer(message) ? message : encode(message)),
    decodeWith(WorkResponseSchema),
    options,
  );
  call.on("error", () => {});
  return call;
}

/** What a worker sends, with a number to know it by, and of about so many bytes. */
export function numbered(sequence: number, bytes = 0) {
  return create(WorkRequestSchema, { releases: [{ sequence, leaseToken: "t".repeat(bytes) }] });
}

export function numberOf({ releases }: WorkRequest): number | undefined {
  return releases[0]?.sequence;
}

/** The answer to that, of about so many bytes. */
export function answerTo(request: WorkRequest, bytes = 0) {
  return create(WorkResponseSchema, {
    released: [{ sequences: [numberOf(request) ?? 0] }],
    refusedReports: bytes > 0 ? [{ leaseToken: "x".repeat(bytes) }] : [],
  });
}

/** The value, once it has stayed the same for 20 looks at it. */
export async function steady(look: () => number): Promise<number> {
  let value = look();
  let looks = 0;
  await until(
    () => {
      looks = look() === value ? looks + 1 : 0;
      value = look();
      return looks >= 20;
    },
    { what: "the value to stop changing" },
  );
  return value;
}

export function keepalive() {
  return create(SubscribeResponseSchema, { event: { case: "keepalive", value: {} } });
}

/** A message of about so many bytes. */
export function bigMessage(bytes: number) {
  return create(SubscribeResponseSchema, {
    event: { case: "started", value: { workerId: "w".repeat(bytes) } },
  });
}

export type Details = {
  readonly code: number;
  readonly message: string;
  readonly info: ErrorInfo | undefined;
  readonly badRequest: BadRequest | undefined;
  readonly retry: RetryInfo | undefined;
};

/** The google.rpc details of an error. */
export function detailsOf(error: { metadata: Metadata }): Details {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(bytes)) throw new Error("the error has no details");
  const { code, message, details } = fromBinary(StatusSchema, bytes);
  const find = <D extends DescMessage>(schema: D) =>
    details.map((any) => anyUnpack(any, schema)).find((found) => found !== undefined);
  return {
    code,
    message,
    info: find(ErrorInfoSchema),
    badRequest: find(BadRequestSchema),
    retry: find(RetryInfoSchema),
  };
}
