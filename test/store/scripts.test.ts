import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { BatonError } from "../../src/model/errors.ts";
import { QUEUE_PARTS } from "../../src/store/keys.ts";
import { loadScript, loadScripts, SCRIPT_NAMES } from "../../src/store/scripts.ts";
import { Store } from "../../src/store/store.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";

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
      "verb.lua": "#!lua flags=allow-oom\n-- @include b\n-- @include a\nreturn A + B\n",
      "lib/a.lua": "local A = 1\n",
      "lib/b.lua": "-- @include a\nlocal B = A + 1\n",
    });
    const { source } = loadScript("verb", folder);
    expect(source.startsWith("#!lua flags=allow-oom\n")).toBe(true);
    expect(source.match(/local A/g)).toHaveLength(1);
    expect(source.indexOf("local A")).toBeLessThan(source.indexOf("local B"));
    expect(source.indexOf("local B")).toBeLessThan(source.indexOf("return A + B"));
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
    expect(whole(name).match(/redis\.p?call/g), "one name for redis.call").toEqual(["redis.call"]);
    const keyless = ["TIME", "PUBLISH"];
    const keys = calls.filter(([, command = ""]) => !keyless.includes(command)).map(([, , key]) => key);
    expect(keys.length).toBeGreaterThan(5);
    // Names of lua/lib/queue.lua, or of a parameter that is given one of them.
    const declared = /^(SPEC|STATE|RESULT|WAKE|META|READY_SET|COMPLETED_SET|FAILED_SET|set|key)$/;
    expect(keys.filter((key) => !declared.test(key ?? ""))).toEqual([]);
  });

  it("gets as many keys as Lua has names for", () => {
    const named = [...whole("put").matchAll(/KEYS\[(\d+)\]/g)].map(([, n]) => Number(n));
    expect(named).toEqual(QUEUE_PARTS.map((_, i) => i + 1));
  });
});

describe("the scripts on a real Redis", () => {
  let server: TestRedis;
  let redis: Redis;

  beforeAll(async () => {
    server = await startRedis({ config: ["maxmemory-policy noeviction"] });
    redis = new Redis(server.socketPath);
  });

  afterAll(async () => {
    redis.disconnect();
    await server.stop();
  });

  afterEach(async () => {
    await redis.config("SET", "maxmemory", "0");
  });

  const store = () =>
    new Store({
      redis,
      namespace: "scripts",
      defaultRetentionMs: 60_000,
      deadLetterMax: 3,
      deadLetterAgeMs: 10_000,
    });
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
    expect((await redis.keys("scripts:{kept}:*")).sort()).toEqual(["scripts:{kept}:meta", "scripts:{kept}:wake"]);
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
    for (let i = 0; i < 40; i++) {
      await timed.put("callers", [job(`job-${i}`)]);
      await timed.reserve("callers", `broker-${i}`, 1, claim(1));
    }
    await timed.sweep("callers");
    expect(await redis.hlen("scripts:{callers}:meta")).toBe(41);
    now += 600_001;
    await timed.sweep("callers");
    expect(await redis.hlen("scripts:{callers}:meta")).toBe(1);
  });
});
