import { describe, expect, it } from "vitest";
import type { Unique } from "../../src/model/job.ts";
import type { DueSchedule, NewSchedule, Run, SchedulePage } from "../../src/store/schedule-store.ts";
import { ids, job, START_MS, timedStore } from "./timed-store.ts";

const MINUTE_MS = 60_000;

describe("the scripts of schedules", () => {
  const fixture = timedStore();
  const { reserve, release } = fixture;
  const schedules = () => fixture.store.schedules;
  const schedule = (id: string, fields: Partial<NewSchedule> = {}): NewSchedule => ({
    id,
    revision: 0,
    definition: Buffer.from([0x00, 0xff]),
    skipOverlap: false,
    paused: false,
    nextTickMs: START_MS + MINUTE_MS,
    startMs: START_MS,
    ...fields,
  });

  /** Makes a schedule, and lets its first tick come. */
  async function dueOne(queue: string, fields: Partial<NewSchedule> = {}): Promise<DueSchedule> {
    fixture.nowMs = START_MS;
    await schedules().put(queue, schedule("every", fields), 10);
    fixture.nowMs = START_MS + MINUTE_MS;
    return await nextDue(queue);
  }

  async function nextDue(queue: string): Promise<DueSchedule> {
    const { due } = await fixture.store.sweep(queue);
    expect(due).toHaveLength(1);
    return due[0] as DueSchedule;
  }

  const run = (id: string, unique?: Unique): Run => ({ tickMs: fixture.nowMs, job: job(id, { unique }) });
  const next = (nonce: number, leftOut = 0) => ({ nextTickMs: fixture.nowMs + MINUTE_MS, leftOut, nonce });
  const stored = async (queue: string) => (await schedules().get(queue, "every"))?.schedule;

  it("wake whoever waits for the queue's next time, and let the tick be seen when it has come", async () => {
    fixture.nowMs = START_MS;
    await schedules().put("wake", schedule("every"), 10);
    expect(await fixture.store.sweep("wake")).toMatchObject({ due: [], nextDueMs: MINUTE_MS });
    fixture.nowMs += MINUTE_MS;
    expect(await nextDue("wake")).toMatchObject({
      queue: "wake",
      id: "every",
      tickMs: fixture.nowMs,
      startMs: START_MS,
    });
    await schedules().delete("wake", "every");
    expect(await fixture.store.sweep("wake")).toMatchObject({ due: [], nextDueMs: undefined });
  });

  it("let one broker claim a tick, and put its job in the same step", async () => {
    const due = await dueOne("claim");
    const claims = await Promise.all(
      [1, 2, 3].map((nonce) => schedules().tick(due, next(nonce * 10), [run("tick-1")])),
    );
    expect(claims.filter((put) => put === 1)).toHaveLength(1);
    expect(claims.filter((put) => put === undefined)).toHaveLength(2);
    expect(ids(await reserve("claim", 10))).toEqual(["tick-1"]);
    expect(await stored("claim")).toMatchObject({
      runs: 1,
      skipped: 0,
      lastJobId: "tick-1",
      lastRunAtMs: fixture.nowMs,
    });
    expect((await stored("claim"))?.nextTickMs).toBe(fixture.nowMs + MINUTE_MS);
  });

  it("refuse a tick of a schedule that was changed, paused or deleted since it was seen", async () => {
    const changed = await dueOne("changed");
    await schedules().put("changed", schedule("every", { revision: changed.revision }), 10);
    expect(await schedules().tick(changed, next(1), [run("a")])).toBeUndefined();
    const paused = await dueOne("paused");
    expect(await schedules().pause("paused", "every", paused.revision, true, undefined)).toBe("changed");
    expect(await schedules().tick(paused, next(1), [run("a")])).toBeUndefined();
    const deleted = await dueOne("deleted");
    await schedules().delete("deleted", "every");
    expect(await schedules().tick(deleted, next(1), [run("a")])).toBeUndefined();
    for (const queue of ["changed", "paused", "deleted"]) expect(await reserve(queue, 1)).toEqual([]);
  });

  it("leave out a run while the one before has not finished, only where that is asked for", async () => {
    for (const skipOverlap of [false, true]) {
      const queue = `overlap-${skipOverlap}`;
      await schedules().tick(await dueOne(queue, { skipOverlap }), next(1), [run("first")]);
      const running = await reserve(queue, 1, { leaseMs: 10 * MINUTE_MS });
      fixture.nowMs += MINUTE_MS;
      const due = await nextDue(queue);
      expect(await schedules().tick(due, next(2), [run("second")])).toBe(skipOverlap ? 0 : 1);
      expect(await stored(queue)).toMatchObject({ runs: skipOverlap ? 1 : 2, skipped: skipOverlap ? 1 : 0 });
      await release(running);
      fixture.nowMs += MINUTE_MS;
      expect(await schedules().tick(await nextDue(queue), next(3), [run("third")])).toBe(1);
    }
  });

  it("put all runs that are to be made up for, and count those that are left out", async () => {
    const due = await dueOne("catch-up");
    const runs = ["a", "b", "c"].map((id) => run(id));
    expect(await schedules().tick(due, next(1, 4), runs)).toBe(3);
    expect(ids(await reserve("catch-up", 10))).toEqual(["a", "b", "c"]);
    expect(await stored("catch-up")).toMatchObject({ runs: 3, skipped: 4, lastJobId: "c" });
  });

  it("leave out a run whose unique key is taken", async () => {
    const unique = { key: "one at a time", until: "success" } as const;
    const due = await dueOne("unique");
    expect(await schedules().tick(due, next(1), [run("a", unique), run("b", unique)])).toBe(1);
    expect(await stored("unique")).toMatchObject({ runs: 1, skipped: 1, lastJobId: "a" });
    const revision = due.revision;
    const refused = await schedules().trigger("unique", "every", revision, 9, job("c", { unique }));
    expect(refused).toEqual({ kind: "unique conflict", state: "READY", keeperId: "a" });
    expect(await stored("unique")).toMatchObject({ runs: 1, skipped: 1 });
  });

  it("do the same once when the same call is sent twice", async () => {
    fixture.nowMs = START_MS;
    const both = async <T>(call: () => Promise<T>) => [await call(), await call()];
    const made = await both(() => schedules().put("twice", schedule("every"), 1, 111));
    expect(made[1]).toEqual(made[0]);
    expect(made[0]).toMatchObject({ kind: "created" });
    const changed = await both(() => schedules().put("twice", schedule("every", { revision: 111 }), 1, 222));
    expect(changed[1]).toEqual(changed[0]);
    expect(await both(() => schedules().trigger("twice", "every", 222, 5, job("triggered")))).toEqual([
      { kind: "triggered" },
      { kind: "triggered" },
    ]);
    expect(await stored("twice")).toMatchObject({ runs: 1, lastJobId: "triggered" });
    expect(await both(() => schedules().pause("twice", "every", 222, true, undefined, 333))).toEqual([
      "changed",
      "changed",
    ]);
    expect(await both(() => schedules().delete("twice", "every"))).toEqual([true, false]);
    expect(ids(await reserve("twice", 10))).toEqual(["triggered"]);
  });

  it("refuse one more than a queue may have, and list them by the bytes of their ids, page by page", async () => {
    const names = ["B", "a", "b", "ä", "a-long-one"];
    for (const name of names) await schedules().put("list", schedule(name), 5);
    expect(await schedules().put("list", schedule("one more"), 5)).toEqual({ kind: "too many" });
    const pages: string[][] = [];
    for (let after: string | undefined = ""; after !== undefined; ) {
      const page: SchedulePage = await schedules().list("list", 2, after);
      pages.push(ids(page.schedules));
      after = page.last;
    }
    expect(pages).toEqual([["B", "a"], ["a-long-one", "b"], ["ä"]]);
  });

  it("let a tick wait that could not be put, without forgetting when it was", async () => {
    const due = await dueOne("postponed");
    expect(await schedules().postpone(due, 5_000)).toBe(true);
    expect(await fixture.store.sweep("postponed")).toMatchObject({ due: [], nextDueMs: 5_000 });
    fixture.nowMs += 5_000;
    const again = await nextDue("postponed");
    expect(again).toEqual(due);
    expect(await schedules().tick(again, next(1), [run("late")])).toBe(1);
  });
});
