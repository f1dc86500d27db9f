/**
 * A server that is not a Node program: found, started, waited for and ended.
 *
 * It ends with the bench, however that ends: a guard beside it kills the server and removes its folder. It is in a
 * process group of its own, so that Ctrl-C reaches the bench alone, which then ends everything in order.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { createConnection } from "node:net";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { until, within } from "../../test/support/wait.ts";
import { Missing } from "../systems/system.ts";
import { startGuard } from "./guard.ts";
import { end } from "./node-process.ts";

export type StartProgramOptions = {
  /** It runs here. When the bench is killed the folder is removed; when it ends in order that is the caller's part. */
  readonly folder: string;
  /** A line of its stdout or stderr, or the port on 127.0.0.1 where it accepts connections. */
  readonly readyWhen: RegExp | number;
  /** Beside the environment of the bench. */
  readonly env?: Readonly<Record<string, string>>;
  /** Default 15 s. */
  readonly startWithinMs?: number;
  /** Told every line as it comes. */
  readonly onLine?: (line: string) => void;
};

export type Program = {
  readonly pid: number;
  /** The last lines that it wrote, stdout and stderr as they came. */
  lastWords(): string;
  /** SIGTERM, and SIGKILL when it takes too long. Harmless when it has ended already. */
  stop(): Promise<void>;
};

/** Where bench/install.sh puts what it builds. */
export const BUILT = fileURLToPath(new URL("../../.cache/bench/bin", import.meta.url));
/** Debian puts some servers here, which is not on the PATH of every user. */
const SYSTEM_FOLDERS = ["/usr/sbin", "/usr/local/sbin"];
const START_WITHIN_MS = 15_000;
const LAST_LINES = 20;
/** The process group, and the folder. */
const KILL_AND_REMOVE = 'kill -9 "-$0" 2>/dev/null; rm -rf "$1"';

/** Where programs are looked for when it is not said where. */
const anywhere = () => [BUILT, ...(process.env.PATH ?? "").split(delimiter), ...SYSTEM_FOLDERS];

/** The path of an installed program, from the first of these folders that has it; throws Missing when none has. */
export function findProgram(name: string, folders: readonly string[] = anywhere()): string {
  for (const folder of folders) {
    try {
      const path = join(folder, name);
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not here: look in the next folder.
    }
  }
  throw new Missing(`${name} is not installed: npm run bench -- --install`);
}

/** Resolves when it is ready. When it does not get there, no process is left, and the error holds its last words. */
export async function startProgram(
  command: string,
  args: readonly string[],
  { folder, readyWhen, env = {}, startWithinMs = START_WITHIN_MS, onLine }: StartProgramOptions,
): Promise<Program> {
  const child = spawn(command, args, {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const endGuard = child.pid === undefined ? () => {} : startGuard(KILL_AND_REMOVE, String(child.pid), folder);
  const lastLines: string[] = [];
  const { promise: ready, resolve, reject } = Promise.withResolvers<void>();
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      onLine?.(line);
      lastLines.push(line);
      if (lastLines.length > LAST_LINES) lastLines.shift();
      if (readyWhen instanceof RegExp && readyWhen.test(line)) resolve();
    });
  }
  child.once("error", reject);
  // Not "exit": at "close" its last words have been read too.
  child.once("close", (code, signal) => reject(new Error(`it ended (${signal ?? code})`)));
  const stop = async () => {
    await end(child);
    // What it has started itself, and left behind.
    killGroup(child);
    endGuard();
  };
  try {
    const waiting = typeof readyWhen === "number" ? Promise.race([ready, listening(readyWhen, startWithinMs)]) : ready;
    await within(waiting, { what: `${command} to be ready`, withinMs: startWithinMs });
    return { pid: child.pid as number, lastWords: () => lastLines.join("\n"), stop };
  } catch (error) {
    await stop();
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`${command} did not start: ${reason}\n${lastLines.join("\n")}`, { cause: error });
  }
}

/** What a program says of its version, when it is asked to; both outputs count. */
export async function outputOf(command: string, args: readonly string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const closed = new Promise<void>((resolve, reject) => child.once("error", reject).once("close", () => resolve()));
  try {
    await within(closed, { what: `${command} ${args.join(" ")}`, withinMs: START_WITHIN_MS });
  } finally {
    child.kill("SIGKILL");
  }
  return output.trim();
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // Nothing is left of the group.
  }
}

function listening(port: number, withinMs: number): Promise<unknown> {
  return until(() => accepts(port), { what: `port ${port} to accept connections`, withinMs });
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: "127.0.0.1", port });
    const finish = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => finish(true));
    socket.once("error", () => finish(false));
  });
}
