/** The bench's side of a client's process: operations go in on its stdin, answers come out on its stdout. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { within } from "../../test/support/wait.ts";
import type { Answer, Done, Operation } from "../systems/system.ts";
import { end } from "./node-process.ts";

export type ClientProgram = { readonly command: string; readonly args: readonly string[] };

export type ClientProcess = {
  readonly pid: number;
  /** One after the other. Rejects when the client cannot do it, or has ended, or takes too long. */
  do(operation: Operation): Promise<Done>;
  /** Harmless when it has ended already. */
  stop(): Promise<void>;
};

export type StartClientOptions = {
  /** Where a CPU profile of it goes, if it is a Node program; undefined: none is taken. */
  readonly profileFolder?: string | undefined;
  /** When it is aborted, what is under way rejects. */
  readonly signal: AbortSignal;
};

const TOP = fileURLToPath(new URL("../..", import.meta.url));
/** Bounds a client that hangs: even the slowest system puts a million jobs within this. */
const OPERATION_WITHIN_MS = 5 * 60_000;
/** With a profile to write. */
const STOP_WITHIN_MS = 10_000;
const LAST_LINES = 20;

export function startClient(program: ClientProgram, { profileFolder, signal }: StartClientOptions): ClientProcess {
  const child = spawn(program.command, [...profiling(program, profileFolder), ...program.args], {
    cwd: TOP,
    stdio: ["pipe", "pipe", "pipe"],
    // In a process group of its own, so that Ctrl-C reaches the bench alone, which then ends it in order.
    detached: true,
  });
  const lastLines: string[] = [];
  let onAnswer: (answer: Answer) => void = () => {};
  createInterface({ input: child.stdout }).on("line", (line) => onAnswer(answerOf(line)));
  createInterface({ input: child.stderr }).on("line", (line) => {
    lastLines.push(line);
    if (lastLines.length > LAST_LINES) lastLines.shift();
  });
  // What is written to a client that has ended is lost, and its end is told anyway.
  child.stdin.on("error", () => {});
  const { promise: over, reject: onOver } = Promise.withResolvers<never>();
  over.catch(() => {});
  child.once("error", onOver);
  child.once("close", () => onOver(new Error(["the client ended", ...lastLines].join("\n"))));
  const onAbort = () => onOver(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  child.once("close", () => signal.removeEventListener("abort", onAbort));

  return {
    get pid() {
      if (child.pid === undefined) throw new Error(`${program.command} could not be started`);
      return child.pid;
    },
    async do(operation) {
      const answered = new Promise<Answer>((resolve) => {
        onAnswer = resolve;
      });
      child.stdin.write(`${JSON.stringify(operation)}\n`);
      const what = `the client to ${operation.op}`;
      const answer = await within(Promise.race([answered, over]), { what, withinMs: OPERATION_WITHIN_MS });
      if (!answer.done) throw new Error(answer.error);
      return answer;
    },
    stop: () => stop(child),
  };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
    const exited = once(child, "exit");
    child.stdin?.end();
    // It ends with its stdin; a signal is for one that hangs.
    await within(exited, { what: "the client to end", withinMs: STOP_WITHIN_MS }).catch(() => end(child));
  }
}

function answerOf(line: string): Answer {
  try {
    return JSON.parse(line) as Answer;
  } catch {
    return { done: false, error: `the client says what is no answer: ${line}` };
  }
}

function profiling({ command }: ClientProgram, folder: string | undefined): string[] {
  if (folder === undefined || command !== process.execPath) return [];
  return ["--cpu-prof", `--cpu-prof-dir=${folder}`, "--cpu-prof-name=client.cpuprofile"];
}
