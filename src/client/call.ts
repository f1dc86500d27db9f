/**
 * gRPC calls over the generated descriptors: one connection, unary calls and streams, as promises and iterables.
 * It knows no method by name and repeats nothing.
 */
import { type DescMessage, type DescMethod, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type ChannelCredentials, Client, type ClientOptions, Metadata } from "@grpc/grpc-js";
import { BatonClientError, toClientError } from "./error.ts";
import { Inbox } from "./inbox.ts";

/** Timers cannot be longer than 24.8 days; a later deadline is as good as this one. */
const LONGEST_DEADLINE_MS = 20 * 86_400_000;

export type Method<Kind extends DescMethod["methodKind"], I extends DescMessage, O extends DescMessage> = DescMethod & {
  readonly methodKind: Kind;
  readonly input: I;
  readonly output: O;
};

/** Both sides of a call. */
export type Duplex<I, O> = {
  /** Resolves when the connection has taken the message; never, where the call has ended before. One at a time. */
  send(message: I): Promise<void>;
  /** Says that no more messages come. */
  finish(): void;
  readonly answers: AsyncGenerator<O, void, undefined>;
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
  stream<I extends DescMessage, O extends DescMessage>(
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
    return this.#answers(call, new Inbox<MessageShape<O>>(call), signal);
  }

  /** A call on which both sides speak; its answers end, or throw, as those of stream() do. They must be read. */
  duplex<I extends DescMessage, O extends DescMessage>(
    method: Method<"bidi_streaming", I, O>,
    { signal }: { signal?: AbortSignal | undefined },
  ): Duplex<MessageShape<I>, MessageShape<O>> {
    this.#refuseIfClosed();
    signal?.throwIfAborted();
    const call = this.#client.makeBidiStreamRequest<MessageShape<I>, MessageShape<O>>(
      pathOf(method),
      serializer(method.input),
      deserializer(method.output),
      new Metadata(),
    );
    return {
      send: (message) => new Promise((resolve) => call.write(message, () => resolve())),
      finish: () => call.end(),
      answers: this.#answers(call, new Inbox<MessageShape<O>>(call), signal),
    };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const call of this.#calls) call.cancel();
    this.#client.close();
  }

  async *#answers<T>(
    call: { cancel(): void },
    inbox: Inbox<T>,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<T, void, undefined> {
    const cancel = () => call.cancel();
    this.#calls.add(call);
    signal?.addEventListener("abort", cancel, { once: true });
    // Between the beginning of the call and that of the reading.
    if (signal?.aborted || this.#closed) cancel();
    try {
      for (let message = await inbox.next(); message !== undefined; message = await inbox.next()) {
        yield message;
        signal?.throwIfAborted();
      }
      signal?.throwIfAborted();
      if (this.#closed) throw closedError();
      if (inbox.failure !== undefined) throw toClientError(inbox.failure);
    } finally {
      this.#calls.delete(call);
      signal?.removeEventListener("abort", cancel);
      if (!inbox.hasEnded) call.cancel();
    }
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
