/**
 * The CallContext of one gRPC call. Its parts are made when first asked for, because most calls are short and ask for
 * neither, and an AbortController with its listener costs as much as decoding a small message.
 */
import type { ServerUnaryCall } from "@grpc/grpc-js";
import type { CallContext } from "../rpc/handler.ts";
import type { Decoded } from "./codec.ts";
import { cancelled, deadlineExceeded } from "./status.ts";

/** What all kinds of calls have. */
type Call = Pick<ServerUnaryCall<Decoded, Buffer>, "cancelled" | "metadata" | "getPeer" | "getDeadline"> & {
  once(event: "cancelled", listener: () => void): unknown;
};

/** A timer may fire a little before its time. */
const EARLY_MS = 2;

export class GrpcCallContext implements CallContext {
  readonly #call: Call;
  #controller: AbortController | undefined;
  #answered = false;

  constructor(call: Call) {
    this.#call = call;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#call.cancelled) this.#abort();
      else this.#call.once("cancelled", () => this.#abort());
    }
    return this.#controller.signal;
  }

  get peer(): string {
    return peerName(this.#call.getPeer());
  }

  get userAgent(): string {
    const [userAgent] = this.#call.metadata.get("user-agent");
    return typeof userAgent === "string" ? userAgent : "";
  }

  /** From now on the signal stays quiet: grpc-js says `cancelled` after every call, also one that ended well. */
  answered(): void {
    this.#answered = true;
  }

  /** grpc-js says `cancelled` for an expired deadline too, and has then answered the call itself. */
  #abort(): void {
    if (this.#answered) return;
    const expired = Number(this.#call.getDeadline()) <= Date.now() + EARLY_MS;
    this.#controller?.abort(expired ? deadlineExceeded() : cancelled());
  }
}

/** grpc-js joins host and port with a colon, which is ambiguous for IPv6, and knows nothing of unix sockets. */
function peerName(grpcPeer: string): string {
  const colon = grpcPeer.lastIndexOf(":");
  if (colon < 0) return grpcPeer === "unknown" ? "unix" : grpcPeer;
  const host = grpcPeer.slice(0, colon).replace(/^::ffff:(?=\d+\.)/, "");
  return `${host.includes(":") ? `[${host}]` : host}${grpcPeer.slice(colon)}`;
}
