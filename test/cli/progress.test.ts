/** How far a job has come, from a command that says so to a person who looks. */
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ProgressLines } from "../../src/cli/progress-lines.ts";
import { BatonClient } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until, within } from "../support/wait.ts";
import { cli, startCli } from "./run-cli.ts";

let broker: TestBroker;
let client: BatonClient;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "baton-cli-"));
  broker = await startBroker();
  client = new BatonClient({ address: broker.address });
});

afterAll(async () => {
  client.close();
  await broker.stop();
  await rm(folder, { recursive: true });
});

const options = () => ({ env: { BATON_ADDR: broker.address } });
const baton = (...args: string[]) => cli(args, options());
const work = (queue: string, command: string, ...more: string[]) =>
  startCli(["work", queue, "--exec", command, "--once", ...more], options());
/** For a command that is to run until the file is there. */
const waitFor = (file: string) => `until [ -e ${join(folder, file)} ]; do sleep 0.02; done`;
const shown = async (queue: string) => (await client.get(queue, "1")).progress;

describe("a command of baton work that says how far it has come", () => {
  it("is heard by baton get, jobs and watch", async () => {
    const watching = startCli(["watch", "pages"], options());
    await until(() => watching.stderr().includes("watching"), { what: "the watch", withinMs: 10_000 });
    await client.put({ queue: "pages", id: "1" });
    const command = `echo "40 page 4 of 10" >&3; ${waitFor("read")}; printf '100%%' >&3; ${waitFor("all")}; echo ok`;
    const working = work("pages", command);
    await until(async () => (await shown("pages"))?.percent === 40, { what: "the report", withinMs: 10_000 });
    expect((await baton("get", "pages", "1")).stdout).toMatch(/^progress +40 % {2}page 4 of 10$/m);
    const listed = (await baton("jobs", "pages", "--state", "reserved")).stdout;
    expect(listed).toMatch(/PROGRESS/);
    expect(listed).toMatch(/ 40 %$/m);
    await writeFile(join(folder, "read"), "");
    await writeFile(join(folder, "all"), "");
    expect(await within(working.finished, { what: "the command's end" })).toMatchObject({ code: 0, stderr: "" });
    expect((await client.get("pages", "1")).result?.text()).toBe("ok\n");
    await until(() => watching.stdout().includes("complete"), { what: "the events" });
    watching.child.kill("SIGINT");
    const { stdout } = await within(watching.finished, { what: "the watch to end" });
    expect(stdout).toMatch(/ {2}report {4}RESERVED by \S+, attempt 1: 40 % {2}page 4 of 10$/m);
    expect((await baton("get", "pages", "1")).stdout).not.toMatch(/^progress/m);
  });

  it("is told once when it says so in another way, and goes on", async () => {
    await client.put({ queue: "odd", id: "1" });
    const stages = ['echo "half way" >&3', waitFor("told"), 'echo "60\tbetter" >&3', waitFor("better"), "echo no >&3"];
    const working = work("odd", stages.join("; "));
    await until(() => working.stderr().includes("half way"), { what: "the complaint", withinMs: 10_000 });
    await writeFile(join(folder, "told"), "");
    await until(async () => (await shown("odd"))?.note === "better", { what: "the report" });
    await writeFile(join(folder, "better"), "");
    const { code, stderr } = await within(working.finished, { what: "the command's end" });
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: 'baton: progress of odd 1: write lines such as "40 page 4 of 10", not "half way"\n',
    });
  });

  it("may write as much as it likes, and what has no end is not kept", async () => {
    await client.put({ queue: "flood", id: "1" });
    const flood = "yes '7 again' | head -c 30000000 >&3; head -c 10000000 /dev/zero >&3; echo >&3; echo '99 last' >&3";
    const working = work("flood", `${flood}; ${waitFor("flood")}`);
    await until(async () => (await shown("flood"))?.percent === 99, { what: "the last", withinMs: 15_000 });
    await writeFile(join(folder, "flood"), "");
    expect((await within(working.finished, { what: "the command's end" })).code).toBe(0);
  }, 30_000);

  it("ends with its job although something that it left running keeps the pipe open", async () => {
    await client.put({ queue: "left", id: "1" });
    const ended = join(folder, "left-alone");
    const working = work("left", `(sleep 20; touch ${ended}) >/dev/null 2>&1 & echo "50" >&3; echo done`);
    expect(await within(working.finished, { what: "the job's end", withinMs: 10_000 })).toMatchObject({ code: 0 });
    await expect(access(ended)).rejects.toThrow();
    expect((await client.get("left", "1")).result?.text()).toBe("done\n");
  });
});

describe("lines of progress", () => {
  function read(...chunks: (string | Buffer)[]) {
    const heard: (string | readonly [number, string])[] = [];
    const lines = new ProgressLines({
      onProgress: (percent, note) => heard.push([percent, note]),
      onMalformed: (line) => heard.push(line),
    });
    for (const chunk of chunks) lines.add(Buffer.from(chunk));
    lines.end();
    return heard;
  }

  it.each<[string, readonly [number, string] | undefined]>([
    ["40", [40, ""]],
    ["0", [0, ""]],
    ["100%", [100, ""]],
    [" 7 % of all", [7, "of all"]],
    ["33.4 a  b", [33.4, "a  b"]],
    ["40 page 4\r", [40, "page 4"]],
    ["999 much", [999, "much"]],
    ["40 ä 😀", [40, "ä 😀"]],
    ["40page", undefined],
    ["-1", undefined],
    ["page 4", undefined],
    ["1e2", undefined],
  ])("%j", (line, expected) => {
    expect(read(`${line}\n`)).toEqual([expected ?? line]);
    expect(read(line), "without an end").toEqual([expected ?? line]);
  });

  it("may come in pieces, and of what comes at once the last counts", () => {
    const bytes = Buffer.from("40 ä\n");
    expect(read(...[...bytes].map((byte) => Buffer.from([byte])))).toEqual([[40, "ä"]]);
    expect(read("1 a\n2 b\n3 c\n4", " d\n\n", "5 e")).toEqual([
      [3, "c"],
      [5, "e"],
    ]);
  });

  it("that have no end are cut, and complained of once", () => {
    const long = "9 ".concat("x".repeat(10_000));
    const [first] = read(long, long, "\n");
    expect(first).toEqual([9, "x".repeat(2_046)]);
    expect(read("no\n", "no\n", "1\n", "no\n")).toEqual(["no", [1, ""]]);
  });
});
