import { describe, expect, it } from "vitest";
import type { NewJob, Unique } from "../../src/model/job.ts";
import { FAILED_FOR_GOOD, ids, job, timedStore } from "./timed-store.ts";

describe("a unique key", () => {
  const fixture = timedStore();
  const { reserve, release } = fixture;
  const keyed = (id: string, unique: Partial<Unique> = {}, fields: Partial<NewJob> = {}) =>
    job(id, { unique: { key: "key", until: "success", ...unique }, ...fields });
  const put = async (queue: string, ...jobs: readonly NewJob[]) => await fixture.store.put(queue, jobs);
  const conflict = (keeperId: string, state = "READY") => ({ kind: "unique conflict", keeperId, state });
  const created = { kind: "created", state: "READY" };

  it("lets the first of a batch in, and tells the others who keeps it", async () => {
    const jobs = [keyed("a"), keyed("b"), keyed("c", {}, { conflict: "keep" }), keyed("d", { key: "another" })];
    expect(await put("batch", ...jobs)).toEqual([
      created,
      conflict("a"),
      { kind: "unique kept", keeperId: "a", state: "READY" },
      created,
    ]);
    expect(ids(await reserve("batch", 10))).toEqual(["a", "d"]);
  });

  it("gives the same answer when the same put comes twice", async () => {
    const jobs = [keyed("a"), keyed("b")];
    const first = await fixture.store.put("twice", jobs, 77);
    expect(await fixture.store.put("twice", jobs, 77)).toEqual(first);
  });

  it.each<[Unique["until"], string, string, string]>([
    ["start", "free", "free", "free"],
    ["success", "kept", "free", "kept"],
    ["expiry", "kept", "kept", "kept"],
  ])(
    "until %s is %s once the job runs, %s once it is completed, and %s while it is retried",
    async (until, ...when) => {
      const queue = `until-${until}`;
      const verdict = async (id: string) => {
        const [outcome] = await put(queue, keyed(id, { until, expiresInMs: 100_000 }));
        if (outcome?.kind === "created") await fixture.store.delete(queue, id);
        return outcome?.kind === "created" ? "free" : "kept";
      };
      const options = { until, expiresInMs: 100_000 } as const;
      await put(queue, keyed("holder", options));
      expect(await verdict("before")).toBe("kept");
      let running = await reserve(queue, 1);
      const whenRunning = await verdict("running");
      await release(running, {
        kind: "failed",
        error: Buffer.alloc(0),
        permanent: false,
        retryAfterMs: 5,
        eventDetail: "",
      });
      const whenRetrying = await verdict("retrying");
      fixture.nowMs += 5;
      running = await reserve(queue, 1);
      await release(running);
      expect([whenRunning, await verdict("completed"), whenRetrying]).toEqual(when);
    },
  );

  it.each<[string, (queue: string) => Promise<unknown>]>([
    ["deleted", (queue) => fixture.store.delete(queue, "holder")],
    ["cancelled", (queue) => fixture.store.cancel(queue, "holder", Buffer.alloc(0), "")],
    ["purged", (queue) => fixture.store.queues.purge(queue, "READY", 10)],
    ["failed for good", async (queue) => await release(await reserve(queue, 1), FAILED_FOR_GOOD)],
    ["replaced by one without it", (queue) => put(queue, job("holder", { conflict: "replace" }))],
  ])("is free when its job is %s, even if it was to be kept for a time", async (how, end) => {
    const queue = `freed-${how.replaceAll(" ", "-")}`;
    await put(queue, keyed("holder", { until: "expiry", expiresInMs: 100_000 }));
    await end(queue);
    expect(await put(queue, keyed("next"))).toEqual([created]);
  });

  it("goes over to the job that takes its holder's place", async () => {
    await put("replace", keyed("holder"));
    expect(await put("replace", keyed("holder", {}, { conflict: "replace", priority: 5 }))).toEqual([created]);
    expect(await put("replace", keyed("other"))).toEqual([conflict("holder")]);
  });

  it("is kept for its time also when its job was completed and its id has been put anew, or is gone", async () => {
    const until = { until: "expiry", expiresInMs: 100_000 } as const;
    await put("outlives", keyed("holder", until, { retentionMs: 10 }));
    await release(await reserve("outlives", 1));
    expect(await put("outlives", job("holder"))).toEqual([created]);
    expect(await put("outlives", keyed("next"))).toEqual([conflict("holder")]);

    await put("over", keyed("holder", until, { retentionMs: 10 }));
    await release(await reserve("over", 1));
    fixture.nowMs += 10;
    // Its retention has ended: there is nothing to delete, whether sweep has come by or not.
    expect(await fixture.store.delete("over", "holder")).toBeUndefined();
    expect(await put("over", keyed("next"))).toEqual([conflict("holder", "COMPLETED")]);
    fixture.nowMs += 100_000;
    expect(await put("over", keyed("next"))).toEqual([created]);
  });

  it("whose time is over is put away by sweep, in batches, and those of others stay", async () => {
    const jobs = Array.from({ length: 600 }, (_, i) => keyed(`job-${i}`, { key: `key-${i}`, expiresInMs: 1_000 }));
    await put("swept", ...jobs, keyed("stays", { key: "stays" }));
    fixture.nowMs += 999;
    await fixture.store.sweep("swept");
    expect(await fixture.redis.hlen(fixture.key("swept", "unique"))).toBe(601);
    fixture.nowMs += 1;
    expect((await fixture.store.sweep("swept")).more).toBe(true);
    expect((await fixture.store.sweep("swept")).more).toBe(false);
    expect(await fixture.redis.hkeys(fixture.key("swept", "unique"))).toEqual(["stays"]);
    expect(await fixture.redis.exists(fixture.key("swept", "unique_expiry"))).toBe(0);
  });

  it("is taken again by a job that is retried, unless another has it by then", async () => {
    await put("retry", keyed("one"));
    await release(await reserve("retry", 1), FAILED_FOR_GOOD);
    await put("retry", keyed("two"));
    expect(await fixture.store.retry("retry", ["one"])).toEqual([
      { kind: "unique conflict", state: "READY", keeperId: "two" },
    ]);
    await fixture.store.delete("retry", "two");
    expect(await fixture.store.retry("retry", ["one"])).toEqual([{ kind: "retried" }]);
    expect(await put("retry", keyed("three"))).toEqual([conflict("one")]);
  });

  it("until start is taken again by a retried job only when no worker has ever had it", async () => {
    const until = { until: "start" } as const;
    await put("retry-start", keyed("never-ran", until), keyed("ran", { ...until, key: "other" }));
    await fixture.store.cancel("retry-start", "never-ran", Buffer.alloc(0), "");
    await release(await reserve("retry-start", 1), FAILED_FOR_GOOD);
    await fixture.store.retry("retry-start", ["never-ran", "ran"]);
    const [first, second] = await put("retry-start", keyed("a", until), keyed("b", { ...until, key: "other" }));
    expect(first).toEqual(conflict("never-ran"));
    expect(second).toEqual(created);
  });

  it("until start is a job's own again when no worker got it, unless another has it by then", async () => {
    const until = { until: "start" } as const;
    await put("undelivered", keyed("a", until), keyed("b", { ...until, key: "other" }));
    const leases = await reserve("undelivered", 2);
    await put("undelivered", keyed("c", { ...until, key: "other" }));
    await release(leases, { kind: "undelivered" });
    expect(await put("undelivered", keyed("d", until), keyed("e", { ...until, key: "other" }))).toEqual([
      conflict("a"),
      conflict("c"),
    ]);
    // One that a worker has had before does not take it again.
    await release(await reserve("undelivered", 2), { kind: "returned", delayMs: 0 });
    await release(await reserve("undelivered", 2), { kind: "undelivered" });
    expect(await put("undelivered", keyed("d", until))).toEqual([created]);
  });
});
