/** ListWorkers, QuietWorker and ResumeWorker: two brokers on one Redis. */
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until } from "../support/wait.ts";
import { WorkStream } from "../support/work-stream.ts";
import { at, expectBadRequest, type Fixture, ms, startFixture } from "./fixture.ts";
import { QueueClient } from "./queue-client.ts";
import { RawClient, type RawStream, type Request } from "./raw-client.ts";

type SubscribeInit = Exclude<Parameters<RawClient["subscribe"]>[0], Uint8Array>;

/** How soon every broker must know who is quiet. */
const KNOWN_WITHIN_MS = 100;

let fixture: Fixture;
let secondBroker: TestBroker;
let first: RawClient;
let second: RawClient;
let queues: QueueClient;
let queue: string;
let worker: string;
let count = 0;
const streams: RawStream[] = [];

beforeAll(async () => {
  fixture = await startFixture();
  secondBroker = await startBroker({ redis: fixture.broker.redis });
  first = fixture.client;
  second = new RawClient(secondBroker.address);
  queues = new QueueClient(first);
});

afterAll(async () => {
  second?.close();
  await secondBroker?.stop();
  await fixture?.stop();
});

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
  worker = `worker-${count}`;
});

afterEach(() => {
  for (const stream of streams.splice(0)) stream.cancel();
});

async function opened(client: RawClient, request: SubscribeInit = {}): Promise<RawStream> {
  const stream = client.subscribe({ queues: [{ name: queue }], workerId: worker, maxOutstanding: 10, ...request });
  streams.push(stream);
  await stream.saw("started");
  return stream;
}

const list = async (atQueue = queue) => (await queues.good("listWorkers", { queue: atQueue })).workers;

/** Until the list of this test's queue is as wanted; that list. */
async function listed(howMany: number) {
  return await until(
    async () => {
      const workers = await list();
      return workers.length === howMany && workers;
    },
    { what: `${howMany} workers to be listed` },
  );
}

const put = (id: string, client = first) => client.good("put", { queue, id });
const wait = (request: Request<"reserve"> = {}) => ({ queues: [{ name: queue }], workerId: worker, ...request });

describe("ListWorkers", () => {
  it("shows the streams of all brokers, each for itself, with what they say of themselves", async () => {
    const beganMs = await fixture.nowMs();
    await opened(first, { workerId: "b", host: "machine", language: "erlang" });
    await opened(second, { workerId: "b" });
    const stream = await opened(second, { workerId: "a", queues: [{ name: queue }, { name: `${queue}-2` }] });
    await put("job");
    const [a, ...bs] = await listed(3);
    expect(a).toMatchObject({ workerId: "a", queues: [queue, `${queue}-2`], quiet: false, streaming: true });
    expect(bs.map(({ workerId }) => workerId)).toEqual(["b", "b"]);
    const said = bs.find(({ host }) => host === "machine");
    expect(said?.language).toBe("erlang");
    const unsaid = bs.find(({ host }) => host === "127.0.0.1");
    expect(unsaid?.language).toBe("node");
    expect(said?.brokerId).not.toBe(unsaid?.brokerId);
    expect(a?.brokerId).toBe(unsaid?.brokerId);
    for (const { connectedAt, lastSeenAt } of [a, ...bs].filter((one) => one !== undefined)) {
      expect(at(connectedAt)).toBeGreaterThanOrEqual(beganMs - 1);
      expect(at(lastSeenAt)).toBeGreaterThanOrEqual(at(connectedAt));
      expect(at(lastSeenAt)).toBeLessThanOrEqual(await fixture.nowMs());
    }
    stream.cancel();
    await listed(2);
  });

  it("shows how many jobs a stream has and has not released, and renews when it was seen", async () => {
    const stream = await opened(first);
    const [before] = await listed(1);
    for (const id of ["1", "2", "3"]) await put(id);
    const [job] = await stream.got(3);
    await first.good("release", { leaseToken: job?.leaseToken ?? "", outcome: { case: "completed", value: {} } });
    const [after] = await until(
      async () => {
        const workers = await list();
        return workers[0]?.jobsInHand === 2 && workers;
      },
      { what: "the renewal", withinMs: 15_000 },
    );
    expect(at(after?.lastSeenAt)).toBeGreaterThan(at(before?.lastSeenAt));
    expect(at(after?.connectedAt)).toBe(at(before?.connectedAt));
  });

  it("shows a worker that calls Reserve once, however often it calls, with the queues of its last call", async () => {
    for (let i = 0; i < 5; i++) await first.reserve(wait());
    await first.reserve(wait({ queues: [{ name: queue }, { name: "another" }] }));
    const [shown] = await listed(1);
    expect(shown).toMatchObject({
      workerId: worker,
      streaming: false,
      jobsInHand: 0,
      host: "127.0.0.1",
      language: "node",
    });
  });

  it("goes page by page in the order of the ids, each once, and only those at the queue", async () => {
    const names = Array.from({ length: 25 }, (_, i) => `${worker}-${String(i).padStart(2, "0")}`);
    await Promise.all(names.map((workerId, i) => opened(i % 2 ? first : second, { workerId })));
    await opened(first, { workerId: `${worker}-05a`, queues: [{ name: "elsewhere" }] });
    await listed(25);
    const seen: string[] = [];
    const sizes: number[] = [];
    let pageToken = "";
    do {
      const page = await queues.good("listWorkers", { queue, pageSize: 10, pageToken });
      seen.push(...page.workers.map(({ workerId }) => workerId));
      sizes.push(page.workers.length);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(seen).toEqual(names);
    expect(sizes).toEqual([10, 10, 5]);
  });

  it("fits a page into the 4 MiB that gRPC clients accept, and still shows every worker", async () => {
    const { redis } = fixture;
    const now = await fixture.nowMs();
    const many = [queue, ...Array.from({ length: 63 }, (_, i) => `${i}`.padEnd(128, "q"))];
    const names = Array.from({ length: 700 }, (_, i) => `${worker}-${i}`).toSorted();
    const info = (w: string) =>
      JSON.stringify({ w, h: "h".repeat(255), l: "", q: many, j: 0, c: now, s: now, st: true, b: "elsewhere" });
    const members = names.map((name) => `${name}\0elsewhere\0`);
    await redis.zadd("baton:workers:names", ...members.flatMap((member) => [0, member]));
    await redis.zadd("baton:workers:seen", ...members.flatMap((member) => [now, member]));
    await redis.hset("baton:workers:info", ...members.flatMap((member, i) => [member, info(names[i] ?? "")]));
    const seen: string[] = [];
    const client = new RawClient(fixture.broker.address, { "grpc.max_receive_message_length": 4 * 1024 * 1024 });
    let pageToken = "";
    do {
      // All of them on one page would be 6 MB.
      const page = await new QueueClient(client).good("listWorkers", { queue, pageSize: 1_000, pageToken });
      seen.push(...page.workers.map(({ workerId }) => workerId));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    client.close();
    expect(seen).toEqual(names);
    for (const key of ["names", "seen"]) await redis.zrem(`baton:workers:${key}`, ...members);
    await redis.hdel("baton:workers:info", ...members);
  });

  it("refuses page tokens that are none or another query's, bad queues and page sizes, and names them", async () => {
    await opened(first, { workerId: `${worker}-1` });
    await opened(first, { workerId: `${worker}-2` });
    await listed(2);
    const { nextPageToken: pageToken } = await queues.good("listWorkers", { queue, pageSize: 1 });
    expect(pageToken).not.toBe("");
    for (const request of [{ queue, pageToken: "forged" }, { queue: "other", pageToken }, { pageToken }]) {
      expectBadRequest(await queues.bad("listWorkers", request), "page_token");
    }
    expectBadRequest(await queues.bad("listWorkers", { queue: "no spaces" }), "queue");
    expectBadRequest(await queues.bad("listWorkers", { pageSize: 1_001 }), "page_size");
    expectBadRequest(await queues.bad("listWorkers", { pageSize: -1 }), "page_size");
  });

  it("does not show what was not renewed for 30 s, and a broker removes it", async () => {
    const { redis, nowMs } = fixture;
    await opened(first);
    await listed(1);
    const now = await nowMs();
    const dead = (seenMs: number) =>
      JSON.stringify({ w: worker, h: "", l: "", q: [queue], j: 1, c: seenMs, s: seenMs, st: true, b: "dead" });
    const members = ["long", "just"].map((what) => `${worker}\0${what}\0`) as [string, string];
    for (const [i, member] of members.entries()) {
      const seenMs = i === 0 ? now - 31_000 : now - 20_000;
      await redis.zadd("baton:workers:names", 0, member);
      await redis.zadd("baton:workers:seen", seenMs, member);
      await redis.hset("baton:workers:info", member, dead(seenMs));
    }
    await redis.hset("baton:workers:info", `${worker}\0garbage\0`, "{");
    await redis.zadd("baton:workers:names", 0, `${worker}\0garbage\0`);
    expect(
      (await list()).filter(({ brokerId }) => brokerId === "dead").map(({ lastSeenAt }) => at(lastSeenAt)),
    ).toEqual([now - 20_000]);
    await until(async () => (await redis.hexists("baton:workers:info", members[0])) === 0, {
      what: "a broker to remove it",
      withinMs: 15_000,
    });
    for (const key of ["names", "seen"]) expect(await redis.zscore(`baton:workers:${key}`, members[0])).toBeNull();
    // And what is left of a broker is gone with it, at the latest after 30 s.
    await until(async () => (await list()).length === 1, { what: "the other one to be gone", withinMs: 15_000 });
  }, 40_000);

  it("shows none of a broker that has stopped", async () => {
    const third = await startBroker({ redis: fixture.broker.redis });
    const client = new RawClient(third.address);
    await opened(client);
    await client.reserve(wait({ workerId: `${worker}-caller` }));
    await listed(2);
    await third.stop();
    client.close();
    expect(await list()).toEqual([]);
  });
});

describe("a Work stream that is quiet by its worker's own will", () => {
  it("is listed so, also by another broker, and its worker's other streams are not", async () => {
    await opened(first);
    const start = { queues: [{ name: queue }], workerId: worker, language: "quiet one" };
    const own = await WorkStream.open(fixture.broker.address, start);
    try {
      await listed(2);
      const quietAre = (wanted: readonly boolean[]) =>
        until(
          async () => {
            const shown = await Promise.all(
              [queues, new QueueClient(second)].map((at) => at.good("listWorkers", { queue })),
            );
            return shown.every(({ workers }) => {
              const quiet = workers.filter((one) => one.quiet).map(({ language }) => language);
              return quiet.join() === wanted.map(() => "quiet one").join();
            });
          },
          { what: `${wanted.length} to be listed as quiet`, withinMs: 2_000 },
        );
      await quietAre([]);
      own.send({ quiet: true });
      await own.saw(({ quiet }) => quiet === true, "quiet");
      await quietAre([true]);
      own.send({ quiet: false });
      await own.saw(({ quiet }) => quiet === false, "quiet's end");
      await quietAre([]);
    } finally {
      own.close();
    }
    await listed(1);
  });
});

describe("QuietWorker", () => {
  it("through one broker keeps jobs from a worker's streams at every broker, within 100 ms, until ResumeWorker", async () => {
    const own = [await opened(first), await opened(second)];
    await put("running");
    await until(() => own.some((stream) => stream.jobs().length === 1), { what: "a job" });
    const leaseToken = own.flatMap((stream) => stream.jobs())[0]?.leaseToken ?? "";
    const told = new Redis(fixture.broker.redis.socketPath);
    try {
      await told.subscribe("baton:workers");
      const heard = new Promise((resolve) => told.once("message", resolve));
      const askedAt = performance.now();
      expect((await queues.good("quietWorker", { workerId: worker })).changed).toBe(true);
      await heard;
      expect(performance.now() - askedAt).toBeLessThan(KNOWN_WITHIN_MS);
    } finally {
      told.disconnect();
    }
    expect((await queues.good("quietWorker", { workerId: worker })).changed).toBe(false);
    await until(async () => (await listed(2)).every(({ quiet }) => quiet), { what: "it to be listed as quiet" });
    for (let i = 0; i < 10; i++) await put(`${i}`, i % 2 ? first : second);
    // Another worker gets them all; the quiet one goes on with what it runs.
    const other = await opened(second, { workerId: "other" });
    await other.got(10);
    expect(own.flatMap((stream) => stream.jobs())).toHaveLength(1);
    expect((await first.good("release", { leaseToken, outcome: { case: "completed", value: {} } })).state).not.toBe(0);
    other.cancel();
    const resumedAt = performance.now();
    expect((await queues.good("resumeWorker", { workerId: worker })).changed).toBe(true);
    expect((await queues.good("resumeWorker", { workerId: worker })).changed).toBe(false);
    await put("after");
    await until(() => own.some((stream) => stream.jobs().some(({ id }) => id === "after")), { what: "the next job" });
    expect(performance.now() - resumedAt).toBeLessThan(10 * KNOWN_WITHIN_MS);
  });

  it("wakes streams at both brokers for jobs that have waited, when the worker is resumed", async () => {
    await queues.good("quietWorker", { workerId: worker });
    const own = [await opened(first, { maxOutstanding: 1 }), await opened(second, { maxOutstanding: 1 })];
    for (const id of ["1", "2"]) await put(id);
    expect(await first.reserve(wait({ wait: ms(300) }))).toEqual([]);
    expect(own.flatMap((stream) => stream.jobs())).toEqual([]);
    await queues.good("resumeWorker", { workerId: worker });
    await Promise.all(own.map((stream) => stream.got(1)));
  });

  it("holds for streams that the worker opens later, and for brokers that start later", async () => {
    await queues.good("quietWorker", { workerId: worker });
    const third = await startBroker({ redis: fixture.broker.redis });
    const client = new RawClient(third.address);
    try {
      const stream = await opened(client);
      await put("job");
      expect(await client.reserve(wait({ wait: ms(300) }))).toEqual([]);
      expect(stream.jobs()).toEqual([]);
      await queues.good("resumeWorker", { workerId: worker });
      await stream.got(1);
    } finally {
      client.close();
      await third.stop();
    }
  });

  it("lets a quiet worker's Reserve wait out its wait, or answer at once without one, with nothing", async () => {
    await put("job");
    await queues.good("quietWorker", { workerId: worker });
    expect(await first.reserve(wait())).toEqual([]);
    const startedAt = performance.now();
    expect(await first.reserve(wait({ wait: ms(250) }))).toEqual([]);
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(245);
    const waiting = first.start("reserve", wait({ wait: ms(8_000) }));
    await listed(1);
    await queues.good("resumeWorker", { workerId: worker });
    const answer = await waiting.answer;
    expect("response" in answer && answer.response.jobs.map(({ id }) => id)).toEqual(["job"]);
  });

  it("is remembered while the worker is there, and for a day after", async () => {
    const { redis } = fixture;
    const now = await fixture.nowMs();
    const day = 86_400_000;
    await queues.good("quietWorker", { workerId: worker });
    await queues.good("quietWorker", { workerId: `${worker}-gone` });
    await queues.good("quietWorker", { workerId: `${worker}-away` });
    const stream = await opened(second);
    for (const [workerId, ms] of [
      [worker, now - day + 60_000],
      [`${worker}-gone`, now - day - 1_000],
      [`${worker}-away`, now - day + 60_000],
    ] as const) {
      await redis.zadd("baton:workers:quiet", ms, workerId);
    }
    await until(async () => Number(await redis.zscore("baton:workers:quiet", worker)) >= now, {
      what: "the worker that is there to be seen",
      withinMs: 15_000,
    });
    expect(Number(await redis.zscore("baton:workers:quiet", `${worker}-away`))).toBeLessThan(now);
    expect((await queues.good("quietWorker", { workerId: `${worker}-gone` })).changed).toBe(true);
    expect(stream.jobs()).toEqual([]);
  }, 30_000);

  it("refuses a worker id that is none", async () => {
    for (const method of ["quietWorker", "resumeWorker"] as const) {
      for (const workerId of ["", "a\0b", "w".repeat(256)]) {
        expectBadRequest(await queues.bad(method, { workerId }), "worker_id");
      }
    }
  });
});
