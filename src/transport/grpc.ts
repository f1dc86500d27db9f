/**
 * The gRPC server: the services that it is given, server reflection and health checks, on @grpc/grpc-js.
 *
 * Starts in the order: register everything, bind, correct what grpc-js gets wrong. Health says NOT_SERVING until
 * `setServing(true)`.
 */
import { Server, ServerCredentials, setLogger } from "@grpc/grpc-js";
import type { Logger } from "../model/log.ts";
import type { Answer, BidiHandler, Service, StreamHandler, UnaryHandler } from "../rpc/handler.ts";
import { bindError, boundAddress, checkAddress } from "./address.ts";
import { asEncoded, decoderOf } from "./codec.ts";
import { type Connections, watchConnections } from "./connections.ts";
import { loadDescriptors } from "./descriptors.ts";
import { healthService } from "./health.ts";
import { explainLibraryErrors } from "./library-errors.ts";
import { decodeReflectionRequest, REFLECTION_SERVICES, reflectionService } from "./reflection.ts";
import { StreamSlots } from "./slots.ts";
import { bidiCall, streamCall } from "./stream.ts";
import { unaryCall } from "./unary.ts";

export type GrpcServerOptions = {
  /** host:port, where port 0 lets the system choose; or unix:path. */
  readonly address: string;
  readonly services: readonly Service[];
  readonly limits: {
    /** Of one message received. */
    readonly maxMessageBytes: number;
    /** Open streaming calls of `services`, over all connections. */
    readonly maxStreams: number;
    /** Calls at once, of any kind, on one connection. */
    readonly maxConcurrentStreamsPerConnection: number;
  };
  /** A connection that has not answered an HTTP/2 ping in time is broken, and its calls are cancelled. */
  readonly keepalive: { readonly intervalMs: number; readonly timeoutMs: number };
  /**
   * A connection of that age, a tenth more or less, takes no new calls, so that its client opens another, maybe to another
   * broker; those that it has go on. 0: never.
   */
  readonly maxConnectionAgeMs: number;
  readonly log: Logger;
};

export type GrpcServer = {
  /** host:port as it is, or unix:path. */
  readonly address: string;
  /** What health checks answer, and tell those who watch. */
  setServing(serving: boolean): void;
  /** Takes no new calls, lets the open ones end for so long, then cancels them. Calling it again changes nothing. */
  close(graceMs: number): Promise<void>;
};

/**
 * Health watches and reflection calls are ours and small; they must not compete with workers for maxStreams. A client that
 * checks health holds one for each of its connections, and takes a broker that refuses it for one that is not there.
 */
const MAX_SERVICE_STREAMS = 20_000;

/** After the last connection was broken, its end is a matter of milliseconds. */
const SHUTDOWN_LIMIT_MS = 1_000;

export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const { address, services, limits, keepalive, maxConnectionAgeMs, log } = options;
  checkAddress(address);
  const descriptors = await loadDescriptors();
  // Process-wide, as grpc-js has it: what it would print goes to the log.
  setLogger({ error: (message: unknown) => log.warn("grpc-js says", { message: String(message) }) });

  const server = new Server({
    "grpc.enable_channelz": 0,
    "grpc.max_receive_message_length": limits.maxMessageBytes,
    // What is sent is bounded where it is made: an answer that cannot be sent would have leased its jobs in vain.
    "grpc.max_send_message_length": -1,
    "grpc.max_concurrent_streams": limits.maxConcurrentStreamsPerConnection,
    "grpc.keepalive_time_ms": keepalive.intervalMs,
    "grpc.keepalive_timeout_ms": keepalive.timeoutMs,
    // It says goodbye all at once, and so refuses the calls that cross its word on the way; gRPC's clients make those anew
    // by themselves, once. (Two goodbyes, the last of them after a ping, as RFC 9113 would have it, are worse: Node's own
    // HTTP/2 clients then answer neither, and keep the calls that crossed for as long as the connection lasts.)
    ...(maxConnectionAgeMs > 0 && { "grpc.max_connection_age_ms": maxConnectionAgeMs }),
    interceptors: [explainLibraryErrors(limits.maxMessageBytes, log)],
  });

  const streamSlots = new StreamSlots(limits.maxStreams);
  for (const service of services) register(server, service, streamSlots, log);

  const ownSlots = new StreamSlots(MAX_SERVICE_STREAMS);
  const names = services.map(({ descriptor }) => descriptor.typeName);
  const health = healthService(names);
  register(server, health.service, ownSlots, log);
  const described = [...names, health.service.descriptor.typeName, ...REFLECTION_SERVICES.map((it) => it.typeName)];
  const reflection = reflectionService(descriptors, described, ownSlots, { method: "ServerReflectionInfo", log });
  for (const { typeName, method } of REFLECTION_SERVICES) {
    const path = `/${typeName}/${method.serverReflectionInfo.name}`;
    server.register(path, reflection.call, asEncoded, decodeReflectionRequest, "bidi");
  }

  const bound = boundAddress(address, await bind(server, address));
  const connections = watchConnections(server);

  let closing: Promise<void> | undefined;
  return {
    address: bound,
    setServing: health.setServing,
    close(graceMs) {
      if (closing === undefined) {
        health.setServing(false);
        health.close();
        reflection.close();
        closing = shutDown(server, connections, graceMs);
      }
      return closing;
    },
  };
}

function register(server: Server, { descriptor, handlers, readers }: Service, slots: StreamSlots, log: Logger): void {
  for (const method of descriptor.methods) {
    const path = `/${descriptor.typeName}/${method.name}`;
    const origin = { method: path, log };
    const handler = handlers[method.localName];
    const decode = decoderOf(method.input, readers[method.localName]);
    switch (method.methodKind) {
      case "unary": {
        const call = unaryCall(method.output, handler as UnaryHandler<object, Answer>, origin);
        server.register(path, call, asEncoded, decode, "unary");
        break;
      }
      case "server_streaming": {
        const call = streamCall(method.output, handler as StreamHandler<object, Answer>, slots, origin);
        server.register(path, call, asEncoded, decode, "serverStream");
        break;
      }
      case "bidi_streaming": {
        const call = bidiCall(method.output, handler as BidiHandler<object, Answer>, slots, origin);
        server.register(path, call, asEncoded, decode, "bidi");
        break;
      }
      default:
        throw new Error(`${path} is ${method.methodKind}, for which there is no kind of handler`);
    }
  }
}

function bind(server: Server, address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port);
      else reject(bindError(address, error));
    });
  });
}

/**
 * Connections end when they have no call left; those that still have one after the grace are broken. `tryShutdown` has
 * been seen to wait for a connection that was there no more, so it is not waited for much longer than that.
 */
async function shutDown(server: Server, connections: Connections, graceMs: number): Promise<void> {
  const { promise: overdue, resolve: giveUp } = Promise.withResolvers<void>();
  const breaking = setTimeout(connections.destroy, graceMs);
  const givingUp = setTimeout(giveUp, graceMs + SHUTDOWN_LIMIT_MS);
  const ended = new Promise<void>((resolve, reject) => {
    server.tryShutdown((error) => (error === undefined ? resolve() : reject(error)));
  });
  try {
    await Promise.race([ended, overdue]);
  } finally {
    clearTimeout(breaking);
    clearTimeout(givingUp);
  }
}
