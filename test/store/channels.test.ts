import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Channels } from "../../src/store/channels.ts";
import { connectSubscriber, disconnect, waitUntilReady } from "../../src/store/connection.ts";
import { collect, type LogLine } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until, within } from "../support/wait.ts";

const TICK_MS = 200;
const LINGER_MS = 400;

describe("channels that are followed together", () => {
  let server: TestRedis;
  let redis: Redis;
  let proxy: TcpProxy;
  let subscriber: Redis;
  let channels: Channels;
  let log: LogLine[];
  let heard: string[];
  let gaps: number;

  beforeAll(async () => {
    server = await startRedis();
    redis = new Redis(server.socketPath);
  });

  afterAll(async () => {
    redis.disconnect();
    await server.stop();
  });

  beforeEach(async () => {
    proxy = await startTcpProxy(server.socketPath);
    [log, heard, gaps] = [[], [], 0];
    const address = { url: `redis://127.0.0.1:${proxy.port}` };
    subscriber = connectSubscriber({ address, timeoutMs: 500, log: collect(log) });
    await waitUntilReady([subscriber], 5_000, new AbortController().signal);
    channels = new Channels({ redis: subscriber, log: collect(log), tickMs: TICK_MS, lingerMs: LINGER_MS });
    channels.onGap(() => {
      gaps += 1;
    });
    channels.start();
  });

  afterEach(async () => {
    channels.stop();
    await disconnect(subscriber);
    await proxy.stop();
  });

  const hear = (text: string) => void heard.push(text);
  const listeners = async (channel: string) => Number((await redis.pubsub("NUMSUB", channel))[1]);

  it("are heard from when `listening` says so, by everybody who follows", async () => {
    const both = [channels.follow("a", hear), channels.follow("a", (text) => hear(`again ${text}`))];
    await Promise.all(both.map(({ listening }) => listening));
    expect(await listeners("a")).toBe(1);
    await redis.publish("a", "one");
    await redis.publish("b", "another channel");
    await channels.sync();
    expect(heard).toEqual(["one", "again one"]);
  });

  it("have been heard up to the present once sync() has answered", async () => {
    await channels.follow("a", hear).listening;
    for (let i = 0; i < 50; i++) {
      await redis.publish("a", `${i}`);
      await channels.sync();
      expect(heard.length).toBe(i + 1);
    }
  });

  it("are left a while after the last has gone, and not when somebody comes back meanwhile", async () => {
    const stays = channels.follow("stays", hear);
    const goes = channels.follow("goes", hear);
    await Promise.all([stays.listening, goes.listening]);
    for (const one of [stays, goes, goes]) one.unfollow();
    expect(await listeners("stays")).toBe(1);
    channels.follow("stays", hear);
    await until(async () => (await listeners("goes")) === 0, { what: "the channel to be left" });
    expect(await listeners("stays")).toBe(1);
    await redis.publish("stays", "still");
    await channels.sync();
    expect(heard).toEqual(["still"]);
  });

  it("are heard again after the connection broke, and a gap is told after that", async () => {
    const names = Array.from({ length: 1_200 }, (_, i) => `channel-${i}`);
    await Promise.all(names.map((name) => channels.follow(name, hear).listening));
    proxy.cut();
    await until(() => gaps === 1, { what: "the gap to be told" });
    for (const name of names) await redis.publish(name, name);
    await channels.sync();
    expect(heard).toEqual(names);
  });

  it("that are followed while there is no connection are heard when it is back", async () => {
    proxy.cut();
    await until(() => subscriber.status !== "ready", { what: "the connection to break" });
    const following = channels.follow("a", hear);
    await expect(channels.sync()).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE" });
    await within(following.listening, { what: "the channel" });
    await redis.publish("a", "one");
    await channels.sync();
    expect(heard).toEqual(["one"]);
  });

  it("get a new connection when theirs looks alive and is not", async () => {
    await channels.follow("a", hear).listening;
    proxy.lose("replies");
    await redis.publish("a", "lost");
    await until(() => gaps === 1, { what: "the watchdog to replace the connection" });
    await redis.publish("a", "heard");
    await channels.sync();
    expect(heard).toEqual(["heard"]);
  });

  it("may carry what nobody understands, which is logged and harms no other listener", async () => {
    await channels.follow("a", (text) => void JSON.parse(text)).listening;
    await channels.follow("a", hear).listening;
    await redis.publish("a", "{not ours");
    await channels.sync();
    expect(heard).toEqual(["{not ours"]);
    expect(log).toMatchObject([{ level: "warn", message: "a message was not understood", fields: { channel: "a" } }]);
  });

  it("that Redis refuses are an error for their followers alone", async () => {
    await redis.acl("SETUSER", "default", "resetchannels", "&allowed");
    try {
      const [refused, allowed] = [channels.follow("refused", hear), channels.follow("allowed", hear)];
      await expect(refused.listening).rejects.toMatchObject({ reason: "STORE_UNAVAILABLE" });
      await allowed.listening;
      await redis.acl("SETUSER", "default", "allchannels");
      await channels.follow("refused", hear).listening;
    } finally {
      await redis.acl("SETUSER", "default", "allchannels");
    }
  });
});
