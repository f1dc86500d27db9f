import { describe, expect, it } from "vitest";
import type { Claim } from "../../src/store/store.ts";
import { ids, job, START_MS, timedStore } from "./timed-store.ts";

/** Jobs of so many bytes each. */
const sized = (...sizes: readonly number[]) => sizes.map((size, i) => job(`job-${i}`, { spec: Buffer.alloc(size) }));

describe("a claim that may have only so many bytes", () => {
  const fixture = timedStore();
  let calls = 0;

  async function reserve(queue: string, claims: readonly Partial<Claim>[]) {
    calls += 1;
    const whole = claims.map((claim) => ({ count: 10, leaseMs: 0, workerId: "worker", ...claim }));
    const { jobs, outgrown, remaining } = await fixture.store.reserve(queue, "bytes", calls, whole);
    return { got: jobs.map(ids), outgrown, remaining };
  }

  it("gets what fits, in order, and is told that the next job does not", async () => {
    await fixture.store.put("fits", sized(100, 100, 100, 10));
    const bytes = { most: 250, takesAny: false };
    const got = { got: [["job-0", "job-1"]], outgrown: [0], remaining: true };
    expect(await reserve("fits", [{ bytes }])).toEqual(got);
    expect(await reserve("fits", [{ bytes: { most: 110, takesAny: false } }])).toEqual({
      ...{ got: [["job-2", "job-3"]], outgrown: [], remaining: false },
    });
  });

  it("may have one job whatever it has, where it says so, and no second one then", async () => {
    await fixture.store.put("any", sized(1_000, 10, 10));
    expect((await reserve("any", [{ bytes: { most: 500, takesAny: false } }])).got).toEqual([[]]);
    const got = { got: [["job-0"]], outgrown: [0], remaining: true };
    expect(await reserve("any", [{ bytes: { most: 500, takesAny: true } }])).toEqual(got);
    expect((await reserve("any", [{ bytes: { most: 20, takesAny: true } }])).got).toEqual([["job-1", "job-2"]]);
  });

  it("leaves to the next claim what it cannot have, and all that comes after", async () => {
    await fixture.store.put("next", sized(10, 100, 10, 10));
    const small = { bytes: { most: 50, takesAny: false } };
    const got = { got: [["job-0"], [], ["job-1", "job-2"]], outgrown: [0, 1], remaining: true };
    expect(await reserve("next", [small, small, { count: 2 }])).toEqual(got);
  });

  it("does not pass on what is due only later to a claim that does not want it", async () => {
    const runAtMs = START_MS + 60_000;
    await fixture.store.put("later", [job("large", { spec: Buffer.alloc(100), runAtMs })]);
    const small = { availableByMs: runAtMs, bytes: { most: 50, takesAny: false } };
    expect(await reserve("later", [small, {}])).toMatchObject({ got: [[], []], outgrown: [0] });
    const willing = { availableByMs: runAtMs };
    expect((await reserve("later", [small, {}, willing])).got).toEqual([[], [], ["large"]]);
  });

  it("touches no job for which no claim is left", async () => {
    const concurrency = { key: "one", limit: 1 };
    await fixture.store.put("rest", [...sized(100), job("running", { concurrency }), job("waits", { concurrency })]);
    const small = { count: 2, bytes: { most: 50, takesAny: false } };
    expect((await reserve("rest", [small, { count: 2 }])).got).toEqual([[], ["job-0", "running"]]);
    expect((await fixture.store.get("rest", "waits"))?.state).toBe("READY");
  });
});
