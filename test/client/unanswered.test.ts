import { describe, expect, it } from "vitest";
import { Unanswered } from "../../src/client/unanswered.ts";

const LAST = 0xffff_ffff;

describe("Unanswered", () => {
  it("goes on with 0 after the last number that a uint32 has, and leaves out those that are still to be answered", () => {
    const sent = new Unanswered<string>(LAST);
    expect([sent.add("a"), sent.add("b")]).toEqual([LAST, 0]);
    const again = new Unanswered<string>(0);
    expect(again.add("waits")).toBe(0);
    expect(again.take(1)).toBeUndefined();
    const around = new Unanswered<string>(LAST - 1);
    expect(["a", "b", "c"].map((item) => around.add(item))).toEqual([LAST - 1, LAST, 0]);
    expect(around.take(LAST)).toBe("b");
    expect(around.take(LAST)).toBeUndefined();
    expect(around.takeAll()).toEqual(["a", "c"]);
    expect(around.takeAll()).toEqual([]);
  });
});
