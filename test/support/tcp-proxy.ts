/** A TCP proxy, which can lose what passes through it without closing anything, and cut connections. */
import { type AddressInfo, createConnection, createServer, type NetConnectOpts, type Socket } from "node:net";

export type TcpProxy = {
  readonly port: number;
  /** From now on, what goes this way on the connections that are open is lost; new ones work. */
  lose(way: "requests" | "replies"): void;
  /** Closes the connections that are open. */
  cut(): void;
  stop(): Promise<void>;
};

type Link = { readonly sockets: readonly Socket[]; losing: Set<"requests" | "replies"> };

/** `target`: the path of a unix socket, or host:port. */
export async function startTcpProxy(target: string): Promise<TcpProxy> {
  const far = connectOptions(target);
  const links = new Set<Link>();
  const server = createServer((near) => {
    const there = createConnection(far);
    const link: Link = { sockets: [near, there], losing: new Set() };
    links.add(link);
    near.on("data", (bytes) => link.losing.has("requests") || there.write(bytes));
    there.on("data", (bytes) => link.losing.has("replies") || near.write(bytes));
    for (const socket of link.sockets) {
      socket.on("error", () => {});
      socket.on("close", () => {
        for (const other of link.sockets) other.destroy();
        links.delete(link);
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => {
    for (const { sockets } of links) for (const socket of sockets) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    lose(way) {
      for (const link of links) link.losing.add(way);
    },
    cut,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve));
      cut();
      await closed;
    },
  };
}

function connectOptions(target: string): NetConnectOpts {
  const [, host, port] = /^([^/]+):(\d+)$/.exec(target) ?? [];
  return host === undefined ? { path: target } : { host, port: Number(port) };
}
