/** How the parts of the client call a broker: once, or repeated while it is UNAVAILABLE, each within its deadline. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { repeatWhileUnavailable } from "./backoff.ts";
import type { Connection, Method } from "./call.ts";

export type CallOptions = {
  /** How long the call may take, its repetitions included. */
  readonly deadlineMs?: number | undefined;
  /** How long the call is repeated while the broker is unavailable; default: as long as it may take. */
  readonly repeatForMs?: number | undefined;
  /** Ends the call, which then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
};

export type Limits = CallOptions & { readonly deadlineMs: number };

export class Calls {
  readonly connection: Connection;
  readonly defaultDeadlineMs: number;

  constructor(connection: Connection, defaultDeadlineMs: number) {
    this.connection = connection;
    this.defaultDeadlineMs = defaultDeadlineMs;
  }

  /** For what is not safe to repeat. */
  once<I extends DescMessage, O extends DescMessage>(
    method: Method<"unary", I, O>,
    request: MessageShape<I>,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    return this.connection.unary(method, request, this.limits(options));
  }

  /** For what is. */
  repeated<I extends DescMessage, O extends DescMessage>(
    method: Method<"unary", I, O>,
    request: MessageShape<I>,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    const { signal } = options;
    return repeatWhileUnavailable(
      (deadlineMs) => this.connection.unary(method, request, { deadlineMs, signal }),
      this.limits(options),
    );
  }

  limits({ deadlineMs = this.defaultDeadlineMs, repeatForMs, signal }: CallOptions): Limits {
    return { deadlineMs, repeatForMs, signal };
  }
}
