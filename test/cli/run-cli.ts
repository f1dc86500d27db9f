/** Runs the command line: the real launcher in a process of its own, as a user does, or its main function in this one. */
import { type ChildProcess, spawn } from "node:child_process";
import { PassThrough } from "node:stream";
import { fileURLToPath } from "node:url";
import { main } from "../../src/cli/main.ts";
import { within } from "../support/wait.ts";

export const LAUNCHER = fileURLToPath(new URL("../../src/cli/baton.js", import.meta.url));

export type Finished = {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
};

export type Running = {
  readonly child: ChildProcess;
  /** What was written so far. */
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly finished: Promise<Finished>;
};

export type RunOptions = {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string | Uint8Array;
  readonly launcher?: string;
};

export function startCli(
  args: readonly string[],
  { env = {}, stdin = "", launcher = LAUNCHER }: RunOptions = {},
): Running {
  const child = spawn(process.execPath, [launcher, ...args], {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin.on("error", () => {});
  child.stdin.end(stdin);
  const finished = new Promise<Finished>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  return { child, stdout: () => stdout, stderr: () => stderr, finished };
}

export async function cli(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const { child, finished } = startCli(args, options);
  try {
    return await within(finished, { what: `baton ${args.join(" ")}`, withinMs: 15_000 });
  } finally {
    child.kill("SIGKILL");
  }
}

/** Runs a command line in this process, which takes a hundredth of the time; stdin is a terminal where none is given. */
export async function runMain(args: readonly string[], { env = {}, stdin }: RunOptions = {}) {
  const input = Object.assign(new PassThrough(), { isTTY: stdin === undefined });
  if (stdin !== undefined) input.end(stdin);
  const stdout = new PassThrough({ encoding: "utf8" });
  const stderr = new PassThrough({ encoding: "utf8" });
  const code = await within(main(args, { env, stdin: input, stdout, stderr }), { what: `baton ${args.join(" ")}` });
  return { code, stdout: String(stdout.read() ?? ""), stderr: String(stderr.read() ?? "") };
}
