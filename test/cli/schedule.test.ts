import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { type RunOptions, runMain } from "./run-cli.ts";

let broker: TestBroker;
let client: BatonClient;

beforeAll(async () => {
  broker = await startBroker();
  client = new BatonClient({ address: broker.address });
});

afterAll(async () => {
  client.close();
  await broker.stop();
});

const baton = (args: readonly string[], options: RunOptions = {}) =>
  runMain(["schedule", ...args], { ...options, env: { BATON_ADDR: broker.address } });

describe("baton schedule", () => {
  it("puts, changes, shows and deletes a schedule", async () => {
    const args = ["put", "reports", "daily", "all", "--time-zone", "Europe/Berlin", "--max-attempts", "3"];
    const created = await baton([...args, "--cron", "0 8 * * mon-fri", "--unique-key", "one", "--header", "a=b"]);
    expect(created).toMatchObject({ code: 0, stderr: "" });
    expect(created.stdout).toMatch(/^created, runs next at \d{4}-\d\d-\d\dT0[67]:00:00\.000Z\n$/);
    const changed = await baton([...args, "--cron", "0 9 * * mon-fri", "--overlap", "skip"]);
    expect(changed.stdout).toMatch(/^changed, runs next at \S+T0[78]:00/);

    const { stdout } = await baton(["get", "reports", "daily"]);
    expect(stdout).toMatch(/^when +0 9 \* \* mon-fri$/m);
    expect(stdout).toMatch(/^time zone +Europe\/Berlin$/m);
    expect(stdout).toMatch(/^overlap +SKIP$/m);
    expect(stdout).toMatch(/^retry +max-attempts 3$/m);
    expect(stdout).toMatch(/^payload +all$/m);
    const shown = JSON.parse((await baton(["get", "reports", "daily", "--json"])).stdout);
    expect(shown).toMatchObject({ schedule: { cron: "0 9 * * mon-fri", template: { payload: { text: "all" } } } });

    expect((await baton(["delete", "reports", "daily"])).stdout).toBe("deleted\n");
    expect(await baton(["delete", "reports", "daily"])).toMatchObject({
      code: 0,
      stdout: "there was no such schedule\n",
    });
    expect(await baton(["get", "reports", "daily"])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("SCHEDULE_NOT_FOUND"),
    });
  });

  it("lists a queue's schedules, aligned, with their next runs", async () => {
    await baton(["put", "list", "b-with-a-long-name", "--every", "5m"]);
    await baton(["put", "list", "a", "--cron", "*/5 * * * *", "--paused"]);
    const [heading, first, second] = (await baton(["list", "list"])).stdout.trimEnd().split("\n");
    expect(heading).toMatch(/^ID +WHEN +TIME ZONE +NEXT RUN +LAST RUN +RUNS +SKIPPED$/);
    expect(first).toMatch(/^a +\*\/5 \* \* \* \* +UTC +paused +0 +0$/);
    expect(second).toMatch(/^b-with-a-long-name +every 5m +UTC +\S+Z +0 +0$/);
    expect((await baton(["list", "list", "--json"])).stdout.trimEnd().split("\n")).toHaveLength(2);
    expect(await baton(["list", "none"])).toMatchObject({ code: 0, stdout: "", stderr: "none has no schedules\n" });
  });

  it("triggers a run now, and pauses and resumes", async () => {
    await baton(["put", "now", "s", "-", "--every", "1h"], { stdin: "from stdin" });
    const id = (await baton(["trigger", "now", "s"])).stdout.trim();
    expect((await client.get("now", id)).payload.text()).toBe("from stdin");
    expect((await baton(["pause", "now", "s"])).stdout).toBe("paused\n");
    expect((await baton(["pause", "now", "s"])).stdout).toBe("it was paused already\n");
    expect((await baton(["resume", "now", "s", "--json"])).stdout).toBe('{"changed":true}\n');
    expect((await client.schedules.get("now", "s")).runs).toBe(1);
  });

  it("says in one sentence what is wrong with a time", async () => {
    for (const [option, value, field] of [
      ["--cron", "0 8 30 2 *", "schedule.cron"],
      ["--cron", "61 * * * *", "schedule.cron"],
    ] as const) {
      const { code, stderr } = await baton(["put", "bad", "s", option, value]);
      expect(code).toBe(1);
      expect(stderr).toContain(`  ${field}: `);
    }
    const zone = await baton(["put", "bad", "s", "--every", "1h", "--time-zone", "Europe/Atlantis"]);
    expect(zone.stderr).toContain("  schedule.time_zone: ");
  });
});
