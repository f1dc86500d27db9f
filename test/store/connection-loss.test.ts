import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Logger } from "../../src/model/log.ts";
import { connectCommands, disconnect, waitUntilReady } from "../../src/store/connection.ts";
import { Store } from "../../src/store/store.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/wait.ts";

const TIMEOUT_MS = 500;
const silent: Logger = { info: () => {}, warn: () => {}, error: () => {} };

describe("a store whose connection fails", () => {
  let server: TestRedis;
  let direct: Redis;
  let proxy: TcpProxy;
  let commands: Redis;
  let store: Store;
  let elsewhere: Store;

  const storeOn = (redis: Redis) =>
    new Store({
      redis,
      timeoutMs: TIMEOUT_MS,
      namespace: "loss",
      defaultRetentionMs: 60_000,
      deadLetterMax: 10,
      deadLetterAgeMs: 60_000,
    });
  const job = (id: string) => ({ id, spec: Buffer.from(id), priority: 0, conflict: "reject" as const });

  beforeAll(async () => {
    server = await startRedis();
    direct = new Redis(server.socketPath);
    elsewhere = storeOn(direct);
  });

  afterAll(async () => {
    direct.disconnect();
    await server.stop();
  });

  beforeEach(async () => {
    await direct.flushall();
    proxy = await startTcpProxy(server.socketPath);
    commands = connectCommands({
      address: { url: `redis://127.0.0.1:${proxy.port}` },
      timeoutMs: TIMEOUT_MS,
      log: silent,
    });
    await waitUntilReady([commands], 5_000, new AbortController().signal);
    store = storeOn(commands);
    await store.put("q", [job("first")]);
  });

  afterEach(async () => {
    await disconnect(commands);
    await proxy.stop();
  });

  it("does not do later what it has said it could not do", async () => {
    proxy.lose("requests");
    await expect(store.delete("q", "first")).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE" });
    // The caller repeats it through another broker, and puts the id anew.
    await elsewhere.delete("q", "first");
    await elsewhere.put("q", [job("first")]);
    proxy.cut();
    await until(async () => (await store.get("q", "first"))?.state === "READY", { what: "the connection to be back" });
    await store.put("q", [job("second")]);
    expect((await elsewhere.get("q", "first"))?.state).toBe("READY");
  });

  it("gives the answer of a script that ran before its connection broke", async () => {
    proxy.lose("replies");
    const put = store.put("q", [job("once")]);
    await until(() => direct.hexists("loss:{q}:spec", "once"), { what: "the put to have run" });
    proxy.cut();
    expect(await put).toEqual([{ kind: "created", state: "READY" }]);
  });

  it("lists its queues again, should Redis have lost their names meanwhile", async () => {
    await direct.flushall();
    proxy.cut();
    await until(() => store.ping().then(() => true), { what: "the connection to be back" });
    await store.put("q", [job("anew")]);
    expect(await elsewhere.queues.exists("q")).toBe(true);
  });

  it("replaces a connection that looks alive and is not", async () => {
    proxy.lose("requests");
    await expect(store.ping()).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE" });
    await until(() => store.ping().then(() => true), { what: "a connection that works" });
    expect((await store.get("q", "first"))?.state).toBe("READY");
  });

  describe("when this process stood still, as one whose machine is paused or moved,", () => {
    let own: Redis;

    beforeEach(async () => {
      own = connectCommands({ address: { socketPath: server.socketPath }, timeoutMs: TIMEOUT_MS, log: silent });
      await waitUntilReady([own], 5_000, new AbortController().signal);
    });

    afterEach(() => disconnect(own));

    it("takes the answer that came meanwhile, however late it reads it", async () => {
      const put = storeOn(own).put("q", [job("second")]);
      standStill(2 * TIMEOUT_MS);
      expect(await put).toEqual([{ kind: "created", state: "READY" }]);
    });

    it("still gives up on a Redis that does not answer", async () => {
      await direct.call("CLIENT", "PAUSE", "60000", "WRITE");
      try {
        const put = storeOn(own).put("q", [job("second")]);
        standStill(2 * TIMEOUT_MS);
        await expect(put).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE" });
      } finally {
        await direct.call("CLIENT", "UNPAUSE");
      }
    });
  });
});

/** Nothing runs meanwhile, not even a timer. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
