/** A Node process of the benchmark's own: a server that says when it is ready, or a program that runs to its end. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { basename } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { within } from "../../test/support/wait.ts";

export type ProgramOptions = {
  /** From the project's top level, such as "src/cli/baton.js". */
  readonly script: string;
  readonly args: readonly string[];
  /** Where a CPU profile of it goes when it has ended; undefined: none is taken. */
  readonly profileFolder?: string | undefined;
};

export type ServerProcess = {
  readonly address: string;
  readonly pid: number;
  /** The last that it said, for when something has gone wrong. */
  lastWords(): string;
  stop(): Promise<void>;
};

const TOP = fileURLToPath(new URL("../..", import.meta.url));
const END_WITH_PARENT = new URL("./end-with-parent.ts", import.meta.url).href;
const COLLECT_GARBAGE = new URL("./collect-garbage.ts", import.meta.url).href;
const READY_WITHIN_MS = 15_000;
const STOP_WITHIN_MS = 15_000;
const LAST_LINES = 20;

/** Starts a program; the caller owns it. Its stdout is a pipe, on which nothing must be left unread. */
export function launch({ script, args, profileFolder }: ProgramOptions, stderr: "pipe" | "inherit"): ChildProcess {
  const profile =
    profileFolder === undefined
      ? []
      : ["--cpu-prof", `--cpu-prof-dir=${profileFolder}`, `--cpu-prof-name=${profileName(script)}`];
  return spawn(
    process.execPath,
    ["--import", END_WITH_PARENT, "--import", COLLECT_GARBAGE, ...profile, script, ...args],
    {
      cwd: TOP,
      // Settings come from the arguments alone, so that figures don't depend on whose shell this is.
      env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("BATON_"))),
      stdio: ["ignore", "pipe", stderr, "ipc"],
    },
  );
}

/** Waits for the line `NAME ready: grpc HOST:PORT`. When it does not come, no process is left, and it throws. */
export async function startServerProcess(options: ProgramOptions): Promise<ServerProcess> {
  const child = launch(options, "pipe");
  const lastLines: string[] = [];
  const { promise: ready, resolve, reject } = Promise.withResolvers<string>();
  for (const stream of [child.stdout, child.stderr]) {
    if (!stream) continue;
    createInterface({ input: stream }).on("line", (line) => {
      lastLines.push(line);
      if (lastLines.length > LAST_LINES) lastLines.shift();
      const address = /ready: grpc (\S+)/.exec(line)?.[1];
      if (address !== undefined) resolve(address);
    });
  }
  child.once("error", reject);
  child.once("exit", () => reject(new Error(`${options.script} ended:\n${lastLines.join("\n")}`)));
  try {
    const address = await within(ready, { what: `${options.script} to be ready`, withinMs: READY_WITHIN_MS });
    return { address, pid: child.pid as number, lastWords: () => lastLines.join("\n"), stop: () => end(child) };
  } catch (error) {
    await end(child);
    throw error;
  }
}

/** Asks it to end, and kills it when it takes too long. Harmless when it has ended already. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
  await exited;
  clearTimeout(timer);
}

function profileName(script: string): string {
  return `${basename(script).replace(/\.[jt]s$/, "")}.cpuprofile`;
}
