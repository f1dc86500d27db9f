import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient, type WatchEvent, type WatchInput } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until, within } from "../support/wait.ts";

let broker: TestBroker;
let client: BatonClient;

beforeAll(async () => {
  broker = await startBroker({ keepaliveIntervalMs: 100 });
  client = new BatonClient({ address: broker.address });
});

afterAll(async () => {
  client.close();
  await broker.stop();
});

async function finish(queue: string, result = "done"): Promise<void> {
  const [job] = await client.reserve({ queues: [queue] });
  await client.release(job?.leaseToken ?? "", { outcome: "completed", result });
}

/** Collects what a watch says until `stop`, which ends it; keepalives by themselves. */
function collect(input: WatchInput, on = client, breaks: unknown[] = [], silenceLimitMs?: number) {
  const events: WatchEvent[] = [];
  const keepalives: (readonly string[])[] = [];
  const abort = new AbortController();
  const ended = (async () => {
    const onBreak = (error: unknown) => breaks.push(error);
    for await (const event of on.watch(input, { signal: abort.signal, onBreak, silenceLimitMs })) {
      if (event.type === "keepalive") keepalives.push(event.cursors);
      else events.push(event);
    }
  })().catch((error: unknown) => error);
  return {
    events,
    keepalives,
    started: () => until(() => events[0]?.type === "started", { what: "the watch to start" }),
    ids: () => events.flatMap((event) => (event.type === "event" ? [event.id] : [])),
    async stop(): Promise<unknown> {
      abort.abort(new Error("enough"));
      return await within(ended, { what: "the watch to end" });
    },
  };
}

/** A broker that a test may end, and start again at the same address. */
async function startOther(port?: string): Promise<TestBroker> {
  return await startBroker({ redis: broker.redis, grpcAddr: `127.0.0.1:${port ?? 0}` });
}

const portOf = ({ address }: TestBroker) => address.slice(address.lastIndexOf(":") + 1);

describe("BatonClient.await()", () => {
  it("gives the result before, while and after the job runs", async () => {
    await client.put({ queue: "await", id: "1" });
    const early = client.await("await", "1");
    await finish("await", "well");
    for (const job of [await early, await client.await("await", "1", { timeoutMs: 0 })]) {
      expect(job).toMatchObject({ id: "1", state: "COMPLETED" });
      expect(job.result?.text()).toBe("well");
    }
  });

  it("throws AWAIT_TIMEOUT when its own time is over, and JOB_NOT_FOUND for what never existed", async () => {
    await client.put({ queue: "slow", id: "1" });
    await expect(client.await("slow", "1", { timeoutMs: 50 })).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      reason: "AWAIT_TIMEOUT",
      metadata: { state: "READY" },
    });
    await expect(client.await("slow", "never")).rejects.toMatchObject({ reason: "JOB_NOT_FOUND" });
  });

  it("ends with the signal's reason", async () => {
    await client.put({ queue: "given-up", id: "1" });
    const abort = new AbortController();
    const waiting = client.await("given-up", "1", { signal: abort.signal });
    abort.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
  });

  it("goes on over the death of its broker, until another answers", async () => {
    const one = await startOther();
    const own = new BatonClient({ address: one.address });
    await client.put({ queue: "moved", id: "1" });
    const waiting = own.await("moved", "1", { timeoutMs: 20_000 });
    await until(async () => (await own.get("moved", "1")).state === "READY", { what: "the connection" });
    await one.stop();
    await finish("moved", "kept");
    const two = await startOther(portOf(one));
    try {
      expect((await within(waiting, { what: "the result", withinMs: 10_000 })).result?.text()).toBe("kept");
    } finally {
      own.close();
      await two.stop();
    }
  });

  it("waits for the broker no longer than its own time and the client's patience", async () => {
    const nobody = new BatonClient({ address: "127.0.0.1:1", defaultDeadlineMs: 300 });
    const begun = performance.now();
    await expect(nobody.await("q", "1", { timeoutMs: 100 })).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(performance.now() - begun).toBeLessThan(3_000);
    nobody.close();
  });
});

describe("BatonClient.watch()", () => {
  it("begins with its cursors, tells each transition, and goes on after any of them", async () => {
    const watching = collect({ queues: ["life"] });
    await watching.started();
    await client.put({ queue: "life", id: "1", delayMs: 60_000 });
    await client.cancel("life", "1");
    await client.retry("life", ["1"]);
    await finish("life");
    await until(() => watching.ids().length === 5, { what: "five events" });
    const seen = watching.events.flatMap((event) =>
      event.type === "event" ? [`${event.transition} ${event.state}`] : [],
    );
    expect(seen).toEqual(["put SCHEDULED", "cancel FAILED", "retry READY", "reserve RESERVED", "complete COMPLETED"]);
    const [, put, cancel] = watching.events;
    expect(put).toMatchObject({ queue: "life", runAt: expect.any(Date), occurredAt: expect.any(Date), attempt: 0 });
    expect(await watching.stop()).toMatchObject({ message: "enough" });
    const again = collect({ queues: ["life"], resumeAfter: [cancel?.type === "event" ? cancel.cursor : ""] });
    await until(() => again.ids().length === 3, { what: "the rest" });
    expect(again.events[1]).toMatchObject({ transition: "retry" });
    await again.stop();
  });

  it("tells only of the jobs that were asked for", async () => {
    const watching = collect({ queues: ["some"], ids: ["a", "c"] });
    await watching.started();
    for (const id of ["a", "b", "c"]) await client.put({ queue: "some", id });
    await until(() => watching.ids().length === 2, { what: "two events" });
    expect(watching.ids()).toEqual(["a", "c"]);
    await watching.stop();
  });

  it("misses nothing and repeats nothing while its connection is cut again and again", async () => {
    const proxy = await startTcpProxy(broker.address);
    const own = new BatonClient({ address: `127.0.0.1:${proxy.port}` });
    const breaks: unknown[] = [];
    const watching = collect({ queues: ["cut-a", "cut-b"] }, own, breaks);
    const cutOnce = async () => {
      const before = breaks.length;
      // There is something to cut only when the stream is open again.
      const isCut = () => {
        proxy.cut();
        return breaks.length > before;
      };
      await until(isCut, { what: "the break to be seen" });
    };
    const ids = Array.from({ length: 300 }, (_, n) => `job-${n}`);
    try {
      await watching.started();
      for (const [n, id] of ids.entries()) {
        await client.put({ queue: n % 2 === 0 ? "cut-a" : "cut-b", id });
        if (n % 100 === 50) await cutOnce();
      }
      await until(() => watching.ids().length >= ids.length, { what: "all events", withinMs: 15_000 });
      expect(watching.ids().filter((_id, n) => watching.ids().indexOf(_id) !== n)).toEqual([]);
      expect(new Set(watching.ids())).toEqual(new Set(ids));
      expect(watching.events.filter(({ type }) => type !== "event")).toHaveLength(1);
      expect(breaks.length).toBeGreaterThanOrEqual(3);
    } finally {
      await watching.stop();
      own.close();
      await proxy.stop();
    }
  });

  it("is told of no gap after a break when it missed only what it did not ask for", async () => {
    await client.queues.update("busy", { historyMaxEvents: 100 });
    const proxy = await startTcpProxy(broker.address);
    const own = new BatonClient({ address: `127.0.0.1:${proxy.port}` });
    const watching = collect({ queues: ["busy"], ids: ["mine"] }, own);
    try {
      await watching.started();
      for (let round = 0; round < 5; round++) {
        await client.putMany(Array.from({ length: 1_000 }, () => ({ queue: "busy" })));
      }
      const { value: now } = await client.watch({ queues: ["busy"] }).next();
      const end = now?.type === "started" ? now.cursors : [];
      await until(() => watching.keepalives.at(-1)?.[0] === end[0], { what: "a keepalive beyond the others' jobs" });
      // Where a thousand puts at once overtook the stream, it was told of gaps before.
      const before = watching.events.length;
      proxy.cut();
      await client.put({ queue: "busy", id: "mine" });
      await until(() => watching.ids().length === 1, { what: "the event that was asked for", withinMs: 10_000 });
      expect(watching.events.slice(before).map(({ type }) => type)).toEqual(["event"]);
    } finally {
      await watching.stop();
      own.close();
      await proxy.stop();
    }
  });

  it("takes a stream for lost on which nothing comes any more", async () => {
    const proxy = await startTcpProxy(broker.address);
    const own = new BatonClient({ address: `127.0.0.1:${proxy.port}` });
    const breaks: unknown[] = [];
    const watching = collect({ queues: ["silent"] }, own, breaks, 300);
    try {
      await watching.started();
      proxy.lose("replies");
      await client.put({ queue: "silent", id: "1" });
      await until(() => breaks.length > 0, { what: "the silence to be noticed" });
      expect(breaks[0]).toMatchObject({ code: "UNAVAILABLE", reason: "STREAM_SILENT" });
      proxy.cut();
      await until(() => watching.ids().length === 1, { what: "what came meanwhile", withinMs: 10_000 });
    } finally {
      await watching.stop();
      own.close();
      await proxy.stop();
    }
  });

  it("goes over to another broker, and goes on where it was", async () => {
    const one = await startOther();
    const own = new BatonClient({ address: one.address });
    const watching = collect({ queues: ["over"] }, own);
    await watching.started();
    await client.put({ queue: "over", id: "before" });
    await until(() => watching.ids().length === 1, { what: "the first event" });
    await one.stop();
    await client.put({ queue: "over", id: "between" });
    const two = await startOther(portOf(one));
    try {
      await until(() => watching.ids().length === 2, { what: "what was put meanwhile", withinMs: 10_000 });
      expect(watching.ids()).toEqual(["before", "between"]);
    } finally {
      await watching.stop();
      own.close();
      await two.stop();
    }
  });

  it("says where events are missing, and goes on behind the gap", async () => {
    await client.queues.update("gap", { historyMaxEvents: 100 });
    const first = collect({ queues: ["gap"] });
    await first.started();
    const [started] = first.events;
    for (let round = 0; round < 5; round++) {
      await client.putMany(Array.from({ length: 1_000 }, () => ({ queue: "gap" })));
    }
    await first.stop();
    const resumeAfter = started?.type === "started" ? started.cursors : [];
    const late = collect({ queues: ["gap"], resumeAfter });
    await client.put({ queue: "gap", id: "last" });
    await until(() => late.ids().includes("last"), { what: "the newest event" });
    expect(late.events.filter(({ type }) => type === "gap")).toMatchObject([
      { queue: "gap", cursor: expect.any(String) },
    ]);
    await late.stop();
  });

  it("throws at once what trying again cannot help, and within its deadline when nobody is there", async () => {
    await expect(client.watch({ queues: ["no spaces"] }).next()).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    const cursor = { queues: ["q"], resumeAfter: ["nonsense"] };
    await expect(client.watch(cursor).next()).rejects.toMatchObject({ violations: [{ field: "resume_after[0]" }] });
    const nobody = new BatonClient({ address: "127.0.0.1:1" });
    await expect(nobody.watch({ queues: ["q"] }, { deadlineMs: 300 }).next()).rejects.toMatchObject({
      code: "UNAVAILABLE",
    });
    nobody.close();
  });

  it("ends when its reader leaves the loop, and when the client is closed", async () => {
    for await (const event of client.watch({ queues: ["leave"] })) {
      expect(event.type).toBe("started");
      break;
    }
    const own = new BatonClient({ address: broker.address });
    const events = own.watch({ queues: ["close"] });
    await events.next();
    const next = events.next();
    own.close();
    await expect(next).rejects.toMatchObject({ reason: "CLIENT_CLOSED" });
  });
});
