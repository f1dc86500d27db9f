/** Await and Watch when brokers and connections die: the caller calls again, and has missed nothing. */
import { Redis } from "ioredis";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { ms } from "../rpc/fixture.ts";
import { RawClient } from "../rpc/raw-client.ts";
import { WatchClient } from "../rpc/watch-client.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/wait.ts";
import { type BrokerProcess, startBrokerProcess } from "./broker-process.ts";

const RESULT = { content: { case: "text", value: "42" }, contentType: "" } as const;
const WITH_RESULT = { case: "completed", value: { result: RESULT } } as const;

describe("a job that is awaited", { timeout: 60_000 }, () => {
  let redis: TestRedis;
  let stable: TestBroker;
  let client: RawClient;
  let proxy: TcpProxy;
  const opened: { close(): unknown }[] = [];

  beforeEach(async () => {
    redis = await startRedis({ appendonly: true, appendfsync: "always" });
    proxy = await startTcpProxy(redis.socketPath);
    stable = await startBroker({ redis });
    client = own(new RawClient(stable.address));
  });

  afterEach(async () => {
    for (const one of opened.splice(0).reverse()) await one.close();
    await stable.stop();
    await proxy.stop();
    await redis.stop();
  });

  function own<T extends { close(): unknown }>(one: T): T {
    opened.push(one);
    return one;
  }

  async function startProcess(): Promise<BrokerProcess> {
    const broker = await startBrokerProcess("--redis-url", redis.url);
    own({ close: () => broker.kill() });
    return broker;
  }

  /** A broker whose connections to Redis can be harmed. */
  async function startBehindProxy(): Promise<RawClient> {
    const redisUrl = `redis://127.0.0.1:${proxy.port}`;
    const broker = await startBroker({ redis, redisUrl, redisTimeoutMs: 500 });
    own({ close: () => broker.stop() });
    return own(new RawClient(broker.address));
  }

  async function putAndReserve(id: string): Promise<string> {
    await client.good("put", { queue: "q", id });
    return (await client.reserveOne("q", { leaseDuration: ms(60_000) })).leaseToken;
  }

  function awaitIt(at: RawClient, id: string) {
    return at.start("await", { queue: "q", id, timeout: ms(9_000) }).answer;
  }

  /** Until a broker has looked at what it was asked to await before: it does so in that order. */
  async function lookedAt(at: RawClient): Promise<void> {
    expect(await at.bad("await", { queue: "q", id: "none" })).toMatchObject({ reason: "JOB_NOT_FOUND" });
  }

  /** Until one broker listens for jobs that finish. */
  async function listening(): Promise<void> {
    const direct = new Redis(redis.socketPath);
    try {
      const count = async () => Number((await direct.pubsub("NUMSUB", "baton:{q}:events"))[1]);
      await until(async () => (await count()) === 1, { what: "a broker to listen" });
    } finally {
      direct.disconnect();
    }
  }

  it("is shown by the other broker when the one that was asked is killed", async () => {
    const [first, second] = [await startProcess(), await startProcess()];
    const [its, other] = [own(new RawClient(first.address)), own(new RawClient(second.address))];
    const token = await putAndReserve("job");
    const broken = awaitIt(its, "job");
    await lookedAt(its);
    await first.kill();
    expect(await broken).toMatchObject({ error: { code: "UNAVAILABLE" } });
    const again = awaitIt(other, "job");
    await lookedAt(other);
    await client.good("release", { leaseToken: token, outcome: WITH_RESULT });
    expect(await again).toMatchObject({ response: { job: { state: JobState.COMPLETED, result: RESULT } } });
    expect(await awaitIt(other, "job")).toMatchObject({ response: { job: { result: RESULT } } });
  });

  it("is shown although the connection broke meanwhile, whether it finished before, while or after", async () => {
    const its = await startBehindProxy();
    const tokens = [await putAndReserve("0"), await putAndReserve("1"), await putAndReserve("2")];
    const answers = ["0", "1", "2"].map((id) => awaitIt(its, id));
    await lookedAt(its);
    const release = (i: number) => client.good("release", { leaseToken: tokens[i] ?? "", outcome: WITH_RESULT });
    proxy.lose("replies");
    await release(0);
    const releasing = release(1);
    proxy.cut();
    await releasing;
    await listening();
    await release(2);
    for (const answer of answers) expect(await answer).toMatchObject({ response: { job: { result: RESULT } } });
  });

  it("is shown although its message was lost and nobody noticed", async () => {
    const its = await startBehindProxy();
    const token = await putAndReserve("job");
    const answer = awaitIt(its, "job");
    await lookedAt(its);
    proxy.lose("replies");
    await client.good("release", { leaseToken: token, outcome: WITH_RESULT });
    expect(await answer).toMatchObject({ response: { job: { result: RESULT } } });
  });

  it("is found gone when it was deleted while the connection was away", async () => {
    const its = await startBehindProxy();
    await putAndReserve("job");
    const answer = awaitIt(its, "job");
    await lookedAt(its);
    proxy.lose("replies");
    await client.good("delete", { queue: "q", id: "job" });
    proxy.cut();
    expect(await answer).toMatchObject({ error: { code: "NOT_FOUND", reason: "JOB_NOT_FOUND" } });
  });

  it("is shown although Redis was killed and started again meanwhile", async () => {
    const token = await putAndReserve("job");
    const answer = awaitIt(client, "job");
    await lookedAt(client);
    await redis.kill();
    await redis.restart();
    await listening();
    await client.good("release", { leaseToken: token, outcome: WITH_RESULT });
    expect(await answer).toMatchObject({ response: { job: { result: RESULT } } });
  });

  it("can be watched over the death of a broker, without a gap", async () => {
    const [first, second] = [await startProcess(), await startProcess()];
    const its = own(new WatchClient(first.address));
    const stream = await its.started({ queues: ["q"] });
    const token = await putAndReserve("job");
    const [, reserved] = await stream.got(2);
    await first.kill();
    expect(await stream.ended).toBeDefined();
    await client.good("release", { leaseToken: token, outcome: WITH_RESULT });
    const other = own(new WatchClient(second.address));
    const again = await other.started({ queues: ["q"], resumeAfter: [reserved?.cursor ?? ""] });
    expect((await again.got(1)).map(({ transition }) => transition)).toEqual(["complete"]);
    expect(again.all("gap")).toEqual([]);
  });

  it("can be watched over the death of Redis, on the same stream", async () => {
    const stream = await own(new WatchClient(stable.address)).started({ queues: ["q"] });
    const token = await putAndReserve("job");
    await stream.got(2);
    await redis.kill();
    await redis.restart();
    await untilRedisIsBack();
    await client.good("release", { leaseToken: token, outcome: WITH_RESULT });
    expect((await stream.got(3)).map(({ transition }) => transition)).toEqual(["put", "reserve", "complete"]);
    expect(stream.all("gap")).toEqual([]);
  });

  async function untilRedisIsBack(): Promise<void> {
    await until(async () => "response" in (await client.call("get", { queue: "q", id: "job" })), {
      what: "Redis to be back",
      withinMs: 10_000,
    });
  }
});
