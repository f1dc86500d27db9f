import { describe, expect, it } from "vitest";
import type { JobState } from "../../src/model/states.ts";
import type { QueuePart } from "../../src/store/keys.ts";
import { FAILED_FOR_GOOD, ids, job, timedStore } from "./timed-store.ts";

const GARBAGE = Buffer.from([0xff, 0x00, 0x41]);

describe("a record that cannot be read", () => {
  const fixture = timedStore();
  const { reserve, release } = fixture;
  const stateBytes = (queue: string, id: string) => fixture.redis.hgetBuffer(fixture.key(queue, "state"), id);

  /** Sweep tells of these records, once; their bytes are kept. */
  async function expectReported(queue: string, expected: Readonly<Record<string, Buffer>>): Promise<void> {
    const { setAside, more } = await fixture.store.sweep(queue);
    expect({ setAside: [...setAside].sort(), more }).toEqual({ setAside: Object.keys(expected).sort(), more: false });
    expect((await fixture.store.sweep(queue)).setAside).toEqual([]);
    expect(await fixture.redis.hgetallBuffer(fixture.key(queue, "aside"))).toEqual(expected);
    expect((await fixture.store.queues.get(queue)).setAside).toBe(Object.keys(expected).length);
  }

  it.each([
    ["too short", GARBAGE],
    ["empty", Buffer.alloc(0)],
    ["in a state that there is not", Buffer.alloc(60, 9)],
    ["with a policy that is none", Buffer.concat([Buffer.alloc(39, 2), Buffer.from([0xc1])])],
    ["held without a key", Buffer.alloc(39, 3)],
  ])("(%s) is set aside, and those behind it are handed out", async (what, bytes) => {
    const queue = `garbage-${what.replaceAll(" ", "-")}`;
    await fixture.store.put(queue, [job("first"), job("bad"), job("last")]);
    await fixture.redis.hset(fixture.key(queue, "state"), "bad", bytes);
    expect(ids(await reserve(queue, 10))).toEqual(["first", "last"]);
    await expectReported(queue, { bad: bytes });
    // Its id can be used again.
    expect(await fixture.store.put(queue, [job("bad")])).toEqual([{ kind: "created", state: "READY" }]);
    expect(ids(await reserve(queue, 10))).toEqual(["bad"]);
  });

  it.each([1, 10])("whose spec is too short for its head is set aside, where %i jobs are asked for", async (count) => {
    const queue = `short-spec-${count}`;
    await fixture.store.put(queue, [job("bad"), job("sound")]);
    await fixture.redis.hset(fixture.key(queue, "spec"), "bad", GARBAGE);
    expect(ids(await reserve(queue, count))).toEqual(["sound"]);
    await expectReported(queue, { bad: Buffer.alloc(0) });
  });

  it.each<[JobState, QueuePart, string]>([
    ["SCHEDULED", "scheduled", "0000000000000ghost"],
    ["RETRYING", "retrying", "ghost"],
    ["RESERVED", "reserved", "ghost"],
    ["READY", "ready", "ghost"],
    ["COMPLETED", "completed", "ghost"],
    ["FAILED", "failed", "ghost"],
    ["HELD", "held", "key\x000000000000000\0ghost"],
    ["HELD", "held", "no-held-job-stands-like-this"],
  ])("of a job that is not there, in the set of %s, blocks nobody: %s, %j", async (state, part, member) => {
    const queue = `ghost-${part}-${member.length}`;
    await fixture.store.put(queue, [job("sound")]);
    await fixture.redis.zadd(fixture.key(queue, part), 1, member);
    expect(ids(await reserve(queue, 10))).toEqual(["sound"]);
    await fixture.store.sweep(queue);
    expect((await fixture.store.list(queue, state, 10, undefined)).jobs.map((it) => it.spec.toString())).toEqual(
      state === "RESERVED" ? ["spec of sound"] : [],
    );
    expect(await fixture.redis.zscore(fixture.key(queue, part), member)).toBeNull();
    expect((await fixture.store.queues.get(queue)).setAside).toBe(1);
  });

  it("in the dead letter by the thousand is put away batch by batch, and ends", async () => {
    await fixture.store.put("dead", [job("sound")]);
    await release(await reserve("dead", 1), FAILED_FOR_GOOD);
    const ghosts = Array.from({ length: 1_200 }, (_, i) => [1, `ghost-${i}`]).flat();
    await fixture.redis.zadd(fixture.key("dead", "failed"), ...ghosts);
    let sweeps = 1;
    while ((await fixture.store.sweep("dead")).more) expect(++sweeps).toBeLessThan(5);
    expect(await fixture.redis.zrange(fixture.key("dead", "failed"), "0", "-1")).toEqual(["sound"]);
  });

  it("at the head of READY by the hundred delays the sound ones by no call more than it must", async () => {
    await fixture.store.put("head", [job("sound-1"), job("sound-2")]);
    const ghosts = Array.from({ length: 150 }, (_, i) => [1, `ghost-${i}`]).flat();
    await fixture.redis.zadd(fixture.key("head", "ready"), ...ghosts);
    expect(ids(await reserve("head", 2))).toEqual(["sound-1", "sound-2"]);
  });

  it("whose spec is missing is set aside, and frees its slot and its unique key", async () => {
    const queue = "specless";
    const concurrency = { key: "customer", limit: 1 };
    const unique = { key: "only", until: "success" } as const;
    await fixture.store.put(queue, [job("bad", { concurrency, unique }), job("next", { concurrency })]);
    const bytes = await stateBytes(queue, "bad");
    await fixture.redis.hdel(fixture.key(queue, "spec"), "bad");
    expect((await fixture.store.get(queue, "bad"))?.state).toBe("READY");
    expect(ids(await reserve(queue, 10))).toEqual(["next"]);
    await expectReported(queue, { bad: bytes as Buffer });
    expect(await fixture.store.get(queue, "bad")).toBeUndefined();
    expect(await fixture.store.put(queue, [job("other", { unique })])).toEqual([{ kind: "created", state: "READY" }]);
  });

  it("that stands in a second set as well leaves only that", async () => {
    await fixture.store.put("double", [job("one"), job("later", { delayMs: 1_000 })]);
    const [lease] = await reserve("double", 1);
    await fixture.redis.zadd(fixture.key("double", "ready"), 1, "one", 2, "later");
    expect(await reserve("double", 10)).toEqual([]);
    expect([...(await fixture.store.sweep("double")).setAside].sort()).toEqual(["later", "one"]);
    expect(await release(lease ? [lease] : [])).toEqual(["COMPLETED"]);
    fixture.nowMs += 1_000;
    expect(ids(await reserve("double", 10))).toEqual(["later"]);
  });

  it("among those of a concurrency key lets those behind it have the slot", async () => {
    const concurrency = { key: "customer", limit: 1 };
    await fixture.store.put(
      "held",
      ["runs", "bad-1", "bad-2", "good"].map((id) => job(id, { concurrency })),
    );
    const running = await reserve("held", 10);
    for (const id of ["bad-1", "bad-2"]) await fixture.redis.hset(fixture.key("held", "state"), id, GARBAGE);
    await release(running);
    expect(ids(await reserve("held", 10))).toEqual(["good"]);
    await expectReported("held", { "bad-1": GARBAGE, "bad-2": GARBAGE });
  });

  it("does not end a listing, nor show twice what is before it", async () => {
    await fixture.store.put(
      "listed",
      ["a", "b", "c", "d"].map((id) => job(id)),
    );
    await fixture.redis.hset(fixture.key("listed", "state"), "b", GARBAGE, "d", GARBAGE);
    const shown: string[] = [];
    let page = await fixture.store.list("listed", "READY", 2, undefined);
    for (let pages = 0; pages < 5; pages++) {
      shown.push(...page.jobs.map(({ spec }) => spec.toString()));
      if (!page.last) break;
      page = await fixture.store.list("listed", "READY", 2, page.last);
    }
    expect(shown).toEqual(["spec of a", "spec of c"]);
    expect(page.last).toBeUndefined();
  });
});
