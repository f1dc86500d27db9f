import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { BatonError } from "../../src/model/errors.ts";
import { QUEUE_PARTS } from "../../src/store/keys.ts";
import { loadScript, loadScripts, SCRIPT_NAMES, type ScriptName } from "../../src/store/scripts.ts";
import { Store } from "../../src/store/store.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { ids } from "./timed-store.ts";

const folders: string[] = [];

/** A folder of Lua files, as the loader expects them. */
function luaFolder(files: Readonly<Record<string, string>>): URL {
  const folder = mkdtempSync(join(tmpdir(), "baton-lua-"));
  folders.push(folder);
  mkdirSync(join(folder, "lib"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return pathToFileURL(`${folder}/`);
}

describe("loadScript()", () => {
  afterAll(() => {
    for (const folder of folders) rmSync(folder, { recursive: true });
  });

  it("puts an included file before what includes it, once, and the shebang first", () => {
    const folder = luaFolder({
      "verb.lua": "#!lua flags=allow-oom\n-- @include b\n-- @include a\nreturn a + b\n",
      "lib/a.lua": "local a = 1\n",
      "lib/b.lua": "-- @include a\nlocal b = a + 1\n",
    });
    const { source } = loadScript("verb", folder);
    expect(source.startsWith("#!lua flags=allow-oom\n")).toBe(true);
    expect(source.match(/local a/g)).toHaveLength(1);
    expect(source.indexOf("local a")).toBeLessThan(source.indexOf("local b"));
    expect(source.indexOf("local b")).toBeLessThan(source.indexOf("return a + b"));
  });

  it("writes whole numbers and keys where their names stand, but not into texts, comments and fields", () => {
    const folder = luaFolder({
      "verb.lua": "#!lua\n-- @include a\n-- LIMIT\nreturn call('LIMIT', SET, LIMIT, FIRST - 1, t.LIMIT, STEP)\n",
      "lib/a.lua": "local LIMIT, FIRST = 10, 5\nlocal SET = KEYS[3]\nlocal STEP = 2 ^ 49\n",
    });
    const { source } = loadScript("verb", folder);
    expect(source).toContain("-- LIMIT\nreturn call('LIMIT', KEYS[3], 10, 5 - 1, t.LIMIT, STEP)");
    expect(source).toContain("local STEP = 2 ^ 49");
    expect(source).not.toMatch(/local (LIMIT|SET)/);
  });

  it("refuses files that include each other", () => {
    const folder = luaFolder({
      "verb.lua": "#!lua\n-- @include a\n",
      "lib/a.lua": "-- @include b\n",
      "lib/b.lua": "-- @include a\n",
    });
    expect(() => loadScript("verb", folder)).toThrow("a includes b includes a");
  });

  it("refuses a script without a shebang, because Redis would stop it half way when memory is full", () => {
    expect(() => loadScript("verb", luaFolder({ "verb.lua": "return 1\n" }))).toThrow("#!lua");
  });
});

describe("every script", () => {
  const scripts = Object.values(loadScripts());
  const whole = (name: string) => scripts.find((script) => script.name === name)?.source ?? "";

  it.each(SCRIPT_NAMES)("%s says what it is for, what it takes, returns and publishes", (name) => {
    for (const heading of ["-- KEYS ", "-- ARGV ", "-- Returns ", "-- Publishes ", "-- Twice "]) {
      expect(whole(name)).toContain(heading);
    }
  });

  it.each(SCRIPT_NAMES)("%s touches no key but those it is given", (name) => {
    const calls = [...whole(name).matchAll(/\bp?call\('([A-Z]+)'(?:, ([^,)]+))?/g)];
    expect(whole(name).match(/redis\.call/g), "one name for redis.call").toEqual(["redis.call"]);
    const keyless = ["TIME", "PUBLISH", "PUBSUB", "INFO"];
    const keys = calls.filter(([, command = ""]) => !keyless.includes(command)).map(([, , key]) => key);
    expect(keys.length).toBeGreaterThan(3);
    // The names of lua/lib/queue.lua, which the loader has replaced, or of a parameter or table that has some of them.
    const declared = /^(KEYS\[\d+\]|set|key|SET_OF\[state\])$/;
    expect(keys.filter((key) => !declared.test(key ?? ""))).toEqual([]);
  });

  it("gets as many keys as Lua has names for", () => {
    const queue = readFileSync(new URL("../../lua/lib/queue.lua", import.meta.url), "utf8");
    const named = [...queue.matchAll(/KEYS\[(\d+)\]/g)].map(([, n]) => Number(n));
    expect(named).toEqual(QUEUE_PARTS.map((_, i) => i + 1));
  });

  it.each(SCRIPT_NAMES)("%s stays below the 200 locals that Lua allows, with room for more", (name) => {
    expect(whole(name).match(/^local /gm)?.length).toBeLessThan(150);
  });
});

describe("the scripts on a real Redis", () => {
  let server: TestRedis;
  let redis: Redis;

  beforeAll(async () => {
    server = await startRedis({ config: ["maxmemory-policy noeviction"] });
    redis = new Redis(server.socketPath);
    // Each store listens to it.
    redis.setMaxListeners(100);
  });

  afterAll(async () => {
    redis.disconnect();
    await server.stop();
  });

  afterEach(async () => {
    await redis.config("SET", "maxmemory", "0");
  });

  const options = { namespace: "scripts", defaultRetentionMs: 60_000, deadLetterMax: 3, deadLetterAgeMs: 10_000 };
  const store = () => new Store({ ...options, redis });
  const job = (id: string, bytes = 10) => ({
    id,
    spec: Buffer.alloc(bytes),
    priority: 0,
    conflict: "reject" as const,
  });
  const claim = (count: number) => [{ count, leaseMs: 5_000, workerId: "w" }];

  it("run after a SCRIPT FLUSH as before it", async () => {
    await store().put("flush", [job("one")]);
    await redis.script("FLUSH");
    await store().put("flush", [job("two")]);
    await redis.script("FLUSH");
    const { jobs } = await store().reserve("flush", "me", 1, claim(5));
    expect(jobs.flat().map(({ id }) => id)).toEqual(["one", "two"]);
  });

  it("refuse a put when memory is full and change nothing, while workers can still finish jobs", async () => {
    await store().put("full", [job("early")]);
    await redis.config("SET", "maxmemory", "1");
    const put = store().put("full", [job("late", 1_000)]);
    await expect(put).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "STORE_FULL" });
    await expect(put).rejects.toBeInstanceOf(BatonError);
    const { jobs } = await store().reserve("full", "me", 1, claim(5));
    const lease = jobs[0]?.[0];
    expect(lease?.id).toBe("early");
    if (lease)
      await expect(store().release("full", [{ lease, outcome: { kind: "completed" } }])).resolves.toEqual([
        { state: "COMPLETED" },
      ]);
    expect(await store().get("full", "late")).toBeUndefined();
  });

  it("let a broker that has just started pause a queue and a schedule when memory is full", async () => {
    const schedule = { id: "s", revision: 0, definition: Buffer.from("d"), skipOverlap: false, paused: false };
    await store().schedules.put("stopped", { ...schedule, nextTickMs: 9e12, startMs: 0 }, 10);
    const revision = (await store().schedules.get("stopped", "s"))?.schedule.revision ?? 0;
    await redis.config("SET", "maxmemory", "1");
    expect((await store().queues.update("stopped", { paused: true })).now.paused).toBe(true);
    expect(await store().schedules.pause("stopped", "s", revision, true, undefined)).toBe("changed");
    await expect(store().queues.update("new", { paused: true })).rejects.toMatchObject({ reason: "STORE_FULL" });
  });

  it("take batches of a thousand, and pieces of a list longer than Lua can unpack", async () => {
    const many = Array.from({ length: 1_000 }, (_, i) => job(`job-${i}`));
    for (let i = 0; i < 9; i++)
      await store().put(
        "many",
        many.map((it) => ({ ...it, id: `${i}-${it.id}` })),
      );
    const { jobs } = await store().reserve("many", "me", 1, claim(9_000));
    expect(jobs.flat()).toHaveLength(9_000);
    const releases = jobs.flat().map((lease) => ({ lease, outcome: { kind: "completed" } as const }));
    const answers = await store().release("many", releases);
    expect(answers.every((answer) => answer?.state === "COMPLETED")).toBe(true);
  });

  it("read few of the payloads of jobs that are held", async () => {
    const jobs = Array.from({ length: 300 }, (_, i) => ({
      ...job(`held-${i}`, 100_000),
      concurrency: { key: "one", limit: 1 },
    }));
    for (let i = 0; i < jobs.length; i += 100) await store().put("unread", jobs.slice(i, i + 100));
    await redis.config("RESETSTAT");
    const { jobs: reserved } = await store().reserve("unread", "me", 1, claim(100));
    expect(reserved.flat()).toHaveLength(1);
    const [, calls] = /cmdstat_hmget:calls=(\d+)/.exec(await redis.info("commandstats")) ?? [];
    // In pieces of a few: 20 MB at once otherwise.
    expect(Number(calls)).toBeGreaterThan(300 / 8);
  });

  it("hand out at most 3.5 MiB in one call, but always one job", async () => {
    const mebibyte = 1024 * 1024;
    await store().put("large", [
      job("huge", 5 * mebibyte),
      ...["a", "b", "c", "d", "e"].map((id) => job(id, mebibyte)),
    ]);
    const handedOut = async (call: number) => {
      const { jobs, remaining } = await store().reserve("large", "me", call, claim(10));
      return { ids: jobs.flat().map(({ id }) => id), remaining };
    };
    expect(await handedOut(1)).toEqual({ ids: ["huge"], remaining: true });
    expect(await handedOut(2)).toEqual({ ids: ["a", "b", "c"], remaining: true });
    expect(await handedOut(3)).toEqual({ ids: ["d", "e"], remaining: false });
  });

  it("touch the queue's keys and no other, as a Redis user who may nothing else shows", async () => {
    const queue = "fenced-in";
    const keys = [...QUEUE_PARTS.map((part) => `~scripts:{${queue}}:${part}`), "~scripts:queue-names"];
    await redis.call("ACL", "SETUSER", "fenced", "reset", "on", ">secret", "+@all", "allchannels", ...keys);
    const user = new Redis({ path: server.socketPath, username: "fenced", password: "secret" });
    try {
      await expect(user.get("scripts:{other}:meta")).rejects.toThrow("NOPERM");
      await callEveryScript(new Store({ ...options, redis: user }), queue);
    } finally {
      user.disconnect();
    }
  });

  it("trim the dead letter by count and by age, the oldest first", async () => {
    let now = 1_800_000_000_000;
    const timed = new Store({
      redis,
      namespace: "scripts",
      defaultRetentionMs: 60_000,
      deadLetterMax: 3,
      deadLetterAgeMs: 10_000,
      clock: () => now,
    });
    const failure = { kind: "failed", error: Buffer.alloc(0), permanent: true, eventDetail: "" } as const;
    for (let i = 1; i <= 5; i++) {
      now += 1_000;
      await timed.put("dead", [job(`job-${i}`)]);
      const { jobs } = await timed.reserve("dead", "me", i, claim(1));
      await timed.release(
        "dead",
        jobs.flat().map((lease) => ({ lease, outcome: failure })),
      );
    }
    const left = async () => {
      await timed.sweep("dead");
      const ids = ["job-1", "job-2", "job-3", "job-4", "job-5"];
      const views = await Promise.all(ids.map((id) => timed.get("dead", id)));
      return ids.filter((_, i) => views[i]?.state === "FAILED");
    };
    expect(await left()).toEqual(["job-3", "job-4", "job-5"]);
    // As the queue says, where it does.
    await timed.queues.update("dead", { deadLetterMax: 2, deadLetterAgeMs: 1_000_000 });
    expect(await left()).toEqual(["job-4", "job-5"]);
    await timed.queues.update("dead", { deadLetterMax: null, deadLetterAgeMs: null });
    now += 9_000;
    expect(await left()).toEqual(["job-5"]);
  });

  it("remove completed jobs in batches once their retention has ended", async () => {
    let now = 1_800_000_000_000;
    const timed = new Store({
      redis,
      namespace: "scripts",
      defaultRetentionMs: 1_000,
      deadLetterMax: 3,
      deadLetterAgeMs: 10_000,
      clock: () => now,
    });
    await timed.put(
      "kept",
      Array.from({ length: 700 }, (_, i) => job(`job-${i}`)),
    );
    const { jobs } = await timed.reserve("kept", "me", 1, claim(700));
    await timed.release(
      "kept",
      jobs.flat().map((lease) => ({ lease, outcome: { kind: "completed" } })),
    );
    now += 999;
    expect((await timed.sweep("kept")).more).toBe(false);
    expect(await redis.hlen("scripts:{kept}:spec")).toBe(700);
    now += 1;
    expect((await timed.sweep("kept")).more).toBe(true);
    expect((await timed.sweep("kept")).more).toBe(false);
    // What is left is of the queue, not of its jobs.
    const left = ["meta", "stats", "wake"].map((part) => `scripts:{kept}:${part}`);
    expect((await redis.keys("scripts:{kept}:*")).sort()).toEqual(left);
  });

  it("forget the last calls of brokers that are long gone", async () => {
    let now = 1_800_000_000_000;
    const timed = new Store({
      redis,
      namespace: "scripts",
      defaultRetentionMs: 1_000,
      deadLetterMax: 3,
      deadLetterAgeMs: 10_000,
      clock: () => now,
    });
    for (let i = 0; i < 80; i++) {
      await timed.put("callers", [job(`job-${i}`)]);
      await timed.reserve("callers", `broker-${i}`, 1, claim(1));
    }
    const callers = async () =>
      (await redis.hkeys("scripts:{callers}:meta")).filter((field) => field.startsWith("reserve:"));
    await timed.sweep("callers");
    expect(await callers()).toHaveLength(80);
    now += 600_001;
    await timed.sweep("callers");
    expect(await callers()).toEqual([]);
  });
});

/** Each verb once at least, with jobs and schedules that use everything. */
async function callEveryScript(store: Store, queue: string): Promise<void> {
  const run = new Set<string>();
  const called = async <T>(name: ScriptName, call: Promise<T>): Promise<T> => {
    run.add(name);
    return await call;
  };
  const fields = (n: number) => ({
    spec: Buffer.from("spec"),
    priority: 0,
    conflict: "replace" as const,
    concurrency: { key: "key", limit: 1 },
    unique: { key: `key-${n}`, until: "expiry" as const, expiresInMs: 60_000 },
  });
  const jobs = Array.from({ length: 6 }, (_, n) => ({ id: `job-${n}`, ...fields(n), delayMs: n === 5 ? 60_000 : 0 }));
  const plain = { id: "plain", spec: Buffer.from("spec"), priority: 0, conflict: "reject" } as const;
  await called("hand_over", store.handOver(queue, "hub", 1, [{ count: 1, leaseMs: 0, workerId: "w" }], [plain]));
  const { last } = await called("watch", store.watch(queue, undefined, 1, 60_000));
  await called("put", store.put(queue, jobs));
  const claim = { count: 3, leaseMs: 60_000, workerId: "w", availableByMs: Date.now() + 120_000 };
  const { jobs: taken } = await called("reserve", store.reserve(queue, "me", 1, [claim]));
  const leases = taken.flat();
  expect(leases).not.toEqual([]);
  await called("extend", store.extend(queue, leases, 1_000));
  const reports = leases.map((lease) => ({ lease, progress: { percent: 50, note: "half" } }));
  await called("report_progress", store.reportProgress(queue, reports));
  const error = Buffer.from("error");
  const outcome = { kind: "failed", error, permanent: true, eventDetail: "" } as const;
  await called(
    "release",
    store.release(
      queue,
      leases.map((lease) => ({ lease, outcome })),
      { announce: true },
    ),
  );
  await called("retry", store.retry(queue, ids(leases)));
  await called("cancel", store.cancel(queue, "job-1", error, ""));
  await called("delete", store.delete(queue, "job-2"));
  await called("get", store.get(queue, "job-1"));
  await called("states", store.states(queue, ["job-1", "job-3"]));
  await called("list", store.list(queue, "HELD", 10, undefined));
  await called("update_queue", store.queues.update(queue, { deadLetterMax: 0, mode: "recoverable" }));
  await called("requeue", store.queues.requeue(queue, 10));
  const due = { id: "schedule", revision: 0, definition: Buffer.from("definition"), startMs: 1 };
  const newSchedule = { ...due, skipOverlap: true, paused: false, nextTickMs: 1 };
  await called("put_schedule", store.schedules.put(queue, newSchedule, 10, 7));
  const { due: [first] = [] } = await called("sweep", store.sweep(queue));
  if (!first) throw new Error("a schedule is due");
  await called("postpone_schedule", store.schedules.postpone(first, 0));
  const tick = { nextTickMs: 2, leftOut: 0, nonce: 1 };
  await called("tick", store.schedules.tick(first, tick, [{ tickMs: 1, job: { id: "run", ...fields(10) } }]));
  await called("trigger_schedule", store.schedules.trigger(queue, "schedule", 7, 2, { id: "now", ...fields(11) }));
  await called("pause_schedule", store.schedules.pause(queue, "schedule", 7, true, undefined));
  await called("get_schedule", store.schedules.get(queue, "schedule"));
  await called("list_schedules", store.schedules.list(queue, 10, ""));
  await called("delete_schedule", store.schedules.delete(queue, "schedule"));
  await called("purge", store.queues.purge(queue, "READY", 10));
  await called("get_queue", store.queues.get(queue));
  expect((await store.watch(queue, last, 1_000, 60_000)).entries.length).toBeGreaterThan(5);
  expect([...run].sort()).toEqual([...SCRIPT_NAMES].sort());
}
