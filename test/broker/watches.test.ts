/** The memory of Watch: a history is read only as fast as its reader takes it, and once for those who stand together. */
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { WatchEvent, WatchStream } from "../../src/broker/watch-stream.ts";
import { Watches } from "../../src/broker/watches.ts";
import { storeUnavailable } from "../../src/model/errors.ts";
import { Channels } from "../../src/store/channels.ts";
import { connectSubscriber, disconnect, waitUntilReady } from "../../src/store/connection.ts";
import { Store } from "../../src/store/store.ts";
import { collect } from "../support/broker.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";

const HISTORY = 1_000;

let server: TestRedis;
let redis: Redis;
let subscriber: Redis;
let channels: Channels;
let store: Store;
let watches: Watches;
let reads: number;
let queue: string;
let count = 0;

beforeAll(async () => {
  server = await startRedis();
  redis = new Redis(server.socketPath);
  const log = collect([]);
  subscriber = connectSubscriber({ address: { socketPath: server.socketPath }, timeoutMs: 1_000, log });
  await waitUntilReady([subscriber], 5_000, new AbortController().signal);
  channels = new Channels({ redis: subscriber, log });
  store = new Store({
    redis,
    namespace: "w",
    defaultRetentionMs: 60_000,
    deadLetterMax: 10,
    deadLetterAgeMs: 60_000,
    historyMaxEvents: HISTORY,
  });
  const counting = {
    watch: (...[name, after, ...rest]: Parameters<Store["watch"]>) => {
      if (after !== undefined) reads += 1;
      return store.watch(name, after, ...rest);
    },
  };
  watches = new Watches({ store: counting, channels, namespace: "w", keepaliveMs: 60_000, log });
});

afterAll(async () => {
  await watches?.stop();
  if (subscriber) await disconnect(subscriber);
  redis?.disconnect();
  await server?.stop();
});

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
  reads = 0;
});

const open = () => watches.open({ queues: [queue], ids: new Set(), resumeAfter: new Map() });

async function putMany(howMany: number, atOnce = 500): Promise<void> {
  for (let i = 0; i < howMany; i += atOnce) {
    const ids = Array.from({ length: Math.min(atOnce, howMany - i) }, (_, n) => `${i + n}`);
    const jobs = ids.map((id) => ({ id, spec: Buffer.from(id), priority: 0, conflict: "reject" as const }));
    await store.put(queue, jobs);
  }
}

async function next(stream: WatchStream): Promise<WatchEvent> {
  const { value, done } = await stream.next();
  if (done) throw new Error("the stream has ended");
  return value as WatchEvent;
}

async function readUntil(stream: WatchStream, id: string): Promise<WatchEvent[]> {
  const events: WatchEvent[] = [];
  for (;;) {
    const event = await next(stream);
    events.push(event);
    if (event.kind === "events" && event.entries.at(-1)?.id === id) return events;
  }
}

describe("a stream that is read slowly", () => {
  it("reads nothing ahead, and is told of a gap when the history overtakes it", async () => {
    const stream = open();
    expect(await next(stream)).toMatchObject({ kind: "started" });
    await putMany(500);
    expect(await next(stream)).toMatchObject({ kind: "events" });
    expect(reads).toBe(1);
    await putMany(10_000);
    await channels.sync();
    expect(reads).toBe(1);
    const events = await readUntil(stream, "9999");
    expect(events[0]?.kind).toBe("gap");
    expect(events.slice(1).every(({ kind }) => kind === "events")).toBe(true);
    const told = events.flatMap((event) => (event.kind === "events" ? event.entries : []));
    expect(told.length).toBeLessThan(HISTORY * 2);
    for (const event of events) if (event.kind === "events") expect(event.entries.length).toBeLessThanOrEqual(500);
    stream.close();
  });

  it("ends when it is closed while somebody waits for the next event, and gives its queue back", async () => {
    const stream = open();
    await next(stream);
    const waiting = stream.next();
    stream.close();
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });
});

describe("a stream whose read fails", () => {
  it("is told at the next poll, though nothing has happened since", async () => {
    let fails = false;
    let failed = 0;
    const failing = {
      watch: async (...[name, after, ...rest]: Parameters<Store["watch"]>) => {
        if (fails && after !== undefined) {
          failed += 1;
          throw storeUnavailable();
        }
        return await store.watch(name, after, ...rest);
      },
    };
    const log = collect([]);
    const polling = new Watches({ store: failing, channels, namespace: "w", keepaliveMs: 60_000, log, pollMs: 20 });
    try {
      polling.start();
      const stream = polling.open({ queues: [queue], ids: new Set(), resumeAfter: new Map() });
      await next(stream);
      fails = true;
      const told = readUntil(stream, "0");
      await putMany(1);
      // The bell, and polls after it.
      await until(() => failed > 2, { what: "the polls to have the stream read again" });
      fails = false;
      expect(await told).toHaveLength(1);
    } finally {
      await polling.stop();
    }
  });
});

describe("a stream that resumes", () => {
  it("sees all that happens after it has started, although nobody had watched for long", async () => {
    const after = { number: 0, atMs: 0 };
    const stream = watches.open({ queues: [queue], ids: new Set(), resumeAfter: new Map([[queue, after]]) });
    expect(await next(stream)).toEqual({ kind: "started", cursors: [{ queue, ...after }] });
    await putMany(1);
    expect((await readUntil(stream, "0")).map(({ kind }) => kind)).toEqual(["gap", "events"]);
    stream.close();
  });
});

describe("streams that stand together", () => {
  it("share their reads", async () => {
    const streams = Array.from({ length: 100 }, open);
    for (const stream of streams) await next(stream);
    const reading = streams.map((stream) => readUntil(stream, "899"));
    await putMany(900, 50);
    for (const events of await Promise.all(reading)) {
      const told = events.flatMap((event) => (event.kind === "events" ? event.entries : []));
      expect(told.map(({ id }) => id)).toEqual(Array.from({ length: 900 }, (_, i) => `${i}`));
    }
    // One for each of them and put would be 1,800.
    expect(reads).toBeLessThan(180);
    for (const stream of streams) stream.close();
  });
});
