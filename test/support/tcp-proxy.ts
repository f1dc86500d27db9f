/**
 * A TCP proxy that does what networks do: connections that are cut, stall, lose what goes one way, are slow, or end on
 * one side only.
 *
 * A connection is two pipes, one for each way. A pipe hands on what it reads, in its order, the FIN too; when it holds
 * much, it reads no more, so that a reader who does not read holds the writer back as over any network. What a pipe
 * loses, it loses without a word: also that its sender has gone.
 */
import { type AddressInfo, createConnection, createServer, type NetConnectOpts, type Socket } from "node:net";

/** From who connects to the target, or back. */
export type Way = "requests" | "replies";

export type TcpProxy = {
  readonly port: number;
  /** host:port */
  readonly address: string;
  /** New connections go there, as when a load balancer sees that a server has gone. */
  redirect(target: string): void;
  /** From now on, what goes this way on the connections that are open is lost; new ones work. */
  lose(way: Way): void;
  /** Nothing passes on the connections that are open, and nothing is lost, until resume(); new ones work. */
  stall(): void;
  resume(): void;
  /** What goes either way takes so long from now on, on new connections, too. */
  delay(ms: number): void;
  /** Ends this way of the connections that are open: FIN to the one, and what the other still sends is lost. */
  halfClose(way: Way): void;
  /** Closes the connections that are open; with `reset` by RST instead of FIN (not where the target is a unix socket). */
  cut(options?: { readonly reset?: boolean }): void;
  stop(): Promise<void>;
};

type Link = { readonly sockets: readonly [Socket, Socket] } & { readonly [way in Way]: Pipe };

/** `target`: the path of a unix socket, or host:port. */
export async function startTcpProxy(target: string): Promise<TcpProxy> {
  let far = connectOptions(target);
  const links = new Set<Link>();
  let delayMs = 0;
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const there = createConnection({ ...far, allowHalfOpen: true });
    const delay = () => delayMs;
    const link: Link = {
      sockets: [near, there],
      requests: new Pipe(near, there, delay),
      replies: new Pipe(there, near, delay),
    };
    links.add(link);
    for (const socket of link.sockets) {
      socket.on("close", () => {
        if (link.sockets.every(({ destroyed }) => destroyed)) links.delete(link);
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const pipes = () => [...links].flatMap(({ requests, replies }) => [requests, replies]);
  const cut: TcpProxy["cut"] = ({ reset = false } = {}) => {
    for (const { sockets } of links) for (const socket of sockets) reset ? socket.resetAndDestroy() : socket.destroy();
  };
  return {
    port,
    address: `127.0.0.1:${port}`,
    redirect(newTarget) {
      far = connectOptions(newTarget);
    },
    lose(way) {
      for (const link of links) link[way].lose();
    },
    stall() {
      for (const pipe of pipes()) pipe.setStalled(true);
    },
    resume() {
      for (const pipe of pipes()) pipe.setStalled(false);
    },
    delay(ms) {
      delayMs = ms;
    },
    halfClose(way) {
      for (const link of links) link[way].end();
    },
    cut,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve));
      cut();
      await closed;
    },
  };
}

/** More is left to wait in the kernel's buffers, and then at the sender. */
const MOST_HELD_BYTES = 1 << 20;

/** One way of a connection. */
class Pipe {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #delayMs: () => number;
  /** What is on its way, in its order, and when it arrives; without bytes: the FIN. */
  readonly #held: { readonly at: number; readonly bytes: Buffer | undefined }[] = [];
  #heldBytes = 0;
  #isStalled = false;
  #isLosing = false;
  /** The sender's socket ended otherwise than by FIN. */
  #isBroken = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(from: Socket, to: Socket, delayMs: () => number) {
    this.#from = from;
    this.#to = to;
    this.#delayMs = delayMs;
    from.on("data", (bytes) => this.#take(bytes));
    from.on("end", () => this.#take(undefined));
    from.on("error", () => {});
    from.on("close", (hadError) => {
      this.#isBroken = hadError;
      this.#flow();
    });
    to.on("drain", () => this.#flow());
    to.on("close", () => clearTimeout(this.#timer));
  }

  lose(): void {
    this.#isLosing = true;
  }

  end(): void {
    this.lose();
    this.#to.end();
  }

  setStalled(isStalled: boolean): void {
    this.#isStalled = isStalled;
    this.#flow();
  }

  #take(bytes: Buffer | undefined): void {
    if (this.#isLosing) return;
    this.#held.push({ at: performance.now() + this.#delayMs(), bytes });
    this.#heldBytes += bytes?.length ?? 0;
    this.#flow();
  }

  #flow(): void {
    clearTimeout(this.#timer);
    if (this.#isBroken && !this.#isLosing && !this.#isStalled) this.#to.destroy();
    while (!this.#isStalled && this.#held[0] && this.#held[0].at <= performance.now()) this.#handOn();
    const next = this.#held[0];
    if (next && !this.#isStalled) this.#timer = setTimeout(() => this.#flow(), next.at - performance.now());
    if (this.#isStalled || this.#heldBytes > MOST_HELD_BYTES || this.#to.writableNeedDrain) this.#from.pause();
    else this.#from.resume();
  }

  #handOn(): void {
    const bytes = this.#held.shift()?.bytes;
    this.#heldBytes -= bytes?.length ?? 0;
    if (!this.#to.writable) return;
    if (bytes) this.#to.write(bytes);
    else this.#to.end();
  }
}

function connectOptions(target: string): NetConnectOpts {
  const [, host, port] = /^([^/]+):(\d+)$/.exec(target) ?? [];
  return host === undefined ? { path: target } : { host, port: Number(port) };
}
