/**
 * The shape of a handler, which knows no transport: it takes a message, or an AsyncIterable of messages, and a context,
 * and gives a message, or an AsyncIterable of messages. A transport calls it, and maps BatonError to its own kind of error.
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

type HandlerOf<M extends DescMethod> = M["methodKind"] extends "unary"
  ? UnaryHandler<MessageShape<M["input"]>, MessageShape<M["output"]>>
  : M["methodKind"] extends "bidi_streaming"
    ? BidiHandler<MessageShape<M["input"]>, MessageShape<M["output"]>>
    : StreamHandler<MessageShape<M["input"]>, MessageShape<M["output"]>>;

/** One handler for each method of a service. */
export type ServiceHandlers<S extends DescService> = {
  readonly [K in keyof S["method"]]: S["method"][K] extends DescMethod ? HandlerOf<S["method"][K]> : never;
};

// biome-ignore lint/suspicious/noExplicitAny: of handlers of different types; `service()` checks each.
type Any = any;

/** What a transport serves: a service's descriptor, with a handler for each of its methods. */
export type Service = {
  readonly descriptor: DescService;
  readonly handlers: Readonly<
    Record<string, UnaryHandler<Any, Answer> | StreamHandler<Any, Answer> | BidiHandler<Any, Answer>>
  >;
};

type Answer = MessageShape<DescMessage>;

/** Pairs a descriptor with its handlers; a missing or superfluous handler does not compile. */
export function service<S extends DescService>(descriptor: S, handlers: ServiceHandlers<S>): Service {
  return { descriptor, handlers: handlers as Service["handlers"] };
}
