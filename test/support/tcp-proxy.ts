/** A TCP proxy before a Redis, which can lose what passes through it without closing anything, and cut connections. */
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";

export type TcpProxy = {
  readonly port: number;
  /** From now on, what goes this way on the connections that are open is lost; new ones work. */
  lose(way: "requests" | "replies"): void;
  /** Closes the connections that are open. */
  cut(): void;
  stop(): Promise<void>;
};

type Link = { readonly sockets: readonly Socket[]; losing: Set<"requests" | "replies"> };

export async function startTcpProxy(socketPath: string): Promise<TcpProxy> {
  const links = new Set<Link>();
  const server = createServer((near) => {
    const far = createConnection(socketPath);
    const link: Link = { sockets: [near, far], losing: new Set() };
    links.add(link);
    near.on("data", (bytes) => link.losing.has("requests") || far.write(bytes));
    far.on("data", (bytes) => link.losing.has("replies") || near.write(bytes));
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
