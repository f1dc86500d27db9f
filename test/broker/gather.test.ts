import { describe, expect, it } from "vitest";
import { Gather } from "../../src/broker/gather.ts";

/** Answers each item with itself, doubled, and keeps what it was called with. */
function doubling() {
  const calls: { queue: string; items: readonly number[] }[] = [];
  const gather = new Gather<number, number>(async (queue, items) => {
    calls.push({ queue, items });
    if (items.includes(13)) throw new Error("unlucky");
    return items.map((item) => item * 2);
  });
  return { calls, gather };
}

describe("Gather", () => {
  it("makes one call of what comes in one turn, and gives each caller its own answers", async () => {
    const { calls, gather } = doubling();
    const answers = await Promise.all([gather.add("q", [1]), gather.add("q", [2, 3]), gather.add("q", [4])]);
    expect(answers).toEqual([[2], [4, 6], [8]]);
    expect(calls).toEqual([{ queue: "q", items: [1, 2, 3, 4] }]);
  });

  it("keeps queues apart", async () => {
    const { calls, gather } = doubling();
    await Promise.all([gather.add("a", [1]), gather.add("b", [2]), gather.add("a", [3])]);
    expect(calls).toEqual([
      { queue: "a", items: [1, 3] },
      { queue: "b", items: [2] },
    ]);
  });

  it("does not wait for the end of the turn once a call is full", async () => {
    const { calls, gather } = doubling();
    const full = gather.add(
      "q",
      Array.from({ length: 100 }, (_, i) => i + 100),
    );
    const next = gather.add("q", [1]);
    expect(calls).toHaveLength(1);
    expect(await full).toHaveLength(100);
    expect(await next).toEqual([2]);
    expect(calls).toHaveLength(2);
  });

  it("fails all that were part of a call that failed, and nobody else", async () => {
    const { gather } = doubling();
    const [one, two, other] = await Promise.allSettled([
      gather.add("q", [13]),
      gather.add("q", [1]),
      gather.add("other", [1]),
    ]);
    expect(one).toMatchObject({ status: "rejected", reason: { message: "unlucky" } });
    expect(two).toMatchObject({ status: "rejected", reason: { message: "unlucky" } });
    expect(other).toEqual({ status: "fulfilled", value: [2] });
  });
});
