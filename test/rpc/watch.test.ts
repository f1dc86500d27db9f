/** What the contract promises of Watch, sentence by sentence, over real gRPC, on two brokers with one Redis. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import type { JobEvent } from "../../gen/baton/v1/job_service_pb.js";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until, within } from "../support/wait.ts";
import { at, expectBadRequest, type Fixture, ms, startFixture } from "./fixture.ts";
import type { RawClient, Request } from "./raw-client.ts";
import { WatchClient } from "./watch-client.ts";

type Outcome = NonNullable<Request<"release">["outcome"]>;

const COMPLETED: Outcome = { case: "completed", value: {} };
const HISTORY = 200;

let fixture: Fixture;
let second: TestBroker;
let client: RawClient;
let watcher: WatchClient;
let elsewhere: WatchClient;
let queue: string;
let count = 0;

beforeAll(async () => {
  const settings = { historyMaxEvents: HISTORY, keepaliveIntervalMs: 300 };
  fixture = await startFixture(settings);
  second = await startBroker({ redis: fixture.broker.redis, ...settings });
  client = fixture.client;
});

afterAll(async () => {
  await second?.stop();
  await fixture?.stop();
});

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
  watcher = new WatchClient(fixture.broker.address);
  elsewhere = new WatchClient(second.address);
});

afterEach(() => {
  watcher.close();
  elsewhere.close();
});

const put = (id: string, request: Request<"put"> = {}) => client.good("put", { queue, id, ...request });

async function run(outcome: Outcome, workerId = "w1"): Promise<void> {
  const { leaseToken } = await client.reserveOne(queue, { workerId });
  await client.good("release", { leaseToken, outcome });
}

const shown = ({ id, transition, state }: JobEvent) => `${id} ${transition} ${JobState[state]}`;

function putMany(from: number, howMany: number) {
  const jobs = Array.from({ length: howMany }, (_, i) => ({ queue, id: `${from + i}` }));
  return client.good("putMany", { jobs });
}

describe("a Watch stream", () => {
  it("says first that it has started, with a cursor for each queue, and then what happens, in order", async () => {
    await put("before");
    const stream = await watcher.started({ queues: [queue, `${queue}-b`] });
    expect(stream.all("started")[0]?.cursors).toHaveLength(2);
    await putMany(0, 50);
    const jobs = await client.reserveMany(queue, 51);
    await client.good("releaseMany", { releases: jobs.map(({ leaseToken }) => ({ leaseToken, outcome: COMPLETED })) });
    const events = await stream.got(50 + 51 + 51);
    const ids = Array.from({ length: 50 }, (_, i) => `${i}`);
    expect(events.map(shown)).toEqual([
      ...ids.map((id) => `${id} put READY`),
      ...["before", ...ids].map((id) => `${id} reserve RESERVED`),
      ...["before", ...ids].map((id) => `${id} complete COMPLETED`),
    ]);
    expect(new Set(events.map(({ cursor }) => cursor)).size).toBe(events.length);
  });

  it("tells every transition of a job's life, with what the job is then", async () => {
    const stream = await watcher.started({ queues: [queue] });
    await put("job", { start: { case: "delay", value: ms(50) }, retry: { maxAttempts: 2, initialBackoff: {} } });
    await run({ case: "returned", value: { delay: ms(50) } });
    await run({ case: "failed", value: { message: "x", retryAfter: ms(50) } }, "w2");
    await client.reserveOne(queue, { leaseDuration: ms(100), workerId: "w3" });
    await stream.got(10);
    await client.good("retry", { queue, ids: ["job"] });
    await run(COMPLETED, "w4");
    await put("job");
    await client.good("cancel", { queue, id: "job" });
    await client.good("delete", { queue, id: "job" });
    const events = await stream.got(16);
    expect(events.map(shown)).toEqual([
      "job put SCHEDULED",
      "job due READY",
      "job reserve RESERVED",
      "job return SCHEDULED",
      "job due READY",
      "job reserve RESERVED",
      "job fail RETRYING",
      "job due READY",
      "job reserve RESERVED",
      "job expire FAILED",
      "job retry READY",
      "job reserve RESERVED",
      "job complete COMPLETED",
      "job put READY",
      "job cancel FAILED",
      "job delete UNSPECIFIED",
    ]);
    expect(events.map(({ attempt }) => attempt)).toEqual([0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 0, 0, 0]);
    expect(events.map(({ failures }) => failures)).toEqual([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 0, 0, 0, 0, 0, 0]);
    expect(events.map(({ workerId }) => workerId).slice(0, 13)).toEqual([
      "",
      "",
      "w1",
      "w1",
      "w1",
      "w2",
      "w2",
      "w2",
      "w3",
      "w3",
      "w3",
      "w4",
      "w4",
    ]);
    for (const event of events) {
      const waits = event.state === JobState.SCHEDULED || event.state === JobState.RETRYING;
      expect(event.runAt !== undefined, shown(event)).toBe(waits);
      expect(event.queue).toBe(queue);
    }
    const times = events.map(({ occurredAt }) => at(occurredAt));
    expect(times).toEqual(times.toSorted((a, b) => a - b));
  });

  it("tells of what is held, freed, pulled, lapsed and gone after its retention", async () => {
    const stream = await watcher.started({ queues: [queue] });
    const concurrency = { key: "k", limit: 1 };
    await put("a", { concurrency, retention: {} });
    await put("b", { concurrency });
    const { leaseToken } = await client.reserveOne(queue);
    expect(await client.reserve({ queues: [{ name: queue }] })).toEqual([]);
    await client.good("release", { leaseToken, outcome: COMPLETED });
    expect(await client.reserve({ queues: [{ name: queue }], mode: 2 })).toHaveLength(1);
    await put("c", { expiresIn: ms(1) });
    await until(async () => (await client.reserve({ queues: [{ name: queue }] })).length === 0, { what: "no job" });
    const events = await stream.got(10);
    expect(events.map(shown)).toEqual([
      "a put READY",
      "b put READY",
      "a reserve RESERVED",
      "b hold HELD",
      "a complete UNSPECIFIED",
      "b free READY",
      "b reserve RESERVED",
      "b pull UNSPECIFIED",
      "c put READY",
      "c lapse FAILED",
    ]);
  });

  it("tells of two queues, each in its order", async () => {
    const other = `${queue}-other`;
    const stream = await watcher.started({ queues: [queue, other] });
    const jobs = Array.from({ length: 100 }, (_, i) => ({ queue: i % 2 ? queue : other, id: `${i}` }));
    for (const one of jobs) await client.good("put", one);
    const events = await stream.got(100);
    for (const name of [queue, other]) {
      const ids = jobs.filter((one) => one.queue === name).map(({ id }) => id);
      expect(events.filter((event) => event.queue === name).map(({ id }) => id)).toEqual(ids);
    }
  });

  it("tells only of the jobs that it is asked for", async () => {
    const stream = await watcher.started({ queues: [queue], ids: ["7", "13"] });
    await putMany(0, 20);
    await client.good("delete", { queue, id: "13" });
    expect((await stream.got(3)).map(shown)).toEqual(["7 put READY", "13 put READY", "13 delete UNSPECIFIED"]);
  });

  it("says at its interval that it lives, also while it tells much", async () => {
    const stream = await watcher.started({ queues: [queue] });
    await until(
      async () => {
        await put(`${stream.answers.length}`, { onConflict: 2 });
        return stream.all("keepalive").length >= 3;
      },
      { what: "three keepalives of a busy stream" },
    );
    expect(stream.all("gap")).toEqual([]);
  });

  it("says every so often that it lives, also while it has nothing to tell of a busy queue", async () => {
    const stream = await watcher.started({ queues: [queue], ids: ["none"] });
    let busy = true;
    const busyness = (async () => {
      for (let i = 0; busy; i++) await put(`${i}`);
    })();
    await stream.saw("keepalive", 3);
    busy = false;
    await busyness;
    expect(stream.events()).toEqual([]);
  });

  it("tells its reader to go to another broker, and ends, when its own shuts down", async () => {
    const third = await startBroker({ redis: fixture.broker.redis });
    const its = new WatchClient(third.address);
    try {
      const stream = await its.started({ queues: [queue] });
      await within(third.server.drain(), { what: "the drain, which waits for no reader that reads" });
      expect(await stream.ended).toBeUndefined();
      expect(stream.all("draining")).toHaveLength(1);
    } finally {
      its.close();
      await third.stop();
    }
  });

  it("counts against --max-streams, like Subscribe", async () => {
    const third = await startBroker({ redis: fixture.broker.redis, maxStreams: 1 });
    const its = new WatchClient(third.address);
    try {
      const stream = await its.started({ queues: [queue] });
      expect(await its.open({ queues: [queue] }).ended).toMatchObject({ reason: "TOO_MANY_STREAMS" });
      stream.cancel();
      await until(
        async () => {
          const next = its.open({ queues: [queue] });
          const refused = next.ended.then((error) => ({ error }));
          return !("error" in (await Promise.race([refused, next.saw("started")])));
        },
        { what: "the place to be free" },
      );
    } finally {
      its.close();
      await third.stop();
    }
  });
});

describe("a Watch that resumes", () => {
  it("goes on at another broker after the cursor, and `started` repeats that", async () => {
    const stream = await watcher.started({ queues: [queue] });
    await putMany(0, 100);
    const cursor = (await stream.got(100))[41]?.cursor ?? "";
    stream.cancel();
    const again = await elsewhere.started({ queues: [`${queue}-new`, queue], resumeAfter: [cursor] });
    expect(again.all("started")[0]?.cursors[1]).toBe(cursor);
    expect((await again.got(58)).map(({ id }) => id)).toEqual(Array.from({ length: 58 }, (_, i) => `${42 + i}`));
    expect(again.all("gap")).toEqual([]);
  });

  it("misses nothing and tells nothing twice, cut again and again while jobs run", async () => {
    const howMany = 100;
    const seen: JobEvent[] = [];
    let cursor = (await watcher.started({ queues: [queue] })).all("started")[0]?.cursors[0] ?? "";
    const work = (async () => {
      for (let i = 0; i < howMany; i++) {
        await put(`${i}`);
        await run(COMPLETED);
      }
    })();
    const watchers = [watcher, elsewhere];
    while (seen.length < howMany * 3) {
      watchers.reverse();
      const stream = (watchers[0] as WatchClient).open({ queues: [queue], resumeAfter: [cursor] });
      const piece = await stream.got(1);
      stream.cancel();
      await stream.ended;
      // What came before the end was seen, too.
      seen.push(...piece, ...stream.events().slice(piece.length));
      cursor = seen.at(-1)?.cursor ?? "";
      expect(stream.all("gap")).toEqual([]);
    }
    await work;
    const expected = Array.from({ length: howMany }, (_, i) => [`put ${i}`, `reserve ${i}`, `complete ${i}`]).flat();
    expect(seen.map(({ id, transition }) => `${transition} ${id}`)).toEqual(expected);
  }, 30_000);

  it("goes on after a keepalive's cursors without a gap, however much happened to jobs that it does not tell of", async () => {
    const other = `${queue}-other`;
    const [, early = ""] = (await watcher.started({ queues: [queue, other] })).all("started")[0]?.cursors ?? [];
    const some = await watcher.started({ queues: [other], ids: ["none"] });
    const both = await watcher.started({ queues: [queue, other] });
    for (let i = 0; i < 10; i++) {
      await client.good("putMany", { jobs: Array.from({ length: 100 }, () => ({ queue: other })) });
    }
    const [quietEnd = "", end = ""] =
      (await elsewhere.started({ queues: [queue, other] })).all("started")[0]?.cursors ?? [];
    const reached = () => some.all("keepalive").at(-1)?.cursors[0] === end;
    await until(reached, { what: "a keepalive that is beyond the jobs of others" });
    await until(() => both.all("keepalive").at(-1)?.cursors.join() === [quietEnd, end].join(), {
      what: "a keepalive with a cursor for each queue, in their order",
    });
    const again = await elsewhere.started({ queues: [other], ids: ["none"], resumeAfter: [end] });
    const late = await elsewhere.started({ queues: [other], ids: ["none"], resumeAfter: [early] });
    await late.saw("gap");
    await client.good("put", { queue: other, id: "none" });
    expect((await again.got(1)).map(shown)).toEqual(["none put READY"]);
    expect(again.all("gap")).toEqual([]);
  });

  it("says that there is a gap where the history does not reach back, and goes on with what there is", async () => {
    const stream = await watcher.started({ queues: [queue] });
    const [cursor = ""] = stream.all("started")[0]?.cursors ?? [];
    stream.cancel();
    for (let i = 0; i < 10; i++) await putMany(i * 100, 100);
    const again = await watcher.started({ queues: [queue], resumeAfter: [cursor] });
    const gap = await again.saw("gap");
    expect(gap.queue).toBe(queue);
    const last = await until(() => again.events().at(-1)?.id === "999" && again.events(), { what: "the last event" });
    expect(last.length).toBeGreaterThanOrEqual(HISTORY);
    expect(last.length).toBeLessThan(1_000);
    expect(last.map(({ id }) => Number(id))).toEqual(last.map((_, i) => 1_000 - last.length + i));
    // The gap's cursor is where it goes on.
    const third = await elsewhere.started({ queues: [queue], resumeAfter: [gap.cursor] });
    expect((await third.got(last.length)).map(({ id }) => id)).toEqual(last.map(({ id }) => id));
    expect(third.all("gap")).toEqual([]);
  });

  it("says that there is a gap when nobody watched for so long that the history was not written", async () => {
    const stream = await watcher.started({ queues: [queue] });
    await put("seen");
    const [event] = await stream.got(1);
    stream.cancel();
    await stream.ended;
    // As after the ten minutes.
    await until(
      async () => {
        await fixture.redis.hset(`baton:{${queue}}:meta`, "watched_until", "1");
        await put("missed", { onConflict: 3 });
        const last = await fixture.redis.xrevrange(`baton:{${queue}}:history`, "+", "-", "COUNT", 1);
        return !JSON.stringify(last).includes("missed");
      },
      { what: "an event that is not written" },
    );
    const again = await watcher.started({ queues: [queue], resumeAfter: [event?.cursor ?? ""] });
    await again.saw("gap");
    await put("later");
    expect((await again.got(1)).map(shown)).toEqual(["later put READY"]);
  });
});

describe("a Watch with bad input", () => {
  const refused = async (request: Parameters<WatchClient["open"]>[0], ...fields: readonly string[]) => {
    const error = await watcher.open(request).ended;
    if (!error) throw new Error("the stream should have been refused");
    expectBadRequest(error, ...fields);
  };

  it("names the queues and ids that are none, too many, or named twice", async () => {
    await refused({}, "queues");
    await refused({ queues: ["ok", "not ok", "ok"] }, "queues[1]", "queues[2]");
    await refused({ queues: Array.from({ length: 65 }, (_, i) => `q${i}`) }, "queues");
    await refused({ queues: ["a", "b"], ids: ["1"] }, "ids");
    await refused({ queues: ["a"], ids: ["1", ""] }, "ids[1]");
    await refused({ queues: ["a"], ids: Array.from({ length: 1_001 }, (_, i) => `${i}`) }, "ids");
  });

  it("names the cursors that are forged, cut short, of another queue or namespace, or two of one queue", async () => {
    const other = `${queue}-other`;
    const stream = await watcher.started({ queues: [queue, other] });
    const [cursor = "", foreign = ""] = stream.all("started")[0]?.cursors ?? [];
    for (const forged of [
      "",
      "x",
      "MTIz",
      `${cursor}A`,
      cursor.slice(1),
      cursor.slice(0, -1),
      foreign,
      "é".repeat(24),
    ]) {
      await refused({ queues: [queue], resumeAfter: [forged] }, "resume_after[0]");
    }
    for (let i = 0; i < cursor.length; i++) {
      const changed = cursor.slice(0, i) + (cursor[i] === "A" ? "B" : "A") + cursor.slice(i + 1);
      await refused({ queues: [queue], resumeAfter: [changed] }, "resume_after[0]");
    }
    await refused({ queues: [queue, other], resumeAfter: [cursor, cursor] }, "resume_after[1]");
    const third = await startBroker({ redis: fixture.broker.redis, namespace: "another" });
    const its = new WatchClient(third.address);
    const error = await its.open({ queues: [queue], resumeAfter: [cursor] }).ended;
    its.close();
    await third.stop();
    expect(error).toMatchObject({ violations: [{ field: "resume_after[0]" }] });
  });
});

describe("a queue that nobody watches", () => {
  it("writes no history, and one that somebody watches keeps it bounded", async () => {
    await put("1");
    await run(COMPLETED);
    expect(await fixture.redis.exists(`baton:{${queue}}:history`)).toBe(0);
    const stream = await watcher.started({ queues: [queue] });
    expect(await fixture.redis.exists(`baton:{${queue}}:history`)).toBe(0);
    for (let i = 0; i < 10; i++) await putMany(i * 100, 100);
    await stream.got(1_000);
    expect(await fixture.redis.xlen(`baton:{${queue}}:history`)).toBeLessThan(HISTORY * 2);
    const writtenUntil = Number(await fixture.redis.hget(`baton:{${queue}}:meta`, "watched_until"));
    const writtenForMs = writtenUntil - (await fixture.nowMs());
    expect(writtenForMs).toBeGreaterThan(9 * 60_000 - 1_000);
    expect(writtenForMs).toBeLessThanOrEqual(10 * 60_000);
  });
});
