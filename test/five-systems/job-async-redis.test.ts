/** What the users of Job::Async::Redis had: its three modes, a future for each job, and events. */
import { readFile } from "node:fs/promises";
import { Redis } from "ioredis";
import { afterEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { DeliveryMode, type JobEvent } from "../../gen/baton/v1/job_service_pb.js";
import { QueueMode, type WorkerInfo } from "../../gen/baton/v1/queue_service_pb.js";
import { startBrokerProcess } from "../e2e/broker-process.ts";
import { type CompletionEvents, followEvents } from "../e2e/events.ts";
import { at, expectLeaseLost, ms, untilState } from "../rpc/fixture.ts";
import { RawClient } from "../rpc/raw-client.ts";
import { WatchClient, type Watched, type WatchRequest } from "../rpc/watch-client.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until, within } from "../support/wait.ts";
import { BURIED, COMPLETED, idsOf, numbered, type Outcome, Room, text } from "./support.ts";

const room = new Room({ brokers: 2 });

const RESULT = { ...text("42"), contentType: "text/plain" } as const;
const WITH_RESULT: Outcome = { case: "completed", value: { result: RESULT } };

/** What is opened in a test, and closed after it. */
const opened: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

function clientAt(address: string): RawClient {
  const client = new RawClient(address);
  opened.push(() => client.close());
  return client;
}

/** Hears the queue's completion events from now on, as they are published. */
async function published(): Promise<CompletionEvents["seen"]> {
  const events = await followEvents(room.fixture.broker.redis.socketPath, room.queue);
  opened.push(() => events.stop());
  return events.seen;
}

/** An Await of the job called "job", of which Redis knows already. */
async function awaiting(client = room.client, more: { readonly expect?: boolean; readonly id?: string } = {}) {
  const channel = `baton:{${room.queue}}:events`;
  const listeners = async () => Number((await room.fixture.redis.pubsub("NUMSUB", channel))[1]);
  const before = await listeners();
  const call = client.start("await", { queue: room.queue, id: "job", timeout: ms(9_000), ...more });
  await until(async () => (await listeners()) > before, { what: "the broker to listen" });
  return call;
}

const setMode = (mode: QueueMode) =>
  room.queues.good("updateQueue", { queue: room.queue, settings: { mode }, updateMask: { paths: ["mode"] } });

async function run(outcome: Outcome): Promise<void> {
  await room.release((await room.take(1))[0] ?? expect.fail("no job"), outcome);
}

describe("Its three modes, by name, in README and as a queue's setting", () => {
  it("README names them beside what they were called", async () => {
    const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
    for (const mode of ["simple", "recoverable", "reliable"]) {
      expect(readme).toMatch(new RegExp(`^\\| mode ${mode} \\| queue mode ${mode.toUpperCase()}[:,]`, "m"));
    }
  });

  it("simple (at most once, payload handed out and forgotten, result by pub/sub)", async () => {
    expect((await setMode(QueueMode.SIMPLE)).queue?.settings?.mode).toBe(QueueMode.SIMPLE);
    const seen = await published();
    const result = room.client.start("await", { queue: room.queue, id: "job", expect: true, timeout: ms(9_000) });
    await room.put("job", { payload: text("question") });
    const [job] = await room.take();
    expect(job).toMatchObject({ id: "job", payload: text("question") });
    expect(job?.leaseExpiresAt).toBeUndefined();
    // Forgotten: nothing in Redis has it any more, and nobody gets it again.
    expect((await room.client.bad("get", { queue: room.queue, id: "job" })).reason).toBe("JOB_NOT_FOUND");
    const stored = Object.entries(await room.fixture.dump()).filter(([key]) => key.includes(`{${room.queue}}`));
    expect(JSON.stringify(stored)).not.toContain("question");
    expect(await room.take(1, { wait: ms(100) })).toEqual([]);
    await room.release(job ?? expect.fail("no job"), WITH_RESULT);
    await until(() => seen.length > 0, { what: "the result to be published" });
    expect(seen).toMatchObject([{ id: "job", state: "COMPLETED", result: { text: "42" } }]);
    expect(await result.answer).toMatchObject({ response: { job: { state: JobState.COMPLETED, result: RESULT } } });
    expect((await room.client.bad("get", { queue: room.queue, id: "job" })).reason).toBe("JOB_NOT_FOUND");
  });

  it("recoverable (stored data and result, completion published)", async () => {
    await setMode(QueueMode.RECOVERABLE);
    const seen = await published();
    await room.put("job", { payload: text("question") });
    const [lost] = await room.take(1, { leaseDuration: ms(100) });
    // Its worker is gone, and the job is still there, with its data, and comes back when it is asked for.
    const over = at(lost?.leaseExpiresAt);
    await until(async () => (await room.fixture.nowMs()) > over, { what: "the lease to end" });
    expect(await room.take(1, { wait: ms(100) })).toEqual([]);
    expect(await room.job("job")).toMatchObject({ state: JobState.RESERVED, payload: text("question") });
    expect((await room.queues.good("requeue", { queue: room.queue })).requeued).toBe(1);
    const [job] = await room.take();
    expect(job).toMatchObject({ payload: text("question"), attempt: 2 });
    await room.release(job ?? expect.fail("no job"), WITH_RESULT);
    expect(await room.job("job")).toMatchObject({
      state: JobState.COMPLETED,
      payload: text("question"),
      result: RESULT,
    });
    await until(() => seen.length > 0, { what: "the completion to be published" });
    expect(seen).toMatchObject([{ id: "job", state: "COMPLETED", result: { text: "42" } }]);
  });

  it("reliable (leases, workers tracked), which is the default", async () => {
    await room.put("job");
    expect((await room.shown()).effectiveSettings?.mode).toBe(QueueMode.RELIABLE);
    await setMode(QueueMode.RELIABLE);
    const stream = await room.opened({ workerId: "w1", host: "host 1", language: "Perl", disconnectGrace: ms(100) });
    const [{ leaseToken } = expect.fail("no job")] = await stream.got(1);
    const workers = async (): Promise<WorkerInfo[]> =>
      (await room.queues.good("listWorkers", { queue: room.queue })).workers;
    const shown = { workerId: "w1", host: "host 1", language: "Perl", queues: [room.queue], jobsInHand: 1 };
    await until(async () => (await workers())[0]?.jobsInHand === 1, { what: "the worker to be shown with its job" });
    expect(await workers()).toMatchObject([{ ...shown, streaming: true }]);
    expect(at((await room.job("job")).leaseExpiresAt)).toBeGreaterThan(await room.fixture.nowMs());
    stream.cancel();
    await until(async () => (await workers()).length === 0, { what: "the worker to be gone" });
    const [again] = await room.take(1, { wait: ms(5_000) });
    expect(again).toMatchObject({ id: "job", attempt: 2 });
    const late = await room.client.bad("release", { leaseToken, outcome: COMPLETED });
    expectLeaseLost(late, room.queue, "job");
  });
});

describe("Await: submit, then wait for the result", () => {
  it("success or failure", async () => {
    await room.put("job");
    const success = await awaiting();
    await run(WITH_RESULT);
    expect(await success.answer).toMatchObject({ response: { job: { state: JobState.COMPLETED, result: RESULT } } });
    await room.put("sad");
    const failure = room.client.start("await", { queue: room.queue, id: "sad" }).answer;
    await run(BURIED);
    const error = { message: "broken", type: "Bad", permanent: true };
    expect(await failure).toMatchObject({ response: { job: { state: JobState.FAILED, error } } });
  });

  it("also after a late call, at any broker", async () => {
    await room.put("job");
    await run(WITH_RESULT);
    for (const client of room.clients) {
      const { job } = await client.good("await", { queue: room.queue, id: "job", timeout: {} });
      expect(job).toMatchObject({ state: JobState.COMPLETED, result: RESULT });
    }
  });

  it("also after a reconnect", async () => {
    const proxy = await startTcpProxy(room.fixture.broker.address);
    opened.push(() => proxy.stop());
    const client = clientAt(`127.0.0.1:${proxy.port}`);
    await room.put("job");
    const broken = await awaiting(client);
    proxy.cut();
    expect(await broken.answer).toMatchObject({ error: { code: "UNAVAILABLE" } });
    // It ends while nobody waits for it.
    await run(WITH_RESULT);
    expect((await client.good("await", { queue: room.queue, id: "job" })).job?.result).toMatchObject(RESULT);
  });

  it("also after a broker's death", async () => {
    const dying = await startBrokerProcess("--redis-url", room.fixture.broker.redis.url);
    opened.push(() => dying.kill());
    await room.put("job");
    const broken = await awaiting(clientAt(dying.address));
    await dying.kill();
    expect(await broken.answer).toMatchObject({ error: { code: "UNAVAILABLE" } });
    const again = room.client.start("await", { queue: room.queue, id: "job", timeout: ms(9_000) }).answer;
    await run(WITH_RESULT);
    expect(await again).toMatchObject({ response: { job: { result: RESULT } } });
  });

  it("`timeout`: after it the answer says how far the job is, and the job goes on", async () => {
    await room.put("job");
    const began = performance.now();
    const error = await room.client.bad("await", { queue: room.queue, id: "job", timeout: ms(200) });
    expect(performance.now() - began).toBeGreaterThanOrEqual(195);
    expect(error).toMatchObject({
      code: "DEADLINE_EXCEEDED",
      reason: "AWAIT_TIMEOUT",
      metadata: { queue: room.queue, id: "job", state: "READY" },
    });
    await run(WITH_RESULT);
    expect((await room.client.good("await", { queue: room.queue, id: "job" })).job?.result).toMatchObject(RESULT);
  });

  it("the result lives as long as its retention", async () => {
    await room.put("job", { retention: ms(1_000) });
    await run(WITH_RESULT);
    const request = { queue: room.queue, id: "job" };
    const { job } = await room.client.good("await", request);
    expect(job?.result).toMatchObject(RESULT);
    expect(at(job?.retainedUntil) - at(job?.finishedAt)).toBe(1_000);
    await until(async () => (await room.fixture.nowMs()) > at(job?.retainedUntil), { what: "the retention to end" });
    expect(await room.client.bad("await", request)).toMatchObject({ code: "NOT_FOUND", reason: "JOB_NOT_FOUND" });
  });
});

describe("Watch: a stream of job events", () => {
  async function watching(request: WatchRequest = {}, broker = 0): Promise<Watched> {
    const client = new WatchClient(room.brokers[broker]?.address ?? "");
    opened.push(() => client.close());
    return client.started({ queues: [room.queue], ...request });
  }

  const shown = ({ id, transition }: JobEvent) => `${id} ${transition}`;

  it("by queues or ids", async () => {
    const other = `${room.queue}-other`;
    const byQueues = await watching({ queues: [room.queue, other] });
    const byIds = await watching({ ids: ["2"] }, 1);
    await room.putMany(["1", "2", "3"]);
    await room.client.good("put", { queue: other, id: "2" });
    await room.release((await room.take(1))[0] ?? expect.fail("no job"), WITH_RESULT);
    await room.client.good("delete", { queue: room.queue, id: "2" });
    const [ours, theirs] = [[], []] as [string[], string[]];
    for (const event of await byQueues.got(7)) (event.queue === other ? theirs : ours).push(shown(event));
    expect(ours).toEqual(["1 put", "2 put", "3 put", "1 reserve", "1 complete", "2 delete"]);
    expect(theirs).toEqual(["2 put"]);
    expect((await byIds.got(2)).map(shown)).toEqual(["2 put", "2 delete"]);
    expect(byIds.events()).toMatchObject([{ state: JobState.READY }, { state: JobState.UNSPECIFIED }]);
  });

  it("resumable from an event's cursor without a gap", async () => {
    const ids = numbered(60);
    const first = await watching();
    const work = (async () => {
      for (const id of ids) {
        await room.put(id);
        await run(COMPLETED);
      }
    })();
    const seen = [...(await first.got(20))];
    first.cancel();
    await first.ended;
    await work;
    // What was on the stream after the cursor comes again.
    const cursor = seen[12]?.cursor ?? "";
    const again = await watching({ resumeAfter: [cursor] }, 1);
    const events = [...seen.slice(0, 13), ...(await again.got(ids.length * 3 - 13))];
    expect(events.map(shown)).toEqual(ids.flatMap((id) => [`${id} put`, `${id} reserve`, `${id} complete`]));
    expect(again.all("gap")).toEqual([]);
  });

  it("as far as a bounded history reaches; a gap that is too old is said, not hidden", async () => {
    const settings = { historyMaxEvents: 100 };
    await room.queues.good("updateQueue", { queue: room.queue, settings });
    const stream = await watching();
    await room.put("first");
    const [{ cursor } = expect.fail("no event")] = await stream.got(1);
    for (let i = 0; i < 20; i++) await room.putMany(numbered(100).map((n) => `${i}-${n}`));
    // A capped Redis stream per queue.
    const history = `baton:{${room.queue}}:history`;
    expect(await room.fixture.redis.type(history)).toBe("stream");
    expect(await room.fixture.redis.xlen(history)).toBeLessThan(300);

    const late = await watching({ resumeAfter: [cursor] }, 1);
    const gap = await late.saw("gap");
    expect(gap.queue).toBe(room.queue);
    await until(() => late.events().at(-1)?.id === "19-99", { what: "the last event" });
    const reached = late.events().length;
    expect(reached).toBeGreaterThanOrEqual(100);
    expect(late.answers.findIndex(({ case: kind }) => kind === "gap")).toBeLessThan(
      late.answers.findIndex(({ case: kind }) => kind === "events"),
    );
    // From the gap's own cursor nothing is missing.
    const again = await watching({ resumeAfter: [gap.cursor] });
    expect(idsOf(await again.got(reached))).toEqual(idsOf(late.events()));
    expect(again.all("gap")).toEqual([]);
  });

  it("pub/sub is only the bell: it carries no event, and none is lost with it", async () => {
    const heard: string[] = [];
    const bell = new Redis(room.fixture.broker.redis.socketPath);
    opened.push(() => bell.disconnect());
    bell.on("message", (_channel: string, message: string) => heard.push(message));
    await bell.subscribe(`baton:{${room.queue}}:history`);
    const stream = await watching();
    await room.putMany(["1", "2"]);
    expect((await stream.got(2)).map(shown)).toEqual(["1 put", "2 put"]);
    await until(() => heard.length > 0, { what: "the bell" });
    expect(new Set(heard)).toEqual(new Set([""]));
    // No bell reaches anybody whose connections are cut just then.
    await room.fixture.redis.call("CLIENT", "KILL", "TYPE", "pubsub");
    await room.put("3");
    expect((await stream.got(3)).map(shown)).toEqual(["1 put", "2 put", "3 put"]);
  });

  it("tells of what was pulled, and of what a worker that died had", async () => {
    const stream = await watching();
    await room.put("pulled");
    await room.take(1, { mode: DeliveryMode.PULL });
    await room.put("left", { retry: { maxAttempts: 1 } });
    await room.take(1, { leaseDuration: ms(100) });
    await untilState(room.client, room.queue, "left", JobState.FAILED);
    const events = within(stream.got(6), { what: "the events" });
    const expected = ["pulled put", "pulled reserve", "pulled pull", "left put", "left reserve", "left expire"];
    expect((await events).map(shown)).toEqual(expected);
  });
});
