/**
 * What must be done at a server's HTTP/2 connections, because grpc-js (1.14.7) gets it wrong:
 *   1. Long deadlines. It counts them in 32-bit milliseconds, so a `grpc-timeout` above 24.8 days wraps around: one of
 *      50 days expires after 7 hours, one of 100 years at once. Such a header is removed before grpc-js reads it. The
 *      deadline is then left to the caller: its own timer ends the call, which we see as a cancellation.
 *   2. Forced ends. `forceShutdown` finds no connections when channelz is off, and `drain` forgets those whose client
 *      has said goodbye but still has calls open. So they are remembered here.
 * grpc-js offers no way to its HTTP/2 servers; they are taken out of the field that holds them. Tests fail when it
 * has moved: those of long deadlines, and of close().
 */
import { EventEmitter } from "node:events";
import type { IncomingHttpHeaders, ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import type { Server } from "@grpc/grpc-js";

const TIMEOUT_HEADER = "grpc-timeout";
/** The longest that a 32-bit timer can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1;
const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

export type Connections = {
  /** Breaks all that are open, and with them their calls. */
  destroy(): void;
};

/** To be called as soon as the server is bound, before it reads from a connection. */
export function watchConnections(server: Server): Connections {
  // Sessions, and the sockets below them: a socket may outlive its session, or not have one yet, and keep the port.
  const open = new Set<ServerHttp2Session | Socket>();
  const remember = (connection: ServerHttp2Session | Socket) => {
    open.add(connection);
    connection.once("close", () => open.delete(connection));
  };
  for (const http2Server of http2ServersOf(server)) {
    http2Server.on("session", remember);
    http2Server.on("connection", remember);
    http2Server.prependListener("stream", dropOverlongTimeout);
  }
  return {
    destroy() {
      for (const connection of open) connection.destroy();
    },
  };
}

function http2ServersOf(server: Server): EventEmitter[] {
  const servers: unknown = Reflect.get(server, "http2Servers");
  return servers instanceof Map ? [...servers.keys()].filter((key) => key instanceof EventEmitter) : [];
}

/** Listeners are given the same headers object one after the other, this one first. */
function dropOverlongTimeout(_stream: unknown, headers: IncomingHttpHeaders): void {
  const timeout = headers[TIMEOUT_HEADER];
  if (typeof timeout === "string" && timeoutMs(timeout) > MAX_TIMER_MS) delete headers[TIMEOUT_HEADER];
}

function timeoutMs(header: string): number {
  return Number(header.slice(0, -1)) * (UNIT_MS[header.slice(-1)] ?? Number.NaN);
}
