import { describe, expect, it } from "vitest";
import { dueTicks } from "../../src/model/catch-up.ts";
import type { CatchUp } from "../../src/model/schedule.ts";
import type { Timetable } from "../../src/model/timetable.ts";

const START = Date.parse("2026-11-21T08:00:00Z");
const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const DAY = 24 * 60 * MINUTE;
const every = (everyMs: number): Timetable => ({ kind: "every", everyMs, timeZone: "", startMs: START });

/** Of a schedule whose first tick, one interval after the start, nobody has put until now. */
function due(everyMs: number, catchUp: CatchUp, nowMs: number, most = 1_000) {
  const { put, leftOut, next } = dueTicks(every(everyMs), { catchUp, tickMs: START + everyMs, nowMs, most });
  const inTicks = (tick: number) => (tick - START) / everyMs;
  return { put: put.map(inTicks), leftOut, next: next === undefined ? undefined : inTicks(next) };
}

describe("ticks that are due", () => {
  it.each<CatchUp>(["none", "one", "all"])("are all put when all are at most 10 s old, with catch-up %s", (catchUp) => {
    expect(due(MINUTE, catchUp, START + MINUTE)).toEqual({ put: [1], leftOut: 0, next: 2 });
    expect(due(MINUTE, catchUp, START + MINUTE + 10 * SECOND)).toEqual({ put: [1], leftOut: 0, next: 2 });
    expect(due(SECOND, catchUp, START + 5 * SECOND)).toEqual({ put: [1, 2, 3, 4, 5], leftOut: 0, next: 6 });
  });

  it("are left out with catch-up none when they are older", () => {
    expect(due(MINUTE, "none", START + MINUTE + 10_001)).toEqual({ put: [], leftOut: 1, next: 2 });
    expect(due(MINUTE, "none", START + 5.5 * MINUTE)).toEqual({ put: [], leftOut: 5, next: 6 });
    expect(due(4 * SECOND, "none", START + 20 * SECOND)).toEqual({ put: [3, 4, 5], leftOut: 2, next: 6 });
  });

  it("are made up for by the last of them with catch-up one when the first is older", () => {
    expect(due(MINUTE, "one", START + MINUTE + 10_001)).toEqual({ put: [1], leftOut: 0, next: 2 });
    expect(due(MINUTE, "one", START + 5.5 * MINUTE)).toEqual({ put: [5], leftOut: 4, next: 6 });
    expect(due(4 * SECOND, "one", START + 20 * SECOND)).toEqual({ put: [5], leftOut: 4, next: 6 });
  });

  it("are all put with catch-up all, so many at once, the oldest first", () => {
    expect(due(MINUTE, "all", START + 5.5 * MINUTE)).toEqual({ put: [1, 2, 3, 4, 5], leftOut: 0, next: 6 });
    expect(due(MINUTE, "all", START + 5.5 * MINUTE, 2)).toEqual({ put: [1, 2], leftOut: 0, next: 3 });
    expect(due(SECOND, "all", START + DAY)).toMatchObject({ leftOut: 0, next: 1_001 });
  });

  it.each<[CatchUp, number, number]>([
    ["none", 11, 2_489],
    ["one", 1, 2_499],
    ["all", 2_500, 0],
  ])("are dealt with in pieces when they are many, none twice, with catch-up %s", (catchUp, put, leftOut) => {
    const nowMs = START + 2_500 * SECOND;
    const all: number[] = [];
    let left = 0;
    let tickMs: number | undefined = START + SECOND;
    for (let pieces = 0; tickMs !== undefined && tickMs <= nowMs; pieces++) {
      expect(pieces).toBeLessThan(5);
      const piece = dueTicks(every(SECOND), { catchUp, tickMs, nowMs, most: 1_000 });
      all.push(...piece.put);
      left += piece.leftOut;
      tickMs = piece.next;
    }
    expect({ put: all.length, leftOut: left }).toEqual({ put, leftOut });
    expect(all).toEqual([...new Set(all)].sort((a, b) => a - b));
    expect(all.at(-1)).toBe(nowMs);
    expect(tickMs).toBe(nowMs + SECOND);
  });

  it("count as they were promised, also where the timetable has them no more", () => {
    const promised = START + 90 * SECOND;
    const answer = dueTicks(every(MINUTE), { catchUp: "one", tickMs: promised, nowMs: promised, most: 10 });
    expect(answer).toEqual({ put: [promised], leftOut: 0, next: START + 2 * MINUTE });
  });
});
