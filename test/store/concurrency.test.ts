import type { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import type { NewJob } from "../../src/model/job.ts";
import { FAILED_FOR_GOOD, ids, job, manyJobs, START_MS, timedStore } from "./timed-store.ts";

const limited = (id: string, limit: number, fields: Partial<NewJob> = {}) =>
  job(id, { concurrency: { key: "customer", limit }, ...fields });

/** How often Redis has run each command since its counts were set to zero. */
async function commandCalls(redis: Redis): Promise<Record<string, number>> {
  const lines = (await redis.info("commandstats")).matchAll(/^cmdstat_(\w+):calls=(\d+)/gm);
  return Object.fromEntries([...lines].map(([, name = "", calls]) => [name, Number(calls)]));
}

describe("the slots of a concurrency key", () => {
  const fixture = timedStore();
  const { reserve, release } = fixture;
  const state = async (queue: string, id: string) => (await fixture.store.get(queue, id))?.state;

  it("hold back what comes over the limit, and let it in at its old place, ahead of later jobs", async () => {
    await fixture.store.put("order", [limited("one", 1), limited("two", 1), limited("three", 1), job("other")]);
    const first = await reserve("order", 10);
    expect(ids(first)).toEqual(["one", "other"]);
    expect(await state("order", "two")).toBe("HELD");
    await fixture.store.put("order", [job("late")]);
    await release(first.slice(0, 1));
    expect(ids(await reserve("order", 1))).toEqual(["two"]);
    expect(ids(await reserve("order", 10))).toEqual(["late"]);
    expect(await state("order", "three")).toBe("HELD");
  });

  it.each<[string, (queue: string) => Promise<unknown>]>([
    ["deleted", (queue) => fixture.store.delete(queue, "promised")],
    ["cancelled", (queue) => fixture.store.cancel(queue, "promised", Buffer.alloc(0), "")],
    ["purged", (queue) => fixture.store.queues.purge(queue, "READY", 1)],
    ["replaced", (queue) => fixture.store.put(queue, [job("promised", { conflict: "replace", delayMs: 60_000 })])],
    [
      "too late for its worker",
      async (queue) => {
        fixture.nowMs += 1_000;
        expect(ids(await reserve(queue, 1))).toEqual([]);
      },
    ],
    [
      "without its spec",
      async (queue) => {
        await fixture.redis.hdel(fixture.key(queue, "spec"), "promised");
        expect(ids(await reserve(queue, 1))).toEqual([]);
      },
    ],
  ])("pass on from a job that got one back and is then %s", async (_how, end) => {
    const queue = `passed-on-${_how.replaceAll(" ", "-")}`;
    await fixture.store.put(queue, [
      limited("running", 1),
      limited("promised", 1, { expiresInMs: 1_000 }),
      limited("next", 1),
    ]);
    const running = await reserve(queue, 10);
    await release(running);
    expect(await state(queue, "promised")).toBe("READY");
    expect(await state(queue, "next")).toBe("HELD");
    await end(queue);
    expect(ids(await reserve(queue, 10))).toEqual(["next"]);
    expect(await fixture.redis.hlen(fixture.key(queue, "slots"))).toBe(1);
  });

  it("let no newcomer pass those that are held when one lapses in the same call", async () => {
    const queue = "lapse";
    await fixture.store.put(queue, [limited("a", 1), limited("lapses", 1, { expiresInMs: 10 }), limited("held", 1)]);
    const running = await reserve(queue, 10);
    await release(running);
    await fixture.store.put(queue, [limited("newcomer", 1)]);
    fixture.nowMs += 10;
    expect(ids(await reserve(queue, 10))).toEqual([]);
    expect(ids(await reserve(queue, 10))).toEqual(["held"]);
  });

  it("come back to life with a job that is retried when no other has the key any more", async () => {
    await fixture.store.put("retried", [limited("one", 2)]);
    await release(await reserve("retried", 1), FAILED_FOR_GOOD);
    expect(await fixture.redis.hlen(fixture.key("retried", "slots"))).toBe(0);
    await fixture.store.retry("retried", ["one"]);
    expect(ids(await reserve("retried", 1))).toEqual(["one"]);
  });

  it("of a thousand keys that are freed in one call are all passed on", async () => {
    const keyed = (id: string, n: number) => job(`${id}-${n}`, { concurrency: { key: `key-${n}`, limit: 1 } });
    const numbers = Array.from({ length: 1_000 }, (_, n) => n);
    await fixture.store.put(
      "many-keys",
      numbers.map((n) => keyed("first", n)),
    );
    await fixture.store.put(
      "many-keys",
      numbers.map((n) => keyed("second", n)),
    );
    const first = await reserve("many-keys", 1_000);
    // It looks at 200 jobs more than it was asked for, so several calls hold all of the second ones.
    for (let i = 0; i < 10; i++) expect(await reserve("many-keys", 1)).toEqual([]);
    const { counts } = await fixture.store.queues.get("many-keys");
    expect(counts).toMatchObject({ HELD: 1_000, RESERVED: 1_000 });
    await release(first);
    expect(await reserve("many-keys", 1_000)).toHaveLength(1_000);
  });

  it("come free at once when the limit rises, about a hundred in a call, and none is stranded", async () => {
    const queue = "raised";
    await fixture.store.put(queue, manyJobs(500, { concurrency: { key: "customer", limit: 1 } }));
    let running = await reserve(queue, 400);
    await reserve(queue, 400);
    expect(ids(running)).toEqual(["job-0"]);
    await fixture.store.put(queue, [limited("raises", 10_000, { priority: 9 })]);
    const done: string[] = [];
    for (let rounds = 0; running.length > 0; rounds++) {
      expect(rounds).toBeLessThan(20);
      await release(running);
      done.push(...ids(running));
      running = await reserve(queue, 1_000);
    }
    expect(done).toHaveLength(501);
    // In their old order: the one that raised the limit came last, and waited for those that were held before it.
    const held = done.filter((id) => id !== "raises");
    expect(held).toEqual(ids(manyJobs(500)));
    expect(await fixture.redis.hlen(fixture.key(queue, "slots"))).toBe(0);
  });

  it("stay taken over a limit that was lowered until enough of them are free", async () => {
    await fixture.store.put("lowered", [limited("a", 3), limited("b", 3), limited("c", 3)]);
    const running = await reserve("lowered", 3);
    await fixture.store.put("lowered", [limited("d", 1)]);
    for (const lease of running.slice(0, 2)) {
      await release([lease]);
      expect(await reserve("lowered", 1)).toEqual([]);
    }
    await release(running.slice(2));
    expect(ids(await reserve("lowered", 1))).toEqual(["d"]);
  });

  it("are not touched by a held job that is replaced, deleted or cancelled", async () => {
    const queue = "held";
    await fixture.store.put(queue, [limited("runs", 1), limited("a", 1), limited("b", 1), limited("c", 1)]);
    await fixture.store.put(queue, [limited("d", 1)]);
    const running = await reserve(queue, 10);
    await fixture.store.put(queue, [job("a", { conflict: "replace" })]);
    await fixture.store.delete(queue, "b");
    await fixture.store.cancel(queue, "c", Buffer.alloc(0), "");
    expect(ids(await reserve(queue, 10))).toEqual(["a"]);
    expect(await state(queue, "d")).toBe("HELD");
    await release(running);
    expect(ids(await reserve(queue, 10))).toEqual(["d"]);
  });

  it("cost the next reservation no more with 100,000 held jobs than with 1,000", async () => {
    const costOfNext = async (queue: string, held: number) => {
      const all = Array.from({ length: held + 1 }, (_, i) => limited(`job-${i}`, 1));
      for (let from = 0; from < all.length; from += 1_000) {
        await fixture.store.put(queue, all.slice(from, from + 1_000));
      }
      const running = await reserve(queue, 1_000);
      for (let seen = 0; seen <= held; seen += 1_000) await reserve(queue, 1_000);
      const { counts } = await fixture.store.queues.get(queue);
      expect(counts).toMatchObject({ HELD: held, RESERVED: 1, READY: 0 });
      await fixture.redis.config("RESETSTAT");
      await release(running);
      expect(ids(await reserve(queue, 1))).toEqual(["job-1"]);
      const { config: _, info: __, ...calls } = await commandCalls(fixture.redis);
      return calls;
    };
    fixture.nowMs = START_MS;
    const few = await costOfNext("few", 1_000);
    expect(await costOfNext("many", 100_000)).toEqual(few);
  }, 60_000);
});
