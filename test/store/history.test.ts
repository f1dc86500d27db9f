import { describe, expect, it } from "vitest";
import { ids, job, manyJobs, timedStore } from "./timed-store.ts";

const WRITE_FOR_MS = 10_000;

describe("the history of a queue", () => {
  const fixture = timedStore({ historyMaxEvents: 100 });
  const { reserve, release } = fixture;
  const watch = (queue: string, after: number | undefined, most = 1_000) =>
    fixture.store.watch(queue, after, most, WRITE_FOR_MS);
  const length = (queue: string) => fixture.redis.xlen(fixture.key(queue, "history"));

  it("is written only while somebody watches, and costs nothing before and after", async () => {
    await fixture.store.put("unwatched", [job("a")]);
    expect(await length("unwatched")).toBe(0);
    await watch("unwatched", undefined);
    await fixture.store.put("unwatched", [job("b")]);
    expect(await length("unwatched")).toBe(1);
    fixture.nowMs += WRITE_FOR_MS;
    await fixture.store.put("unwatched", [job("c")]);
    expect(await length("unwatched")).toBe(1);
    await fixture.store.sweep("unwatched");
    expect(await fixture.redis.exists(fixture.key("unwatched", "history"))).toBe(0);
  });

  it("tells each transition, with what there is to know of it", async () => {
    const { last } = await watch("told", undefined);
    const putAtMs = fixture.nowMs;
    await fixture.store.put("told", [job("one", { delayMs: 50 })]);
    fixture.nowMs += 50;
    const lease = await reserve("told", 1, { workerId: 'näh"er' });
    await fixture.store.extend("told", lease, 60_000);
    await release(lease, {
      kind: "failed",
      error: Buffer.alloc(0),
      permanent: false,
      retryAfterMs: 7,
      eventDetail: "",
    });
    await fixture.store.delete("told", "one");
    const { entries, from } = await watch("told", last);
    expect(from).toBe(last);
    const common = { id: "one", atMs: putAtMs + 50, attempt: 1, failures: 0, workerId: 'näh"er', dueMs: 0 };
    const fresh = { ...common, attempt: 0, workerId: "" };
    expect(entries).toEqual([
      { ...fresh, number: last + 1, transition: "put", state: "SCHEDULED", atMs: putAtMs, dueMs: putAtMs + 50 },
      { ...fresh, number: last + 2, transition: "due", state: "READY" },
      { ...common, number: last + 3, transition: "reserve", state: "RESERVED" },
      { ...common, number: last + 4, transition: "fail", state: "RETRYING", failures: 1, dueMs: putAtMs + 57 },
      { ...common, number: last + 5, transition: "delete", state: undefined, failures: 1 },
    ]);
  });

  it("is read on from any event, in pieces, without a hole", async () => {
    const { last } = await watch("pieces", undefined);
    await fixture.store.put("pieces", manyJobs(10));
    const seen: string[] = [];
    let after = last;
    for (let reads = 0; reads < 4; reads++) {
      const { entries, from } = await watch("pieces", after, 3);
      expect(from).toBe(after);
      seen.push(...ids(entries));
      after = entries.at(-1)?.number ?? after;
    }
    expect(seen).toEqual(ids(manyJobs(10)));
    expect(await watch("pieces", after)).toEqual({ last: last + 10, from: after, isGap: false, entries: [] });
  });

  it("says so when it does not reach back to the event that is asked for", async () => {
    const { last } = await watch("overtaken", undefined);
    for (let i = 0; i < 40; i++) await fixture.store.put("overtaken", manyJobs(10, { conflict: "replace" }));
    const kept = await length("overtaken");
    expect(kept).toBeGreaterThanOrEqual(100);
    expect(kept).toBeLessThan(400);
    const { from, entries } = await watch("overtaken", last);
    expect(from).toBe(last + 400 - kept);
    expect(entries.map(({ number }) => number)).toEqual(Array.from({ length: kept }, (_, i) => from + 1 + i));
  });

  it("holds as many events as the queue says", async () => {
    await fixture.store.queues.update("longer", { historyMaxEvents: 350 });
    await watch("longer", undefined);
    for (let i = 0; i < 40; i++) await fixture.store.put("longer", manyJobs(10, { conflict: "replace" }));
    expect(await length("longer")).toBeGreaterThanOrEqual(350);
  });

  it("says so when nobody watched for a while, even if nothing is left of what was before", async () => {
    const { last } = await watch("pause", undefined);
    await fixture.store.put("pause", [job("seen")]);
    fixture.nowMs += WRITE_FOR_MS;
    await fixture.store.put("pause", [job("missed")]);
    // What was written is still there; then comes the gap.
    const before = await watch("pause", last);
    expect(ids(before.entries)).toEqual(["seen"]);
    expect(before.from).toBe(last);
    await fixture.store.put("pause", [job("after")]);
    const after = await watch("pause", last + 1);
    expect(after.from).toBeGreaterThan(last + 1);
    expect(ids(after.entries)).toEqual(["after"]);

    fixture.nowMs += WRITE_FOR_MS;
    await fixture.store.sweep("pause");
    const emptied = await watch("pause", after.last);
    expect(emptied.from).toBeGreaterThan(after.last);
    expect(emptied.entries).toEqual([]);
  });

  it("does not stop at a gap between two stretches: it is told at the next read", async () => {
    const { last } = await watch("stretches", undefined);
    await fixture.store.put("stretches", [job("a")]);
    fixture.nowMs += WRITE_FOR_MS;
    await watch("stretches", undefined);
    await fixture.store.put("stretches", [job("b")]);
    const first = await watch("stretches", last);
    expect({ from: first.from, seen: ids(first.entries) }).toEqual({ from: last, seen: ["a"] });
    const second = await watch("stretches", last + 1);
    expect({ from: second.from, seen: ids(second.entries) }).toEqual({ from: last + 2, seen: ["b"] });
  });

  it("says so when another event has the number of the one that is asked for, since Redis lost the end", async () => {
    const { last } = await watch("lost", undefined);
    await fixture.store.put("lost", [job("kept")]);
    const [history, meta] = [fixture.key("lost", "history"), fixture.key("lost", "meta")];
    await fixture.store.put("lost", [job("a"), job("b")]);
    const seen = (await watch("lost", last)).entries.at(-1);
    // As after a crash without fsync.
    await fixture.redis.xdel(history, `${last + 2}-0`, `${last + 3}-0`);
    await fixture.redis.xsetid(history, `${last + 1}-0`);
    await fixture.redis.hset(meta, "events", last + 1);
    fixture.nowMs += 1_000;
    await fixture.store.put("lost", manyJobs(2));
    const readAfter = (number: number, atMs: number) => fixture.store.watch("lost", number, 3, WRITE_FOR_MS, atMs);
    const gap = { isGap: true, entries: [] };
    expect(await readAfter(last + 3, seen?.atMs ?? 0)).toEqual({ ...gap, last: last + 3, from: last + 3 });
    await fixture.store.put("lost", [job("job-2"), job("job-3")]);
    expect(await readAfter(last + 3, seen?.atMs ?? 0)).toEqual({ ...gap, last: last + 5, from: last + 5 });
    const going = await readAfter(last + 1, fixture.nowMs - 1_000);
    expect({ isGap: going.isGap, seen: ids(going.entries) }).toEqual({
      isGap: false,
      seen: ["job-0", "job-1", "job-2"],
    });
    const rest = await readAfter(last + 4, fixture.nowMs);
    expect({ isGap: rest.isGap, seen: ids(rest.entries) }).toEqual({ isGap: false, seen: ["job-3"] });
  });

  it("has a bell, rung once a call", async () => {
    const subscriber = fixture.redis.duplicate();
    try {
      const rings: string[] = [];
      subscriber.on("message", (channel: string) => rings.push(channel));
      await subscriber.subscribe("timed:{bell}:history");
      await watch("bell", undefined);
      await fixture.store.put("bell", manyJobs(50));
      await reserve("bell", 10);
      await subscriber.ping();
      expect(rings).toEqual(["timed:{bell}:history", "timed:{bell}:history"]);
    } finally {
      subscriber.disconnect();
    }
  });
});
