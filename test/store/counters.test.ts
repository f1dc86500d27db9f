import { describe, expect, it } from "vitest";
import { FAILED_FOR_GOOD, job, manyJobs, START_MS, timedStore } from "./timed-store.ts";

const DAY_MS = 86_400_000;

describe("the counters of a queue", () => {
  const fixture = timedStore();
  const { reserve, release } = fixture;
  const counters = async (queue: string) => {
    const { totals, days } = await fixture.store.queues.get(queue);
    return { totals, days };
  };

  it("count each job once for each end, however often its release is repeated", async () => {
    fixture.nowMs = START_MS;
    await fixture.store.put("ends", manyJobs(4), 7);
    await fixture.store.put("ends", manyJobs(4), 7);
    const [done, failed, pulled, returned] = await reserve("ends", 4);
    if (!done || !failed || !pulled || !returned) throw new Error("there are four jobs");
    for (let i = 0; i < 2; i++) {
      await release([done]);
      await release([failed], FAILED_FOR_GOOD);
      await release([pulled], { kind: "pulled" });
      await release([returned], { kind: "returned", delayMs: 0 });
    }
    const expected = { put: 4, completed: 1, failed: 1, pulled: 1 };
    expect(await counters("ends")).toEqual({ totals: expected, days: [{ date: "2026-11-21", counters: expected }] });
  });

  it("keep 180 days, and their totals for ever", async () => {
    fixture.nowMs = START_MS;
    for (let day = 0; day < 200; day++) {
      fixture.nowMs = START_MS + day * DAY_MS;
      await fixture.store.put("days", [job(`job-${day}`)]);
      if (day % 2 === 0) await release(await reserve("days", 1));
      await fixture.store.sweep("days");
    }
    const { totals, days } = await counters("days");
    expect(totals).toEqual({ put: 200, completed: 100, failed: 0, pulled: 0 });
    expect(days).toHaveLength(180);
    expect(days[0]?.date).toBe("2027-06-08");
    expect(days.at(-1)?.date).toBe("2026-12-11");
    // Two of each of 180 days, and the two sums.
    expect(await fixture.redis.hlen(fixture.key("days", "stats"))).toBe(180 + 90 + 2);
    const { totals: sums, days: none } = await fixture.store.queues.get("days", { days: false });
    expect({ sums, none }).toEqual({ sums: totals, none: [] });
  });

  it("have rates over the last minute, which fall to zero when nothing happens any more", async () => {
    fixture.nowMs = START_MS;
    const rates = async () => (await fixture.store.queues.get("rates")).rates;
    expect(await rates()).toEqual({ put: 0, completed: 0, failed: 0 });
    await fixture.store.sweep("rates");
    for (let second = 1; second <= 90; second++) {
      fixture.nowMs += 1_000;
      await fixture.store.put("rates", [job(`a-${second}`), job(`b-${second}`)]);
      await release(await reserve("rates", 1));
      await fixture.store.sweep("rates");
    }
    const { put, completed, failed } = await rates();
    expect(put).toBeCloseTo(2, 0);
    expect(completed).toBeCloseTo(1, 0);
    expect(failed).toBe(0);
    for (let second = 0; second < 90; second += 10) {
      fixture.nowMs += 10_000;
      await fixture.store.sweep("rates");
    }
    expect(await rates()).toEqual({ put: 0, completed: 0, failed: 0 });
  });

  it("have rates across midnight", async () => {
    fixture.nowMs = Date.UTC(2026, 10, 21, 23, 59, 30);
    for (let second = 0; second < 60; second++) {
      fixture.nowMs += 1_000;
      await fixture.store.put("midnight", [job(`job-${second}`)]);
      await fixture.store.sweep("midnight");
      const { rates } = await fixture.store.queues.get("midnight");
      expect(rates.put).toBeGreaterThanOrEqual(0);
      expect(rates.put).toBeLessThanOrEqual(1.2);
    }
  });

  it("are kept beside how old the oldest READY job is, of whatever priority", async () => {
    fixture.nowMs = START_MS;
    const oldest = async () => (await fixture.store.queues.get("age")).oldestReadyMs;
    expect(await oldest()).toBeUndefined();
    await fixture.store.put("age", [job("low", { delayMs: 100 })]);
    fixture.nowMs += 300;
    await fixture.store.put("age", [job("high", { priority: 9 })]);
    fixture.nowMs += 50;
    expect(await oldest()).toBe(250);
  });
});
