import { describe, expect, it } from "vitest";
import type { JobState } from "../../src/model/states.ts";
import type { Position } from "../../src/store/store.ts";
import { FAILED_FOR_GOOD, ids, job, manyJobs, timedStore } from "./timed-store.ts";

describe("a list, page by page", () => {
  const fixture = timedStore();
  const { reserve, release } = fixture;

  /** All ids that its pages show; `between` is what happens after each. */
  async function pages(queue: string, state: JobState, size: number, between: (page: number) => Promise<unknown>) {
    const shown: string[] = [];
    let after: Position | undefined;
    for (let page = 0; page < 100; page++) {
      const { jobs, last } = await fixture.store.list(queue, state, size, after);
      shown.push(...jobs.map(({ spec }) => spec.toString().replace("spec of ", "")));
      if (!last) return shown;
      after = last;
      await between(page);
    }
    throw new Error("there is no end of pages");
  }

  it("shows every job that stays exactly once while others come and go before, at and behind the cursor", async () => {
    const queue = "ready";
    await fixture.store.put(queue, manyJobs(100));
    const gone = new Set<string>();
    const shown = await pages(queue, "READY", 7, async (page) => {
      // The one at the cursor, one shown before, and one to come.
      for (const n of [page * 7 + 6, page * 7, page * 7 + 9]) {
        gone.add(`job-${n}`);
        await fixture.store.delete(queue, `job-${n}`);
      }
      for (const lease of await reserve(queue, 1)) gone.add(lease.id);
      await fixture.store.put(queue, [
        job(`urgent-${page}`, { priority: 9 }),
        job(`late-${page}`),
        job(`scheduled-${page}`, { delayMs: 1 }),
      ]);
      fixture.nowMs += 1;
    });
    expect(new Set(shown).size).toBe(shown.length);
    const staying = ids(manyJobs(100)).filter((id) => !gone.has(id));
    expect(shown.filter((id) => staying.includes(id))).toEqual(staying);
  });

  it.each<[JobState, (queue: string) => Promise<unknown>]>([
    ["SCHEDULED", (queue) => fixture.store.put(queue, manyJobs(50, { delayMs: 1_000_000 }))],
    [
      "HELD",
      async (queue) => {
        const concurrency = { key: "customer", limit: 1 };
        await fixture.store.put(queue, [job("runs", { concurrency }), ...manyJobs(50, { concurrency })]);
        await reserve(queue, 100);
      },
    ],
    [
      "RESERVED",
      async (queue) => {
        await fixture.store.put(queue, manyJobs(50));
        await reserve(queue, 50);
      },
    ],
    [
      "RETRYING",
      async (queue) => {
        await fixture.store.put(queue, manyJobs(50));
        const error = Buffer.alloc(0);
        await release(await reserve(queue, 50), {
          ...{ kind: "failed", error, permanent: false, retryAfterMs: 1_000_000, eventDetail: "" },
        });
      },
    ],
    [
      "COMPLETED",
      async (queue) => {
        await fixture.store.put(queue, manyJobs(50));
        await release(await reserve(queue, 50));
      },
    ],
    [
      "FAILED",
      async (queue) => {
        await fixture.store.put(queue, manyJobs(50));
        await release(await reserve(queue, 50), FAILED_FOR_GOOD);
      },
    ],
  ])("of %s goes on behind its last job although that has left, also among many of one time", async (state, fill) => {
    const queue = `left-${state}`;
    await fill(queue);
    expect(await fixture.store.queues.get(queue)).toMatchObject({ counts: { [state]: 50 } });
    let last = "";
    const all = await pages(queue, state, 100, async () => {});
    const shown = await pages(queue, state, 7, async (page) => {
      last = all[page * 7 + 6] ?? "";
      await fixture.store.delete(queue, last);
    });
    expect(shown).toEqual(all);
    expect(all).toHaveLength(50);
    expect(await fixture.store.get(queue, last)).toBeUndefined();
  });

  it("has fewer jobs on a page where they are large, but always one, and misses none", async () => {
    const mebibyte = 1024 * 1024;
    const sizes = [1, 1, 1, 1, 5, 1, 5, 5];
    const jobs = sizes.map((size, i) => job(`job-${i}`, { spec: Buffer.alloc(size * mebibyte, String(i)) }));
    await fixture.store.put("large", jobs);
    const counts: number[] = [];
    const shown: string[] = [];
    let after: Position | undefined;
    do {
      const page = await fixture.store.list("large", "READY", 100, after);
      counts.push(page.jobs.length);
      shown.push(...page.jobs.map(({ spec }) => spec.subarray(0, 1).toString()));
      after = page.last;
    } while (after);
    expect(counts).toEqual([3, 1, 1, 1, 1, 1]);
    expect(shown).toEqual(["0", "1", "2", "3", "4", "5", "6", "7"]);
  });
});
