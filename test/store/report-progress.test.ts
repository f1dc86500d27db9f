import { afterEach, describe, expect, it } from "vitest";
import type { Lease, LeasedJob, NewJob, Progress } from "../../src/model/job.ts";
import { FAILED_FOR_GOOD, job, START_MS, timedStore } from "./timed-store.ts";

const GARBAGE = Buffer.from([0xff, 0x00, 0x41]);

describe("a report of progress", () => {
  const fixture = timedStore();
  const { reserve, release } = fixture;

  afterEach(async () => {
    await fixture.redis.config("SET", "maxmemory", "0");
  });

  const report = (lease: Lease, progress: Progress) =>
    fixture.store.reportProgress(lease.queue, [{ lease, progress }]).then(([stored]) => stored);
  const shown = async (queue: string, id = "one") => (await fixture.store.get(queue, id))?.progress;
  const stateBytes = (queue: string, id = "one") => fixture.redis.hgetBuffer(fixture.key(queue, "state"), id);

  async function reserved(queue: string, fields: Partial<NewJob> = {}): Promise<LeasedJob> {
    await fixture.store.put(queue, [job("one", fields)]);
    const [lease] = await reserve(queue, 1, { leaseMs: 10_000 });
    if (!lease) throw new Error("there is a job");
    return lease;
  }

  it("is shown with its time, and the last one stays", async () => {
    const lease = await reserved("last");
    expect(await shown("last")).toBeUndefined();
    fixture.nowMs += 5;
    const reports = [
      { lease, progress: { percent: 90, note: "too early" } },
      { lease, progress: { percent: 0, note: "" } },
    ];
    expect(await fixture.store.reportProgress("last", reports)).toEqual([true, true]);
    expect(await shown("last")).toEqual({ percent: 0, note: "", reportedAtMs: fixture.nowMs });
    const { jobs } = await fixture.store.list("last", "RESERVED", 10, undefined);
    expect(jobs[0]?.progress).toEqual({ percent: 0, note: "", reportedAtMs: fixture.nowMs });
  });

  it("that is run twice gives the same answer and leaves the same record", async () => {
    const lease = await reserved("twice");
    const progress = { percent: 40, note: "page 4" };
    expect(await report(lease, progress)).toBe(true);
    const before = await stateBytes("twice");
    expect(await report(lease, progress)).toBe(true);
    expect(await stateBytes("twice")).toEqual(before);
    await release([lease]);
    expect(await report(lease, progress)).toBe(false);
  });

  it("of one job concerns no other of the same call", async () => {
    await fixture.store.put("some", [job("a"), job("b"), job("c")]);
    const [a, b, c] = (await reserve("some", 3)) as [LeasedJob, LeasedJob, LeasedJob];
    await release([b]);
    const progress = { percent: 1, note: "" };
    const never = { queue: "some", id: "never there", fence: 7 };
    const stale = { ...c, fence: c.fence - 1 };
    const made = [a, b, never, stale].map((lease) => ({ lease, progress }));
    expect(await fixture.store.reportProgress("some", made)).toEqual([true, false, false, false]);
    expect(await shown("some", "c")).toBeUndefined();
    expect(await fixture.store.get("some", "never there")).toBeUndefined();
  });

  it("neither extends the lease nor outlives it, and in a recoverable queue goes on after it", async () => {
    const lease = await reserved("ends");
    const kept = await reserved("recoverable");
    await fixture.store.queues.update("recoverable", { mode: "recoverable" });
    const progress = { percent: 50, note: "half" };
    expect([await report(lease, progress), await report(kept, progress)]).toEqual([true, true]);
    fixture.nowMs += 10_000;
    expect(await report(lease, progress)).toBe(false);
    expect(await shown("ends")).toBeUndefined();
    expect(await report(kept, { percent: 60, note: "" })).toBe(true);
    expect(await shown("recoverable")).toMatchObject({ percent: 60 });
    expect(await fixture.store.queues.requeue("recoverable", 10)).toBe(1);
    expect(await report(kept, progress)).toBe(false);
    expect(await shown("recoverable")).toBeUndefined();
  });

  it("is refused when memory is full, changes nothing then, and its job can still be released", async () => {
    const lease = await reserved("full");
    await report(lease, { percent: 10, note: "before" });
    const before = await stateBytes("full");
    await fixture.redis.config("SET", "maxmemory", "1");
    await expect(report(lease, { percent: 20, note: "x" })).rejects.toMatchObject({ reason: "STORE_FULL" });
    expect(await stateBytes("full")).toEqual(before);
    expect((await fixture.store.extend("full", [lease], 20_000)).ends).toEqual([fixture.nowMs + 20_000]);
    expect(await shown("full")).toMatchObject({ percent: 10, note: "before" });
    expect(await release([lease])).toEqual(["COMPLETED"]);
  });

  it.each([
    ["no record at all", GARBAGE],
    ["a record whose progress ends too soon", undefined],
  ])("leaves alone what is %s", async (what, bytes) => {
    const queue = `garbage-${what.length}`;
    const lease = await reserved(queue);
    await report(lease, { percent: 10, note: "a note" });
    const broken = bytes ?? ((await stateBytes(queue)) as Buffer).subarray(0, -1);
    await fixture.redis.hset(fixture.key(queue, "state"), "one", broken);
    expect(await report(lease, { percent: 20, note: "" })).toBe(false);
    expect(await stateBytes(queue)).toEqual(broken);
    // Who comes upon it in its set puts it aside.
    fixture.nowMs += 10_000;
    expect((await fixture.store.sweep(queue)).setAside).toEqual(["one"]);
  });

  it("is an event of the history, with whatever stands in its note, while somebody watches", async () => {
    const unwatched = await reserved("unwatched");
    await report(unwatched, { percent: 1, note: "" });
    expect(await fixture.redis.exists(fixture.key("unwatched", "history"))).toBe(0);
    const lease = await reserved("watched");
    const { last } = await fixture.store.watch("watched", undefined, 1, 10_000);
    const notes = ['say "näh\\er"', "a\u0000b\tc\nd\u007f\u0085\u2028", "😀 完成", "", "x".repeat(1_024)];
    for (const [i, note] of notes.entries()) await report(lease, { percent: i * 25, note });
    await release([lease]);
    const { entries } = await fixture.store.watch("watched", last, 10, 10_000);
    const common = { id: "one", atMs: fixture.nowMs, attempt: 1, failures: 0, workerId: "worker", dueMs: 0 };
    const reported = { ...common, transition: "report", state: "RESERVED" };
    expect(entries).toEqual([
      ...notes.map((note, i) => ({ ...reported, number: last + 1 + i, progress: { percent: i * 25, note } })),
      { ...common, number: last + 6, transition: "complete", state: "COMPLETED", progress: undefined },
    ]);
  });

  it("stands in one record with a slot, a policy and the number of who has taken the lease over", async () => {
    const policy: Partial<NewJob> = {
      ...{ priority: 9, runTimeoutMs: 60_000, retentionMs: 5_000, expiresInMs: 9_000 },
      concurrency: { key: "customer", limit: 1 },
      unique: { key: "only", until: "start" },
      retry: { maxAttempts: 2, curve: "exq" },
    };
    const lease = await reserved("all", policy);
    const holder = 2 ** 48 - 2;
    const extend = (by: number, takeOver: boolean) =>
      fixture.store.extend("all", [{ ...lease, holder: by }], 10_000, { takeOver });
    expect(await extend(holder, true)).toMatchObject({ ends: [fixture.nowMs + 10_000], bytes: [lease.spec.length] });
    const progress = { percent: 100, note: "ü".repeat(512) };
    expect(await report(lease, progress)).toBe(true);
    const bytes = await stateBytes("all");
    expect((await extend(holder, false)).ends).toEqual([fixture.nowMs + 10_000]);
    expect(await stateBytes("all"), "read and written again, it is the same").toEqual(bytes);
    expect((await extend(0, false)).ends).toEqual(["RESUMED"]);
    const { concurrency, unique } = policy;
    const view = { progress: { ...progress, reportedAtMs: fixture.nowMs }, concurrency, unique };
    expect(await fixture.store.get("all", "one")).toMatchObject(view);
    await fixture.store.put("all", [job("next", { concurrency: { key: "customer", limit: 1 } })]);
    expect(await reserve("all", 1), "its slot is taken").toEqual([]);
    await fixture.store.delete("all", "next");
    expect(await release([lease], { kind: "returned", delayMs: 0 })).toEqual(["READY"]);
    const [again] = await reserve("all", 1);
    expect(again).toMatchObject({ id: "one", attempt: 2 });
    expect(await shown("all")).toBeUndefined();
    expect((await extend(holder, false)).ends, "the new lease is nobody's who held the old one").toEqual(["EXPIRED"]);
  });
});

/** Written by the scripts as they were before there was progress, by the steps of the test below. */
const OLD_RECORDS = {
  running:
    "44000000000100000006871f9e000301a1fdfb30600006871f9e000a01a1fdfa4600000000000b01a1fdfa460000000000000000000777c3b6726b6572",
  failed:
    "47000000000100010006871f9e000001a1fdfa46000006871f9e000801a1fdfa4600000000000801a1fdfa4600070101a1fdfa46000777c3b6726b6572",
  "with-slot":
    "64000000000100000006871f9e000401a1fdfb30600006871f9e000b01a1fdfa4600000000000c01a1fdfa460000000000000000000777c3b6726b657297c2c2c2c2c292a8637573746f6d657205c2",
  "taken-over":
    "e4030000000100000006871f9e000201a1fdfb30600006871f9e000701a1fdfa4600000000000a01a1fdfa460000000000000000000777c3b6726b65720000075bcd1597c2ce00015f90c2c2c292a8637573746f6d657205c2",
  done: "46000000000100000006871f9e000101a1fdfb30600006871f9e000901a1fdfa4600000000000901a1fdfa4600060001a1fdfa46000777c3b6726b6572",
  later: "01000000000000000006871f9e000601a1fdfb09500000000000000001a1fdfa4600000000000e",
  ready: "02000000000000000006871f9e00050000000000000000000000000001a1fdfa4600000000000d",
} as const;

describe("records from before there was progress", () => {
  const fixture = timedStore();
  const { reserve, release } = fixture;

  it("are what the scripts write of jobs of which nothing was reported, and read as ever", async () => {
    const { store } = fixture;
    const concurrency = { key: "customer", limit: 5 };
    const jobs = [
      ...[job("failed"), job("done"), job("taken-over", { concurrency, runTimeoutMs: 90_000, priority: 3 })],
      ...[job("running"), job("with-slot", { concurrency }), job("ready"), job("later", { delayMs: 50_000 })],
    ];
    await store.put("old", jobs, 7);
    const leases = await reserve("old", 5, { leaseMs: 60_000, workerId: "wörker" });
    const of = (id: string) => leases.filter((lease) => lease.id === id);
    await release(of("failed"), FAILED_FOR_GOOD);
    await release(of("done"));
    const named = of("taken-over").map((lease) => ({ ...lease, holder: 123456789 }));
    await store.extend("old", named, 60_000, { takeOver: true });
    const stored = await fixture.redis.hgetallBuffer(fixture.key("old", "state"));
    const hex = Object.entries(stored).map(([id, bytes]) => [id, bytes.toString("hex")]);
    // A job that is READY for the first time has no record any more.
    const { ready, ...others } = OLD_RECORDS;
    expect(Object.fromEntries(hex)).toEqual(others);
    await fixture.redis.hset(fixture.key("old", "state"), "ready", Buffer.from(ready, "hex"));

    const endsAtMs = START_MS + 60_000;
    const started = { attempt: 1, workerId: "wörker", reservedAtMs: START_MS, progress: undefined };
    const views = await Promise.all(Object.keys(OLD_RECORDS).map((id) => store.get("old", id)));
    expect(views).toMatchObject([
      { ...started, state: "RESERVED", atMs: endsAtMs, concurrency: undefined },
      { ...started, state: "FAILED", atMs: START_MS, failures: 1 },
      { ...started, state: "RESERVED", atMs: endsAtMs, concurrency },
      { ...started, state: "RESERVED", atMs: endsAtMs, concurrency },
      { ...started, state: "COMPLETED", atMs: endsAtMs },
      { state: "SCHEDULED", attempt: 0, atMs: START_MS + 50_000, progress: undefined },
      { state: "READY", attempt: 0, workerId: "", progress: undefined },
    ]);
    const progress = { percent: 40, note: "page 4" };
    const running = leases.filter(({ id }) => !["failed", "done"].includes(id));
    const made = running.map((one) => ({ lease: one, progress }));
    expect(await store.reportProgress("old", made)).toEqual([true, true, true]);
    expect(await release(running)).toEqual(["COMPLETED", "COMPLETED", "COMPLETED"]);
  });
});
