/**
 * Runs a job's command: the payload on its stdin, the job in its environment, its stdout for the result.
 *
 * The command gets a process group of its own, for two reasons: Ctrl-C at the worker's terminal must not reach it (the
 * worker lets it finish), and a job that was taken away must end with all that it has started.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { Readable, type Writable } from "node:stream";
import { PermanentError, type WorkerJob } from "../client/index.ts";
import { ProgressLines, type ProgressListener } from "./progress-lines.ts";

type Command = ChildProcessByStdio<Writable, Readable, Readable>;

/** The broker's default for a result. */
const STDOUT_LIMIT_BYTES = 3 * 1024 * 1024;
/** The contract's limit on an error's message. */
const STDERR_KEPT_BYTES = 16 * 1024;
/** Between the wish to end and the end. */
const KILL_AFTER_MS = 5_000;
/** For output that is still on its way when the command has exited; what it left running may keep the pipe open. */
const CLOSE_WITHIN_MS = 1_000;
/** The exit status by which a command says that trying again is of no use. */
const PERMANENT_STATUS = 100;

/** The command ended otherwise than with 0. Its name becomes the type of the job's error: EXIT_3, SIGNAL_SIGKILL. */
export class CommandFailed extends Error {
  constructor(type: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = type;
  }
}

export type ExecOptions = {
  readonly signal: AbortSignal;
  readonly stderr: NodeJS.WritableStream;
  /** Hears what the command writes to PROGRESS_FD. */
  readonly progress: ProgressListener;
};

/** Where the command says how far it has come. */
const PROGRESS_FD = 3;

/** Gives what the command wrote to stdout; throws CommandFailed or PermanentError when it did not succeed. */
export async function exec(command: string, job: WorkerJob, options: ExecOptions): Promise<Buffer> {
  const { signal, stderr } = options;
  signal.throwIfAborted();
  const child = spawn("/bin/sh", ["-c", command], {
    detached: true,
    stdio: ["pipe", "pipe", "pipe", "pipe"],
    env: { ...process.env, ...environmentOf(job) },
  });
  const group = new ProcessGroup(child.pid);
  const end = () => group.end();
  signal.addEventListener("abort", end, { once: true });
  try {
    const stdout = new Collected(STDOUT_LIMIT_BYTES, end);
    const lastWords = new LastBytes(STDERR_KEPT_BYTES);
    child.stdout.on("data", (chunk: Buffer) => stdout.add(chunk));
    child.stderr.on("data", (chunk: Buffer) => {
      lastWords.add(chunk);
      stderr.write(chunk);
    });
    listen(child, new ProgressLines(options.progress));
    feed(child.stdin, job.payload.bytes());
    const ended = await exitOf(child);
    signal.throwIfAborted();
    if (stdout.overflowed) {
      const message = `the command wrote more than ${STDOUT_LIMIT_BYTES} bytes to stdout, the limit of a result`;
      throw new PermanentError(message, { type: "RESULT_TOO_LARGE" });
    }
    if (ended.code !== 0) throw failure(ended, lastWords.text());
    return stdout.bytes();
  } finally {
    signal.removeEventListener("abort", end);
    group.ended();
  }
}

type Ended = { readonly code: number | null; readonly signal: NodeJS.Signals | null };

function failure({ code, signal }: Ended, lastWords: string): Error {
  const what = signal === null ? `the command exited with ${code}` : `the command was ended by ${signal}`;
  const message = lastWords === "" ? what : lastWords;
  if (code === PERMANENT_STATUS) return new PermanentError(message, { type: `EXIT_${code}` });
  return new CommandFailed(signal === null ? `EXIT_${code}` : `SIGNAL_${signal}`, message);
}

/** The job in the command's environment. A header that no variable can hold (NUL) is in BATON_HEADERS only. */
export function environmentOf(job: WorkerJob): Record<string, string> {
  const env: Record<string, string> = {
    BATON_JOB_ID: job.id,
    BATON_QUEUE: job.queue,
    BATON_ATTEMPT: String(job.attempt),
    BATON_HEADERS: JSON.stringify(job.headers),
  };
  for (const [key, value] of Object.entries(job.headers)) {
    if (!value.includes("\0")) env[`BATON_HEADER_${key.toUpperCase().replace(/[^A-Z0-9]/g, "_")}`] = value;
  }
  return env;
}

function listen(child: Command, lines: ProgressLines): void {
  const said = child.stdio[PROGRESS_FD];
  if (!(said instanceof Readable)) return;
  said.on("data", (chunk: Buffer) => lines.add(chunk));
  said.on("end", () => lines.end());
  said.on("error", () => {});
}

function feed(stdin: Writable, payload: Uint8Array): void {
  // A command need not read its payload.
  stdin.on("error", () => {});
  stdin.end(payload);
}

/** Waits for the exit, and then for the rest of the output, which something left running may never end. */
function exitOf(child: Command): Promise<Ended> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    child.on("error", (error) => {
      reject(new CommandFailed("SPAWN_FAILED", `the command cannot be started: ${error.message}`, { cause: error }));
    });
    child.on("exit", (code, signal) => {
      timer = setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
        const said = child.stdio[PROGRESS_FD];
        if (said) said.destroy();
        resolve({ code, signal });
      }, CLOSE_WITHIN_MS);
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal });
    });
  });
}

/** The processes of one command, ended together: asked first, then made to. */
class ProcessGroup {
  readonly #pid: number | undefined;
  #killTimer: NodeJS.Timeout | undefined;

  constructor(pid: number | undefined) {
    this.#pid = pid;
  }

  end(): void {
    if (this.#killTimer !== undefined) return;
    this.#send("SIGTERM");
    this.#killTimer = setTimeout(() => this.#send("SIGKILL"), KILL_AFTER_MS);
  }

  /** The command has exited. What it started and was told to end, but has not, is made to now. */
  ended(): void {
    if (this.#killTimer === undefined) return;
    clearTimeout(this.#killTimer);
    this.#send("SIGKILL");
  }

  #send(signal: NodeJS.Signals): void {
    if (this.#pid === undefined) return;
    try {
      process.kill(-this.#pid, signal);
    } catch {
      // Nobody is left in the group.
    }
  }
}

/** Output up to a limit; the first byte beyond it calls `onOverflow`, once. */
class Collected {
  readonly #limit: number;
  readonly #onOverflow: () => void;
  readonly #chunks: Buffer[] = [];
  #size = 0;
  overflowed = false;

  constructor(limit: number, onOverflow: () => void) {
    this.#limit = limit;
    this.#onOverflow = onOverflow;
  }

  add(chunk: Buffer): void {
    if (this.overflowed) return;
    this.#size += chunk.length;
    if (this.#size <= this.#limit) {
      this.#chunks.push(chunk);
      return;
    }
    this.overflowed = true;
    this.#chunks.length = 0;
    this.#onOverflow();
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}

/** The end of an output of any length. */
class LastBytes {
  readonly #limit: number;
  #kept: Buffer = Buffer.alloc(0);

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(chunk: Buffer): void {
    this.#kept = Buffer.concat([this.#kept, chunk]).subarray(-this.#limit);
  }

  /** Without the part of a character that the cut may have left at the beginning. */
  text(): string {
    let start = 0;
    while (start < 4 && start < this.#kept.length && ((this.#kept[start] ?? 0) & 0xc0) === 0x80) start++;
    return this.#kept.toString("utf8", start).trim();
  }
}
