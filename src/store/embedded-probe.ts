/** One question to a Redis that may be starting, hanging or gone: a connection of its own, one command, one answer. */
import { createConnection } from "node:net";

export type Answer =
  /** Nobody listens there: refused, or there is no such socket. */
  | { readonly kind: "absent" }
  /** Somebody listens, but gave no whole answer in time. */
  | { readonly kind: "silent" }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "error"; readonly text: string };

/** An INFO section has a few kilobytes; what says more is no Redis. */
const MAX_ANSWER_BYTES = 64 * 1_024;

/** @param command words without spaces, quotes or line breaks */
export function askRedis(socketPath: string, command: string, timeoutMs: number): Promise<Answer> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const socket = createConnection({ path: socketPath }, () => socket.write(`${command}\r\n`));
    const timer = setTimeout(() => finish({ kind: "silent" }), timeoutMs);
    function finish(answer: Answer): void {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    }
    socket.on("data", (chunk) => {
      chunks.push(chunk);
      bytes += chunk.length;
      const answer = parse(Buffer.concat(chunks));
      if (answer) finish(answer);
      else if (bytes > MAX_ANSWER_BYTES) finish({ kind: "silent" });
    });
    socket.once("error", (error: NodeJS.ErrnoException) => {
      finish({ kind: error.code === "ECONNREFUSED" || error.code === "ENOENT" ? "absent" : "silent" });
    });
    socket.once("close", () => finish({ kind: "silent" }));
  });
}

/** A field of an INFO answer (`name:value`). */
export function infoField(info: string, name: string): string | undefined {
  const line = info.split("\r\n").find((candidate) => candidate.startsWith(`${name}:`));
  return line?.slice(name.length + 1);
}

function parse(data: Buffer): Answer | undefined {
  const end = data.indexOf("\r\n");
  if (end < 0) return undefined;
  const kind = data.toString("latin1", 0, 1);
  const first = data.toString("utf8", 1, end);
  if (kind === "+") return { kind: "text", text: first };
  if (kind === "-") return { kind: "error", text: first };
  if (kind !== "$") return { kind: "silent" };
  const length = Number(first);
  if (data.length < end + 2 + length) return undefined;
  return { kind: "text", text: data.toString("utf8", end + 2, end + 2 + length) };
}
