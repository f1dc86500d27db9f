/**
 * The shape of a handler, which knows no transport: it takes a message, or an AsyncIterable of messages, and a context,
 * and gives a message, or an AsyncIterable of messages. A transport calls it, and maps BatonError to its own kind of error.
 *
 * Where that makes calls much quicker, a service reads requests itself, and a handler answers with the message's bytes. A
 * transport that sends something else reads those back first.
 */
import type { DescMessage, DescMethod, DescService, MessageShape } from "@bufbuild/protobuf";

export type CallContext = {
  /** Aborts when the caller's deadline has passed, the caller cancelled, or its connection broke. */
  readonly signal: AbortSignal;
  /** The caller's network address, for logs and as the default worker_id. */
  readonly peer: string;
  /** What the caller's gRPC library says of itself; '' when it says nothing. */
  readonly userAgent: string;
};

export type UnaryHandler<I, O> = (request: I, context: CallContext) => Promise<O>;

/**
 * A transport must either drain the iterable or call its `return()`: that is how the stream's resources are freed.
 * It pulls the next message only when the one before has been accepted for sending: that is the flow control.
 */
export type StreamHandler<I, O> = (request: I, context: CallContext) => AsyncIterable<O>;

/**
 * Both sides speak. The handler pulls the next message when it is ready for it; the transport stops the caller until
 * then. What it pulls ends when the caller closes its side, and throws when the message is none of its kind.
 */
export type BidiHandler<I, O> = (requests: AsyncIterable<I>, context: CallContext) => AsyncIterable<O>;

/** Undefined for what the generated code is to read, or to refuse. */
export type Reader = (bytes: Buffer) => object | undefined;

/** A reader for some of a service's methods. */
export type ServiceReaders<S extends DescService> = { readonly [K in keyof S["method"]]?: Reader };

/** `Read`: what a reader makes of requests. */
type HandlerOf<M extends DescMethod, Read> = M["methodKind"] extends "unary"
  ? UnaryHandler<MessageShape<M["input"]> | Read, MessageShape<M["output"]> | Buffer>
  : M["methodKind"] extends "bidi_streaming"
    ? BidiHandler<MessageShape<M["input"]> | Read, MessageShape<M["output"]> | Buffer>
    : StreamHandler<MessageShape<M["input"]> | Read, MessageShape<M["output"]> | Buffer>;

type ReadBy<R> = R extends Reader ? NonNullable<ReturnType<R>> : never;

/** One handler for each method of a service. */
export type ServiceHandlers<S extends DescService, R extends ServiceReaders<S> = Record<never, never>> = {
  readonly [K in keyof S["method"]]: S["method"][K] extends DescMethod
    ? HandlerOf<S["method"][K], K extends keyof R ? ReadBy<R[K]> : never>
    : never;
};

// biome-ignore lint/suspicious/noExplicitAny: of handlers of different types; `service()` checks each.
type Any = any;

/** What a transport serves: a service's descriptor, with a handler for each of its methods. */
export type Service = {
  readonly descriptor: DescService;
  readonly handlers: Readonly<
    Record<string, UnaryHandler<Any, Answer> | StreamHandler<Any, Answer> | BidiHandler<Any, Answer>>
  >;
  readonly readers: Readonly<Record<string, Reader | undefined>>;
};

/** A message, or its bytes. */
export type Answer = MessageShape<DescMessage> | Buffer;

/**
 * Pairs a descriptor with its handlers, and with readers, if it has some; a missing or superfluous handler, or one that
 * does not take what its reader makes, does not compile.
 */
export function service<S extends DescService, R extends ServiceReaders<S> = Record<never, never>>(
  descriptor: S,
  handlers: ServiceHandlers<S, R>,
  readers?: R,
): Service {
  return { descriptor, handlers: handlers as Service["handlers"], readers: { ...readers } };
}
