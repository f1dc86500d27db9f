import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isAlive } from "../support/processes.ts";
import { eventOnce, until } from "../support/wait.ts";

const PROGRAM = new URL("../../bench/support/program.ts", import.meta.url).href;

/** Starts a program that has a child, says the ids of both, and waits to be killed. */
const BENCH = `
  const { startProgram } = await import(${JSON.stringify(PROGRAM)});
  const folder = process.argv[1];
  const script = 'sleep 600 & echo "$!" >child; echo ready; wait';
  const program = await startProgram("sh", ["-c", script], { folder, readyWhen: /ready/ });
  const { readFileSync } = await import("node:fs");
  console.log(program.pid + " " + readFileSync(folder + "/child", "utf8").trim());
  setInterval(() => {}, 1_000);`;

describe("startProgram()", () => {
  it("leaves no process and no folder when the bench is killed", async () => {
    const folder = await mkdtemp(join(tmpdir(), "baton-bench-test-"));
    const bench = spawn(process.execPath, ["--input-type=module", "-e", BENCH, folder], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [said] = await eventOnce(bench.stdout, "data", { withinMs: 10_000 });
    const pids = String(said).trim().split(" ").map(Number);
    expect(pids.filter(isAlive)).toHaveLength(2);
    bench.kill("SIGKILL");
    await until(() => !pids.some(isAlive), { what: "the program and its child to end" });
    await until(() => !existsSync(folder), { what: "the folder to be removed" });
  });
});
