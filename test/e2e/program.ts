/** Runs other programs as a user's terminal does: with arguments, text in, text out, and an end that is waited for. */
import { type ChildProcess, spawn } from "node:child_process";
import { until, within } from "../support/wait.ts";

export type Ended = {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
};

export type Program = {
  readonly child: ChildProcess;
  /** What it wrote so far, both streams as a terminal shows them. */
  readonly output: () => string;
  readonly stdout: () => string;
  readonly ended: Promise<Ended>;
  /** Until its output contains or matches this. */
  saw(text: string | RegExp, withinMs?: number): Promise<void>;
  /** SIGKILL, and its end. Harmless when it has ended. */
  kill(): Promise<void>;
};

export type ProgramOptions = {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** stdin stays open for the test to write to; else it is empty. */
  readonly keepStdin?: boolean;
  /** In a process group of its own, so that a signal can go to all that it starts, as Ctrl-C does. */
  readonly group?: boolean;
};

const DEFAULT_WITHIN_MS = 20_000;

export function startProgram(path: string, args: readonly string[], options: ProgramOptions = {}): Program {
  const { env = {}, cwd, keepStdin = false, group = false } = options;
  const child = spawn(path, args, {
    cwd,
    detached: group,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    stdio: [keepStdin ? "pipe" : "ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  let output = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    output += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
    output += text;
  });
  child.stdin?.on("error", () => {});
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  return {
    child,
    output: () => output,
    stdout: () => stdout,
    ended,
    async saw(text, withinMs = DEFAULT_WITHIN_MS) {
      const seen = () => (typeof text === "string" ? output.includes(text) : text.test(output));
      try {
        await until(seen, { what: `${path} to say ${text}`, withinMs });
      } catch (error) {
        throw new Error(`${(error as Error).message}; it said:\n${output}`, { cause: error });
      }
    },
    async kill() {
      if (child.exitCode === null && child.signalCode === null) {
        if (group && child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
        else child.kill("SIGKILL");
      }
      await ended;
    },
  };
}

/** Until it has ended by itself. */
export async function runProgram(path: string, args: readonly string[], options: ProgramOptions = {}): Promise<Ended> {
  const program = startProgram(path, args, options);
  try {
    return await within(program.ended, { what: `${path} ${args.join(" ")}`, withinMs: DEFAULT_WITHIN_MS });
  } finally {
    await program.kill();
  }
}
