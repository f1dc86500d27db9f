/**
 * gRPC calls over the generated descriptors: one connection, unary calls and server streams, as promises and
 * iterables. It knows no method by name and repeats nothing.
 */
import { type DescMessage, type DescMethod, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type ChannelCredentials, Client, type ClientOptions, Metadata } from "@grpc/grpc-js";
import { BatonClientError, toClientError } from "./error.ts";

/** Timers cannot be longer than 24.8 days; a later deadline is as good as this one. */
const LONGEST_DEADLINE_MS = 20 * 86_400_000;

/** How many messages of a stream wait for a slow reader before the connection is told to stop. */
const INBOX_LIMIT = 64;

export type Method<Kind extends DescMethod["methodKind"], I extends DescMessage, O extends DescMessage> = DescMethod & {
  readonly methodKind: Kind;
  readonly input: I;
  readonly output: O;
};

export class Connection {
  readonly #client: Client;
  /** The calls under way, so that close() ends them. */
  readonly #calls = new Set<{ cancel(): void }>();
  #closed = false;

  constructor(address: string, credentials: ChannelCredentials, options: ClientOptions) {
    this.#client = new Client(address, credentials, options);
  }

  unary<I extends DescMessage, O extends DescMessage>(
    method: Method<"unary", I, O>,
    request: MessageShape<I>,
    { deadlineMs, signal }: { deadlineMs: number; signal?: AbortSignal | undefined },
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      this.#refuseIfClosed();
      signal?.throwIfAborted();
      const call = this.#client.makeUnaryRequest<MessageShape<I>, MessageShape<O>>(
        pathOf(method),
        serializer(method.input),
        deserializer(method.output),
        request,
        new Metadata(),
        { deadline: Date.now() + Math.min(deadlineMs, LONGEST_DEADLINE_MS) },
        (error, response) => {
          this.#calls.delete(call);
          signal?.removeEventListener("abort", cancel);
          if (error === null && response !== undefined) resolve(response);
          else reject(signal?.aborted ? signal.reason : this.#closed ? closedError() : toClientError(error));
        },
      );
      const cancel = () => call.cancel();
      this.#calls.add(call);
      signal?.addEventListener("abort", cancel, { once: true });
    });
  }

  /** Ends when the broker ends the stream; throws when it breaks, and the signal's reason when that aborts. */
  async *stream<I extends DescMessage, O extends DescMessage>(
    method: Method<"server_streaming", I, O>,
    request: MessageShape<I>,
    { signal }: { signal?: AbortSignal | undefined },
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    this.#refuseIfClosed();
    signal?.throwIfAborted();
    const call = this.#client.makeServerStreamRequest<MessageShape<I>, MessageShape<O>>(
      pathOf(method),
      serializer(method.input),
      deserializer(method.output),
      request,
      new Metadata(),
    );
    // Messages that came before an error are handed out before it is thrown: they may hold jobs.
    const inbox: MessageShape<O>[] = [];
    let ended = false;
    let failure: unknown;
    let wake = Promise.withResolvers<void>();
    const cancel = () => call.cancel();
    call.on("data", (message: MessageShape<O>) => {
      inbox.push(message);
      if (inbox.length >= INBOX_LIMIT) call.pause();
      wake.resolve();
    });
    call.on("error", (error) => {
      failure = error;
      call.resume();
    });
    call.on("end", () => {
      ended = true;
      wake.resolve();
    });
    this.#calls.add(call);
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      for (;;) {
        const message = inbox.shift();
        if (message !== undefined) {
          yield message;
          signal?.throwIfAborted();
          continue;
        }
        if (ended) break;
        call.resume();
        await wake.promise;
        wake = Promise.withResolvers<void>();
      }
      signal?.throwIfAborted();
      if (this.#closed) throw closedError();
      if (failure !== undefined) throw toClientError(failure);
    } finally {
      this.#calls.delete(call);
      signal?.removeEventListener("abort", cancel);
      call.cancel();
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const call of this.#calls) call.cancel();
    this.#client.close();
  }

  #refuseIfClosed(): void {
    if (this.#closed) throw closedError();
  }
}

function closedError(): BatonClientError {
  return new BatonClientError("CANCELLED", "this client has been closed", { reason: "CLIENT_CLOSED" });
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** gRPC takes Buffers only: this one wraps the bytes without a copy. */
function serializer<D extends DescMessage>(schema: D): (message: MessageShape<D>) => Buffer {
  return (message) => {
    const bytes = toBinary(schema, message);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

function deserializer<D extends DescMessage>(schema: D): (bytes: Buffer) => MessageShape<D> {
  return (bytes) => fromBinary(schema, bytes);
}
