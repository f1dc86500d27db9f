import { statSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { main } from "../../src/cli/main.ts";
import { cli, LAUNCHER } from "./run-cli.ts";

/** Runs a command line in this process. */
async function run(argv: readonly string[], env: Record<string, string> = {}) {
  const stdin = Object.assign(new PassThrough(), { isTTY: true });
  const stdout = new PassThrough({ encoding: "utf8" });
  const stderr = new PassThrough({ encoding: "utf8" });
  const code = await main(argv, { env, stdin, stdout, stderr });
  return { code, stdout: String(stdout.read() ?? ""), stderr: String(stderr.read() ?? "") };
}

describe("baton", () => {
  it.each([["--help"], ["-h"], ["help"]])("lists its commands with %s", async (...argv) => {
    const { code, stdout } = await run(argv);
    expect(code).toBe(0);
    for (const name of ["serve", "put", "work", "get", "delete", "version"]) expect(stdout).toContain(`baton ${name}`);
  });

  it.each(["serve", "put", "work", "get", "delete", "help", "version"])("explains %s, in both ways", async (name) => {
    const { code, stdout } = await run([name, "--help"]);
    expect(code).toBe(0);
    expect(stdout.startsWith(`baton ${name}`)).toBe(true);
    expect((await run(["help", name])).stdout).toBe(stdout);
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
    [["get", "q"], "write one queue and one id: baton get QUEUE ID"],
    [["delete", "q", "1", "2"], "write one queue and one id: baton delete QUEUE ID"],
    [["work", "--exec", "cat"], "write at least one queue"],
    [["work", "q"], "write what to run: --exec COMMAND"],
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
