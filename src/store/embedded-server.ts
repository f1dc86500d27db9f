/** One process of the embedded Redis, from its start to its end. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../model/log.ts";
import type { RedisFolder } from "./embedded-folder.ts";
import { rememberPid } from "./embedded-orphan.ts";
import { askRedis, infoField } from "./embedded-probe.ts";

export type Fsync = "always" | "everysec" | "no";

export type ServerOptions = {
  readonly binary: string;
  readonly folder: RedisFolder;
  readonly appendfsync: Fsync;
  readonly log: Logger;
};

export type ServerExit = {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Its last lines of log, for the operator. */
  readonly lastWords: string;
};

export type RedisServer = {
  readonly pid: number | undefined;
  readonly exited: Promise<ServerExit>;
  /** Asks it to flush and end, and kills it when it takes too long. Harmless when repeated. */
  end(): Promise<void>;
};

export const SOCKET_NAME = "redis.sock";

const POLL_INTERVAL_MS = 15;
const ANSWER_WITHIN_MS = 5_000;
/** Without a word from it, not even LOADING. While it loads a large file it says so, and there is no limit. */
const SILENT_AT_MOST_MS = 60_000;
const PROGRESS_INTERVAL_MS = 5_000;
/** As Redis waits for its last fsync, which on a busy disk takes seconds. */
const END_WITHIN_MS = 20_000;
const LAST_LINES = 12;
const LAST_WORDS_WITHIN_MS = 200;
/** What every start and stop says, or (overcommit) what a private server need not trouble its user with. */
const CHATTER =
  /is starting oO|^Reading config from stdin|^(Redis|Valkey) version=|^Configuration loaded|overcommit_memory|^Server initialized|User requested shutdown|SIGTERM|bye bye/i;

/** Starts a server and waits until it answers. When it cannot, or the signal aborts, no process is left, and it throws. */
export async function startServer(options: ServerOptions, signal: AbortSignal): Promise<RedisServer> {
  signal.throwIfAborted();
  const server = launch(options);
  try {
    if (server.pid !== undefined) await rememberPid(options.folder.path, server.pid);
    await becomeReady(server, join(options.folder.shortPath, SOCKET_NAME), options.log, signal);
    return server;
  } catch (error) {
    await server.end();
    throw error;
  }
}

function launch({ binary, folder, appendfsync, log }: ServerOptions): RedisServer {
  const child = spawn(binary, ["-"], {
    cwd: folder.path,
    stdio: ["pipe", "pipe", "ignore"],
    // In a process group of its own: Ctrl-C in a terminal must reach the broker alone, which drains before Redis ends.
    detached: true,
  });
  // The end of stdin is the end of the configuration; a server that failed to start does not read it.
  child.stdin.on("error", () => {});
  child.stdin.end(configuration(appendfsync));
  const lines = collectLog(child, log);
  // An exit of the broker that no stop() came before, such as an uncaught error, still ends Redis, and cleanly.
  const endWithBroker = () => void child.kill("SIGTERM");
  process.once("exit", endWithBroker);
  const exited = new Promise<ServerExit>((resolve) => {
    child.once("error", (error) => resolve({ code: null, signal: null, lastWords: error.message }));
    child.once("exit", (code, signal) => {
      const tell = () => resolve({ code, signal, lastWords: lines.join("\n") });
      // Its last lines are still in the pipe, which closes with it, unless a forked child of its own keeps it open.
      const timer = setTimeout(tell, LAST_WORDS_WITHIN_MS);
      child.once("close", () => {
        clearTimeout(timer);
        tell();
      });
    });
  }).finally(() => process.removeListener("exit", endWithBroker));
  return { pid: child.pid, exited, end: () => end(child, exited, log) };
}

async function end(child: ChildProcess, exited: Promise<ServerExit>, log: Logger): Promise<void> {
  child.kill("SIGTERM");
  // It may have been suspended.
  child.kill("SIGCONT");
  const timer = setTimeout(() => {
    log.warn("the embedded Redis does not end: killing it", { pid: child.pid });
    child.kill("SIGKILL");
  }, END_WITHIN_MS);
  await exited;
  clearTimeout(timer);
}

async function becomeReady(server: RedisServer, socketPath: string, log: Logger, signal: AbortSignal): Promise<void> {
  let exit: ServerExit | undefined;
  void server.exited.then((value) => {
    exit = value;
  });
  let heardAt = performance.now();
  let saidAt = heardAt;
  for (;;) {
    const answer = await askRedis(socketPath, "PING", ANSWER_WITHIN_MS);
    signal.throwIfAborted();
    if (exit) throw new Error(`the embedded Redis ended while it started:\n${exit.lastWords}`);
    if (answer.kind === "text") return;
    const now = performance.now();
    if (answer.kind === "error") heardAt = now;
    if (now - heardAt > SILENT_AT_MOST_MS)
      throw new Error(`the embedded Redis gave no answer for ${SILENT_AT_MOST_MS} ms`);
    if (answer.kind === "error" && now - saidAt > PROGRESS_INTERVAL_MS) {
      saidAt = now;
      await sayProgress(socketPath, log);
    }
    await delay(POLL_INTERVAL_MS);
  }
}

async function sayProgress(socketPath: string, log: Logger): Promise<void> {
  const answer = await askRedis(socketPath, "INFO persistence", ANSWER_WITHIN_MS);
  if (answer.kind !== "text") return;
  log.info("the embedded Redis loads its data", {
    percent: infoField(answer.text, "loading_loaded_perc"),
    seconds_left: infoField(answer.text, "loading_eta_seconds"),
  });
}

/** Passes its warnings on, and keeps its last lines. A pipe and no log file: nothing grows. */
function collectLog(child: ChildProcess, log: Logger): string[] {
  const last: string[] = [];
  if (!child.stdout) return last;
  createInterface({ input: child.stdout }).on("line", (line) => {
    last.push(line);
    if (last.length > LAST_LINES) last.shift();
    const warning = / # (.*)$/.exec(line)?.[1];
    if (warning !== undefined && !CHATTER.test(warning)) log.warn("the embedded Redis says", { warning });
  });
  return last;
}

/**
 * The append-only file alone holds the data: no snapshots, which would only cost memory and disk beside it. Nothing is
 * ever evicted: a job that was accepted stays. What is removed is freed on another thread, so that the removal of a
 * large queue stops nobody. A hash is searched from its start while it has few fields: with Redis's own limit of 512 a job
 * cost 22 µs while 400 were running, with this one 17.
 */
function configuration(appendfsync: Fsync): string {
  return `${[
    "port 0",
    `unixsocket ${SOCKET_NAME}`,
    "unixsocketperm 700",
    "dir .",
    "daemonize no",
    "databases 1",
    "loglevel notice",
    'logfile ""',
    'save ""',
    "hash-max-listpack-entries 64",
    "appendonly yes",
    `appendfsync ${appendfsync}`,
    "maxmemory-policy noeviction",
    "lazyfree-lazy-expire yes",
    "lazyfree-lazy-server-del yes",
    "lazyfree-lazy-user-del yes",
    "lazyfree-lazy-user-flush yes",
  ].join("\n")}\n`;
}
