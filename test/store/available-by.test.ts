import { describe, expect, it } from "vitest";
import { ids, job, START_MS, timedStore } from "./timed-store.ts";

const LATER_MS = START_MS + 3_600_000;

describe("a job that was handed out ahead of its time", () => {
  const timed = timedStore();

  it("goes back to its time when nobody has got it", async () => {
    const { store } = timed;
    await store.put("back", [job("a", { runAtMs: LATER_MS }), job("b", { runAtMs: LATER_MS + 1 })]);
    const [lease] = await timed.reserve("back", 1, { availableByMs: LATER_MS });
    expect(lease?.id).toBe("a");
    expect(await store.get("back", "a")).toMatchObject({ state: "RESERVED", finishedAtMs: 0 });
    expect(await timed.release(lease ? [lease] : [], { kind: "undelivered" })).toEqual(["SCHEDULED"]);
    expect(await store.get("back", "a")).toMatchObject({ state: "SCHEDULED", atMs: LATER_MS, attempt: 0, failures: 0 });
    expect(await timed.reserve("back", 10)).toEqual([]);
    timed.nowMs = LATER_MS + 1;
    expect(ids(await timed.reserve("back", 10))).toEqual(["a", "b"]);
    timed.nowMs = START_MS;
  });

  it("is handed out again at once when its time has come meanwhile, or its worker gives it back", async () => {
    const { store } = timed;
    await store.put("again", [job("a", { runAtMs: LATER_MS }), job("b", { runAtMs: LATER_MS })]);
    const [first, second] = await timed.reserve("again", 2, { availableByMs: LATER_MS, leaseMs: 7_200_000 });
    expect(await timed.release(second ? [second] : [], { kind: "returned", delayMs: 0 })).toEqual(["READY"]);
    expect(await store.get("again", "b")).toMatchObject({ state: "READY", finishedAtMs: 0 });
    timed.nowMs = LATER_MS;
    expect(await timed.release(first ? [first] : [], { kind: "undelivered" })).toEqual(["READY"]);
    expect(ids(await timed.reserve("again", 10))).toEqual(["a", "b"]);
    timed.nowMs = START_MS;
  });

  it("is handed to each of many who ask at once, whom what the others got does not keep from it", async () => {
    const { store } = timed;
    const jobs = Array.from({ length: 400 }, (_, i) => job(`job-${i}`, { runAtMs: LATER_MS + i }));
    await store.put("many", [...jobs, job("late", { runAtMs: LATER_MS + 1_000 })]);
    const claims = jobs.map((_, i) => ({
      count: 1,
      leaseMs: 0,
      workerId: `worker-${i}`,
      // Every tenth asks only for what is due now.
      ...(i % 10 !== 0 && { availableByMs: LATER_MS + 500 }),
    }));
    const got = (await store.reserve("many", "caller", 1_000_000, claims)).jobs;
    expect(got.map((its) => its.length)).toEqual(claims.map(({ availableByMs }) => (availableByMs ? 1 : 0)));
    expect(ids(got.flat())).toEqual(ids(jobs).slice(0, 360));
    const early = { count: 10, leaseMs: 0, workerId: "early", availableByMs: LATER_MS + 362 };
    const late = { ...early, workerId: "late", availableByMs: LATER_MS + 1_000, count: 100 };
    const [first = [], second = []] = (await store.reserve("many", "caller", 1_000_001, [early, late])).jobs;
    expect(ids(first)).toEqual(["job-360", "job-361", "job-362"]);
    expect(ids(second)).toEqual([...ids(jobs).slice(363), "late"]);
  });
});
