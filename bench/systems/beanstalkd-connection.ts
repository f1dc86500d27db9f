/**
 * A connection to beanstalkd that is pipelined: commands that are sent in one tick go out in one write, and the replies
 * come in the commands' order. Replies are read from the bytes as they arrived; a job's body is a view of them.
 */
import { once } from "node:events";
import { createConnection, type Socket } from "node:net";

export type Reply =
  | { readonly kind: "done" }
  | { readonly kind: "none" }
  | { readonly kind: "reserved"; readonly number: string; readonly body: Buffer };

type Exchange = {
  repliesLeft: number;
  readonly onReply: (reply: Reply) => void;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
};

export type Connection = {
  /** The command lines, with bodies and line ends, of so many commands; resolves after the last one's reply. */
  request(commands: string | Buffer, replies: number, onReply?: (reply: Reply) => void): Promise<void>;
  /** Requests that wait for a reply are rejected. Harmless when repeated. */
  close(): void;
};

const DONE: Reply = { kind: "done" };
const NONE: Reply = { kind: "none" };
const CARRIAGE_RETURN = 13;
const LINE_END_BYTES = 2;
const RESERVED = "RESERVED ";
/** What else may come back from the commands that are used here; anything else is an error. */
const DONE_WORDS = ["INSERTED", "DELETED", "USING", "WATCHING", "KICKED"];
const NONE_WORDS = ["TIMED_OUT", "NOT_FOUND"];
const NOTHING = Buffer.alloc(0);

/** `address` is HOST:PORT. */
export async function openConnection(address: string): Promise<Connection> {
  const { hostname, port } = new URL(`tcp://${address}`);
  const socket = createConnection({ host: hostname, port: Number(port), noDelay: true });
  await once(socket, "connect");
  return pipeline(socket);
}

function pipeline(socket: Socket): Connection {
  // A queue: `first` is the oldest that waits, and what lies before it is cut off now and then.
  const exchanges: Exchange[] = [];
  let first = 0;
  let unread: Buffer = NOTHING;
  let failure: Error | undefined;

  function fail(error: Error): void {
    failure ??= error;
    socket.destroy();
    for (const exchange of exchanges.splice(0).slice(first)) exchange.reject(failure);
    first = 0;
  }

  function settle(reply: Reply): void {
    const exchange = exchanges[first];
    if (!exchange) throw new Error("beanstalkd replied to what nobody has asked");
    exchange.onReply(reply);
    exchange.repliesLeft--;
    if (exchange.repliesLeft > 0) return;
    first++;
    if (first === exchanges.length) {
      exchanges.length = 0;
      first = 0;
    }
    exchange.resolve();
  }

  socket.on("data", (chunk: Buffer) => {
    try {
      const bytes = unread.length === 0 ? chunk : Buffer.concat([unread, chunk]);
      unread = bytes.subarray(readReplies(bytes, settle));
    } catch (error) {
      fail(error instanceof Error ? error : new Error(String(error)));
    }
  });
  socket.once("error", fail);
  socket.once("close", () => fail(new Error("the connection to beanstalkd is closed")));

  return {
    request(commands, replies, onReply = () => undefined) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      if (failure) {
        reject(failure);
        return promise;
      }
      exchanges.push({ repliesLeft: replies, onReply, resolve, reject });
      if (socket.writableCorked === 0) {
        socket.cork();
        process.nextTick(() => socket.uncork());
      }
      socket.write(commands, "latin1");
      return promise;
    },
    close: () => fail(new Error("the connection to beanstalkd was closed")),
  };
}

/** Gives every whole reply, and returns where the first one begins that is not whole. */
function readReplies(bytes: Buffer, onReply: (reply: Reply) => void): number {
  let start = 0;
  for (;;) {
    const lineEnd = bytes.indexOf(CARRIAGE_RETURN, start);
    if (lineEnd < 0 || lineEnd + LINE_END_BYTES > bytes.length) return start;
    const line = bytes.toString("latin1", start, lineEnd);
    const next = lineEnd + LINE_END_BYTES;
    if (!line.startsWith(RESERVED)) {
      onReply(withoutBody(line));
      start = next;
      continue;
    }
    const space = line.indexOf(" ", RESERVED.length);
    const bodyEnd = next + Number(line.slice(space + 1));
    if (bodyEnd + LINE_END_BYTES > bytes.length) return start;
    onReply({ kind: "reserved", number: line.slice(RESERVED.length, space), body: bytes.subarray(next, bodyEnd) });
    start = bodyEnd + LINE_END_BYTES;
  }
}

function withoutBody(line: string): Reply {
  if (DONE_WORDS.some((word) => line.startsWith(word))) return DONE;
  if (NONE_WORDS.includes(line)) return NONE;
  throw new Error(`beanstalkd replied ${line}`);
}
