import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/client.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/wait.ts";
import { openStream } from "./support.ts";

describe("the leases that a broker keeps for its streams", () => {
  let redis: TestRedis;
  let proxy: TcpProxy;
  let broker: TestBroker;
  let client: BatonClient;

  beforeEach(async () => {
    redis = await startRedis();
    proxy = await startTcpProxy(redis.socketPath);
    broker = await startBroker({ redis, redisUrl: `redis://127.0.0.1:${proxy.port}`, redisTimeoutMs: 300 });
    client = new BatonClient({ address: broker.address });
  });

  afterEach(async () => {
    client.close();
    await broker.stop();
    await proxy.stop();
    await redis.stop();
  });

  const logged = (message: string) => broker.log.some((line) => line.message === message);

  it("end after the grace although Redis was away when the stream ended", async () => {
    const stream = await openStream(client, { queues: ["q"], leaseMs: 600_000, disconnectGraceMs: 0 });
    await client.put({ queue: "q", id: "held" });
    await until(() => stream.jobs.length === 1, { what: "the job" });
    proxy.lose("requests");
    await stream.cut();
    await until(() => logged("leases not extended"), { what: "the failure" });
    const isBack = async () => (await client.get("q", "held")).state === "READY";
    await until(isBack, { what: "the job to come back", withinMs: 15_000 });
    expect(await client.get("q", "held")).toMatchObject({ attempt: 1, failures: 1 });
  });

  it("are renewed again soon after a renewal that failed", async () => {
    const stream = await openStream(client, { queues: ["q"], leaseMs: 6_000 });
    await client.put({ queue: "q", id: "held" });
    await until(() => stream.jobs.length === 1, { what: "the job" });
    const firstEnd = stream.jobs[0]?.leaseExpiresAt?.getTime() ?? 0;
    proxy.lose("requests");
    const renewed = async () => ((await client.get("q", "held")).leaseExpiresAt?.getTime() ?? 0) > firstEnd;
    await until(renewed, { what: "the renewal", withinMs: 15_000 });
    expect(stream.events.filter(({ type }) => type === "revoked")).toEqual([]);
  });
});
