import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Logger } from "../../src/model/log.ts";
import { connectDoorbell } from "../../src/store/connection.ts";
import { Doorbell } from "../../src/store/doorbell.ts";
import { queueKey } from "../../src/store/keys.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";

const NAMESPACE = "bells";
const silent: Logger = { info: () => {}, warn: () => {}, error: () => {} };
const wake = (queue: string) => queueKey(NAMESPACE, queue, "wake");

describe("the doorbell", () => {
  let server: TestRedis;
  let redis: Redis;
  let rung: string[];
  let doorbells: Doorbell[];

  beforeAll(async () => {
    server = await startRedis();
    redis = new Redis(server.socketPath);
  });

  afterAll(async () => {
    redis.disconnect();
    await server.stop();
  });

  beforeEach(async () => {
    rung = [];
    doorbells = [];
    await redis.flushall();
  });

  afterEach(async () => {
    await Promise.all(doorbells.map((doorbell) => doorbell.stop()));
    await until(async () => (await connections()).length === 0, { what: "the doorbells' connections to end" });
  });

  const connections = async () => {
    const clients = (await redis.client("LIST")) as string;
    return clients.split("\n").filter((line) => line.includes("name=baton-doorbell"));
  };
  const blocked = async () => (await connections()).filter((line) => line.includes("cmd=blpop"));

  function startDoorbell({ brokerId = "one", waitMs = 60_000, commands = redis } = {}): Doorbell {
    const doorbell = new Doorbell({
      namespace: NAMESPACE,
      brokerId,
      connect: () => connectDoorbell({ address: { socketPath: server.socketPath }, timeoutMs: 1_000, log: silent }),
      commands,
      log: silent,
      onRing: async (queue) => {
        rung.push(queue);
      },
      waitMs,
    });
    doorbells.push(doorbell);
    doorbell.start();
    return doorbell;
  }

  const waiting = () => until(async () => (await blocked()).length === 1, { what: "the doorbell to wait" });

  it("tells of a ring once, and takes its token", async () => {
    startDoorbell().listen("mail");
    await waiting();
    await redis.lpush(wake("mail"), "1");
    await until(() => rung.length > 0, { what: "the ring" });
    await waiting();
    expect(rung).toEqual(["mail"]);
    expect(await redis.exists(wake("mail"))).toBe(0);
  });

  it("goes on with its wait when a queue in it is ignored for a moment", async () => {
    const doorbell = startDoorbell();
    doorbell.listen("mail");
    await waiting();
    await redis.config("RESETSTAT");
    doorbell.ignore("mail");
    doorbell.listen("mail");
    expect(await redis.info("commandstats")).not.toContain("cmdstat_lpush");
    await redis.lpush(wake("mail"), "1");
    await until(() => rung.length > 0, { what: "the ring" });
  });

  it("hears a queue that it begins to listen to in the middle of a wait", async () => {
    const doorbell = startDoorbell();
    await waiting();
    doorbell.listen("mail");
    await redis.lpush(wake("mail"), "1");
    await until(() => rung.includes("mail"), { what: "the ring" });
  });

  it("leaves the token where it is when nobody listens to its queue any more", async () => {
    const doorbell = startDoorbell();
    doorbell.listen("mail");
    await waiting();
    doorbell.ignore("mail");
    await redis.lpush(wake("mail"), "1");
    doorbell.listen("news");
    await redis.lpush(wake("news"), "1");
    await until(() => rung.includes("news"), { what: "the ring of another queue" });
    expect(rung).toEqual(["news"]);
    await until(() => redis.exists(wake("mail")), { what: "the token to be passed on" });
  });

  it("goes on when a token cannot be passed on", async () => {
    const commands = redis.duplicate();
    const doorbell = startDoorbell({ commands });
    for (const queue of ["mail", "news"]) doorbell.listen(queue);
    await waiting();
    commands.disconnect();
    await until(() => commands.status === "end", { what: "the other connection to end" });
    doorbell.ignore("mail");
    await redis.lpush(wake("mail"), "1");
    await until(async () => (await redis.exists(wake("mail"))) === 0, { what: "the token to be taken" });
    await redis.lpush(wake("news"), "1");
    await until(() => rung.includes("news"), { what: "the ring of another queue" });
  });

  it("waits for 2,000 queues on one connection", async () => {
    const doorbell = startDoorbell();
    for (let i = 0; i < 2_000; i++) doorbell.listen(`queue-${i}`);
    await waiting();
    for (const i of [0, 999, 1_999]) await redis.lpush(wake(`queue-${i}`), "1");
    await until(() => rung.length === 3, { what: "three rings" });
    expect(rung.sort()).toEqual(["queue-0", "queue-1999", "queue-999"]);
    expect(await connections()).toHaveLength(1);
  });

  it("takes the bells of many queues together", async () => {
    const doorbell = startDoorbell();
    for (let i = 0; i < 200; i++) doorbell.listen(`queue-${i}`);
    await waiting();
    await redis.config("RESETSTAT");
    const bells = redis.multi();
    for (let i = 0; i < 200; i++) bells.lpush(wake(`queue-${i}`), "1");
    await bells.exec();
    await until(() => rung.length === 200, { what: "200 rings" });
    expect(new Set(rung).size).toBe(200);
    const waits = /cmdstat_blpop:calls=(\d+)/.exec(await redis.info("commandstats"))?.[1];
    expect(Number(waits)).toBeLessThan(10);
  });

  it("connects anew when its connection is cut", async () => {
    startDoorbell().listen("mail");
    await waiting();
    const id = /id=(\d+)/.exec((await blocked())[0] ?? "")?.[1] ?? "";
    await redis.client("KILL", "ID", id);
    await until(async () => (await blocked()).some((line) => !line.includes(`id=${id} `)), {
      what: "a new connection",
    });
    await redis.lpush(wake("mail"), "1");
    await until(() => rung.includes("mail"), { what: "the ring" });
  });

  it("throws away a connection that has gone deaf, and builds a new one", async () => {
    startDoorbell({ waitMs: 200 }).listen("mail");
    await until(async () => (await connections()).length === 1, { what: "the connection" });
    const id = /id=(\d+)/.exec((await connections())[0] ?? "")?.[1] ?? "";
    server.pause();
    // The pause outlasts the wait and the watchdog's patience; nothing closes the connection meanwhile.
    const replaced = until(async () => (await connections()).some((line) => !line.includes(`id=${id} `)), {
      what: "a new connection",
      withinMs: 15_000,
    });
    const timer = setTimeout(() => server.resume(), 3_000);
    try {
      await replaced;
    } finally {
      clearTimeout(timer);
      server.resume();
    }
    await redis.lpush(wake("mail"), "1");
    await until(() => rung.includes("mail"), { what: "the ring" });
  });

  it("starts before Redis is there, and waits for it", async () => {
    await server.kill();
    startDoorbell().listen("mail");
    await server.restart();
    await waiting();
    await redis.lpush(wake("mail"), "1");
    await until(() => rung.includes("mail"), { what: "the ring" });
  });

  it("may be stopped twice, and without having been started", async () => {
    const doorbell = startDoorbell();
    await doorbell.stop();
    await doorbell.stop();
    const never = new Doorbell({
      namespace: NAMESPACE,
      brokerId: "never",
      connect: () => new Redis({ lazyConnect: true }),
      commands: redis,
      log: silent,
      onRing: async () => {},
    });
    await never.stop();
  });
});
