/** The proxy that other tests rely on, between a client and a server that are bare sockets. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startTcpProxy, type TcpProxy } from "./tcp-proxy.ts";
import { until } from "./wait.ts";

/** One end of a connection, and what it has seen. */
class End {
  readonly socket: Socket;
  text = "";
  hasEnded = false;
  error: string | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding("utf8").on("data", (text: string) => {
      this.text += text;
    });
    socket.on("end", () => {
      this.hasEnded = true;
    });
    socket.on("error", ({ message }) => {
      this.error = message;
    });
  }

  async got(text: string): Promise<void> {
    await until(() => this.text === text, { what: `${text.slice(0, 50)} to arrive` });
  }
}

describe("the proxy", () => {
  const ends: End[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => arrivals.push(new End(socket)));
  const arrivals: End[] = [];
  let proxy: TcpProxy;

  beforeEach(async () => {
    if (!server.listening) await once(server.listen(0, "127.0.0.1"), "listening");
    proxy = await startTcpProxy(`127.0.0.1:${(server.address() as AddressInfo).port}`);
  });

  afterEach(async () => {
    await proxy.stop();
    for (const { socket } of [...ends.splice(0), ...arrivals.splice(0)]) socket.destroy();
    server.close();
  });

  /** A connection that has carried a word each way. */
  async function connection(): Promise<{ near: End; far: End }> {
    const near = new End(connect({ port: proxy.port, host: "127.0.0.1", allowHalfOpen: true }));
    ends.push(near);
    near.socket.write("hello ");
    await until(() => arrivals.length === ends.length, { what: "the connection" });
    const far = arrivals.at(-1) as End;
    far.socket.write("hello ");
    await Promise.all([near.got("hello "), far.got("hello ")]);
    return { near, far };
  }

  it("hands on every byte both ways, however much it is, and both FINs", async () => {
    const { near, far } = await connection();
    const text = "0123456789".repeat(500_000);
    near.socket.end(text);
    far.socket.end(text);
    await Promise.all([near.got(`hello ${text}`), far.got(`hello ${text}`)]);
    await until(() => near.hasEnded && far.hasEnded, { what: "both FINs" });
  });

  it("holds a writer back whose reader does not read", async () => {
    const { near, far } = await connection();
    far.socket.pause();
    const chunk = "x".repeat(1 << 20);
    let chunks = 0;
    while (near.socket.writableLength < 4 << 20) {
      near.socket.write(chunk);
      chunks += 1;
      await new Promise(setImmediate);
      expect(chunks).toBeLessThan(200);
    }
    far.socket.resume();
    await until(() => far.text.length === 6 + chunks * chunk.length, { what: "all of it", withinMs: 15_000 });
  });

  it("loses what goes one way, and that the sender has gone; new connections work", async () => {
    const { near, far } = await connection();
    proxy.lose("requests");
    near.socket.end("lost");
    far.socket.write("arrives");
    await near.got("hello arrives");
    await connection();
    expect(far).toMatchObject({ text: "hello ", hasEnded: false });
  });

  it("stalls, and hands on in order what was sent meanwhile", async () => {
    const { near, far } = await connection();
    proxy.stall();
    near.socket.write("1");
    far.socket.write("2");
    await connection();
    expect([near.text, far.text]).toEqual(["hello ", "hello "]);
    near.socket.end("3");
    proxy.resume();
    await Promise.all([near.got("hello 2"), far.got("hello 13")]);
    await until(() => far.hasEnded, { what: "the FIN" });
  });

  it("takes its time both ways", async () => {
    proxy.delay(100);
    const before = performance.now();
    const { near, far } = await connection();
    expect(performance.now() - before).toBeGreaterThanOrEqual(100);
    near.socket.write("question");
    await far.got("hello question");
    far.socket.write("answer");
    await near.got("hello answer");
    expect(performance.now() - before).toBeGreaterThanOrEqual(300);
  });

  it("ends one way, while the other goes on", async () => {
    const { near, far } = await connection();
    proxy.halfClose("requests");
    await until(() => far.hasEnded, { what: "the FIN" });
    near.socket.write("lost");
    far.socket.write("arrives");
    await near.got("hello arrives");
    expect(far.text).toBe("hello ");
  });

  it("cuts connections, by FIN or by RST", async () => {
    const ended = await connection();
    proxy.cut();
    await until(() => ended.near.hasEnded && ended.far.hasEnded, { what: "the FINs" });
    const reset = await connection();
    proxy.cut({ reset: true });
    await until(() => reset.near.error && reset.far.error, { what: "the RSTs" });
    expect([reset.near.error, reset.far.error]).toEqual(["read ECONNRESET", "read ECONNRESET"]);
  });
});
