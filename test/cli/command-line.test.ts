import { statSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { cli, LAUNCHER, runMain } from "./run-cli.ts";

const NAMES = [
  "serve",
  "put",
  "work",
  "await",
  "get",
  "jobs",
  "failed",
  "retry",
  "cancel",
  "delete",
  "watch",
  "queues",
  "pause",
  "resume",
  "requeue",
  "workers",
  "schedule",
  "help",
  "version",
];

const run = (argv: readonly string[], env: Record<string, string> = {}) => runMain(argv, { env });

describe("baton", () => {
  it.each([["--help"], ["-h"], ["help"]])("lists its commands with %s", async (...argv) => {
    const { code, stdout } = await run(argv);
    expect(code).toBe(0);
    for (const name of NAMES) expect(stdout).toMatch(new RegExp(`^ {2}baton ${name} `, "m"));
  });

  it.each(NAMES)("explains %s, in both ways", async (name) => {
    const { code, stdout } = await run([name, "--help"]);
    expect(code).toBe(0);
    expect(stdout.startsWith(`baton ${name}`)).toBe(true);
    expect((await run(["help", name])).stdout).toBe(stdout);
  });

  it.each([
    ...["put", "work", "await", "get", "jobs", "failed", "retry", "cancel", "delete", "watch"].map((name) => [name]),
    ...["pause", "resume", "requeue"].map((name) => [name]),
    ["queues show"],
    ["queues set"],
    ["queues purge"],
    ["workers quiet"],
    ["workers resume"],
    ...["put", "get", "list", "delete", "trigger", "pause", "resume"].map((word) => [`schedule ${word}`]),
  ])("explains %s with an example", async (name) => {
    const words = name.split(" ");
    const { code, stdout } = await run([...words, "--help"]);
    expect(code).toBe(0);
    expect(stdout.startsWith(`baton ${name} `)).toBe(true);
    expect(stdout).toMatch(/^Examples:\n {2}baton /m);
    expect((await run(["help", ...words])).stdout).toBe(stdout);
    if (words.length > 1) expect((await run([words[0] ?? "", "--help"])).stdout).toContain(`  baton ${name} `);
  });

  it("prints the version of its package", async () => {
    expect(await run(["--version"])).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  });

  it.each([
    [[], "write a command"],
    [["pt", "q"], "pt: there is no such command; did you mean put?"],
    [["put"], "write a queue: baton put QUEUE [TEXT | -]"],
    [["put", "q"], "write the payload as TEXT, or - to type it, or pipe it in"],
    [["put", "q", "two", "words"], "words: one payload only; put a TEXT with spaces in quotes"],
    [["put", "q", "x", "--dely", "5s"], "--dely: baton put has no such option; did you mean --delay?"],
    [["put", "q", "x", "--delay", "5"], "--delay 5: write a duration such as 500ms, 10s or 2m"],
    [["put", "q", "x", "--delay"], "--delay: write a duration"],
    [["put", "q", "x", "--delay", "1s", "--run-at", "2027-01-01T00:00:00Z"], "write --delay or --run-at, not both"],
    [["put", "q", "x", "--run-at", "tomorrow"], "--run-at tomorrow: write a time with its zone"],
    [["put", "q", "x", "--run-at", "2027-01-01T00:00:00"], "write a time with its zone"],
    [["put", "q", "x", "--priority", "10"], "--priority 10: write a whole number from 0 to 9"],
    [["put", "q", "x", "--header", "tenant"], "--header tenant: write a header such as tenant=acme"],
    [["put", "q", "x", "--on-conflict", "merge"], "--on-conflict merge: write reject, keep or replace"],
    [["put", "q", "x", "--addr", "here"], "--addr here: write host:port, such as 127.0.0.1:7711"],
    [["put", "q", "x", "--json=yes"], "--json takes no value"],
    [["put", "q", "x", "--concurrency-key", "k"], "--concurrency-key and --concurrency-limit: write both, or none"],
    [["put", "q", "x", "--concurrency-limit", "2"], "--concurrency-key and --concurrency-limit: write both, or none"],
    [["put", "q", "x", "--unique-for", "1h"], "--unique-until and --unique-for: write --unique-key, too"],
    [["put", "q", "x", "--unique-key", "k", "--unique-until", "expiry"], "write --unique-for, too"],
    [["put", "q", "x", "--backoff-curve", "linear"], "--backoff-curve linear: write exponential or exq"],
    [["get", "q"], "write one queue and one id: baton get QUEUE ID"],
    [["await", "q"], "write one queue and one id: baton await QUEUE ID"],
    [["await", "q", "1", "--wait", "1"], "--wait 1: write a duration"],
    [["cancel", "q"], "write one queue and one id: baton cancel QUEUE ID"],
    [["jobs"], "write one queue: baton jobs QUEUE"],
    [["jobs", "q", "--state", "done"], "--state done: write scheduled, ready, held"],
    [["failed", "q", "1"], "write one queue: baton failed QUEUE"],
    [["retry", "q"], "write a queue, and ids or --all"],
    [["retry", "q", "1", "--all"], "write a queue, and ids or --all"],
    [["watch"], "write at least one queue: baton watch QUEUE..."],
    [["watch", "a", "b", "--id", "1"], "--id: write one queue only"],
    [["queues", "mail"], "mail: write what to do: baton queues show|set|purge"],
    [["queues", "shw", "mail"], "did you mean baton queues show?"],
    [["queues", "--limit", "5", "mail"], "mail: write baton queues show mail for one queue"],
    [["queues", "show"], "write one queue: baton queues show QUEUE"],
    [["queues", "set", "q"], "write at least one setting, such as --retention 1h"],
    [["queues", "set", "q", "--default", "paused"], "--default paused: write mode, lease, retention"],
    [["queues", "set", "q", "--mode", "fast"], "--mode fast: write reliable, recoverable or simple"],
    [["queues", "purge", "q"], "--state: write at least one"],
    [["pause"], "write one queue: baton pause QUEUE"],
    [["resume", "a", "b"], "write one queue: baton resume QUEUE"],
    [["requeue", "q", "--limit", "0"], "--limit 0: write a whole number from 1"],
    [["workers", "--queue"], "--queue: write a queue"],
    [["workers", "quiet"], "write one worker: baton workers quiet WORKER"],
    [["schedule"], "write what to do: baton schedule put|get|list|delete|trigger|pause|resume"],
    [["schedule", "put", "q"], "write a queue and an id: baton schedule put QUEUE ID"],
    [["schedule", "put", "q", "s"], "write when, one of the two: --cron CRON or --every DURATION"],
    [["schedule", "put", "q", "s", "--cron", "* * * * *", "--every", "1m"], "one of the two: --cron CRON or --every"],
    [["schedule", "put", "q", "s", "--cron", "0", "8", "*"], "*: one payload only; put a TEXT, and a CRON, in quotes"],
    [["schedule", "put", "q", "s", "--every", "10ms"], "--every 10ms: write a duration"],
    [["schedule", "get", "q"], "write one queue and one schedule: baton schedule get QUEUE ID"],
    [["work", "q", "--exec", "cat", "--post-timeout", "1s"], "--post-timeout: write it with --url ADDRESS only"],
    [["delete", "q", "1", "2"], "write one queue and one id: baton delete QUEUE ID"],
    [["work", "--exec", "cat"], "write at least one queue"],
    [["work", "q"], "write what to do with each job, one of the two: --exec COMMAND or --url ADDRESS"],
    [["work", "q", "--exec", "cat", "--url", "http://h/"], "one of the two: --exec COMMAND or --url ADDRESS"],
    [["work", "q", "--exec", "cat", "--header", "a: b"], "--header: write it with --url ADDRESS only"],
    [["work", "q", "--url", "h/x"], "--url: write an address that begins with http:// or https://"],
    [["work", "q", "--url", "file:///etc/passwd"], "--url: write an address that begins with http:// or https://"],
    [["work", "q", "--url", "http://"], "--url: write an address that begins with http:// or https://"],
    [["work", "q", "--url", "http://h:99999/"], "--url: write an address that begins with http:// or https://"],
    [["work", "q", "--url", "http://a:%zz@h/"], "--url: write user and password in percent-encoding"],
    [["work", "q", "--url", "http://h/", "--post-timeout", "99ms"], "--post-timeout 99ms: write a duration"],
    [["work", "q", "--url", "http://h/", "--post-timeout", "2h"], "--post-timeout 2h: write a duration"],
    [["work", "q", "--url", "http://h/", "--header", "Bearer"], "--header: write 'NAME: VALUE' in ASCII on one line"],
    [
      ["work", "q", "--url", "http://h/", "--header", "a: b\r\nc: d"],
      "--header: write 'NAME: VALUE' in ASCII on one line",
    ],
    [["work", "q", "--url", "http://h/", "--header", "Host: x"], "--header host: Baton sets this one itself"],
    [["work", "q", "--url", "http://u@h/", "--header", "Authorization: x"], "write a user in the address of --url or"],
    [["work", "q", "--exec", "cat", "--concurrency", "0"], "--concurrency 0: write a whole number from 1"],
    [["serve", "--max-bach", "1"], "--max-bach: there is no such setting; did you mean --max-batch?"],
  ])("exits with 2 and says what to write for %j", async (argv, message) => {
    const { code, stdout, stderr } = await run(argv);
    expect(stderr).toContain(message);
    expect(stderr.startsWith("baton: ")).toBe(true);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
  });

  it("names BATON_ADDR when the mistake is there", async () => {
    const { code, stderr } = await run(["get", "q", "1"], { BATON_ADDR: "nowhere" });
    expect(code).toBe(2);
    expect(stderr).toContain("BATON_ADDR=nowhere: write host:port");
  });

  it.each([
    [["--url", "ftp://user:s3cret@h/s3cret"]],
    [["--url", "http://user:%s3cret@h/"]],
    [["--url", "http://h/", "--header", "Authorization Bearer s3cret"]],
    [["--url", "http://h/", "--header", "Authorization: Bearer s3cret\u0000"]],
    [["--url", "http://u:s3cret@h/", "--header", "Authorization: Bearer s3cret"]],
  ])("repeats no secret when it refuses %j", async (argv) => {
    const { code, stdout, stderr } = await run(["work", "q", ...argv]);
    expect(code).toBe(2);
    expect(stdout + stderr).not.toContain("s3cret");
  });

  it("exits with 1 and says what to do when no broker is there", async () => {
    const { code, stderr } = await run(["get", "q", "1", "--addr", "127.0.0.1:1", "--timeout", "300ms"]);
    expect(code).toBe(1);
    expect(stderr).toContain("baton: no broker answers at 127.0.0.1:1 (ECONNREFUSED)");
    expect(stderr).toContain("is a broker running there? baton serve starts one; --addr names another");
  });

  it("exits with 1 and says what to choose when the data folder cannot be one", async () => {
    const { code, stderr } = await run(["serve", "--grpc-addr", "127.0.0.1:0", "--data-dir", "/dev/null/data"]);
    expect(code).toBe(1);
    expect(stderr).toContain("the data folder /dev/null/data cannot be used (ENOTDIR): choose another --data-dir");
  });

  it("says so in JSON when asked for that", async () => {
    const { stderr } = await run(["get", "q", "1", "--addr", "127.0.0.1:1", "--timeout", "300ms", "--json"]);
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: "UNAVAILABLE", message: expect.any(String) } });
  });
});

describe("the launcher", () => {
  it("can be executed and starts the command line", async () => {
    expect(statSync(LAUNCHER).mode & 0o111).toBe(0o111);
    expect(await cli(["version"])).toMatchObject({ code: 0, stderr: "" });
    expect(await cli(["nonsense"])).toMatchObject({ code: 2, stdout: "" });
  });

  it("runs the built files where it is installed, because Node strips no types there", async () => {
    const folder = await mkdtemp(join(tmpdir(), "baton-launcher-"));
    try {
      const installed = join(folder, "node_modules", "baton");
      await mkdir(join(installed, "src", "cli"), { recursive: true });
      await mkdir(join(installed, "dist", "src", "cli"), { recursive: true });
      await writeFile(join(installed, "package.json"), '{ "type": "module" }');
      await copyFile(LAUNCHER, join(installed, "src", "cli", "baton.js"));
      const built = "export async function main(argv) { process.stdout.write(argv.join()); return 7; }";
      await writeFile(join(installed, "dist", "src", "cli", "main.js"), built);
      const launcher = join(installed, "src", "cli", "baton.js");
      expect(await cli(["a", "b"], { launcher })).toMatchObject({ code: 7, stdout: "a,b", stderr: "" });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
