/**
 * A private Redis for a test file: a real redis-server (or valkey-server) on a Unix socket in a folder of its own.
 *
 * It ends with the test, however that ends: beside the server runs a small shell that reads from a pipe which only
 * this process holds. When the process is gone, the pipe closes, and the shell kills the server and removes the folder.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, rmSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { until, within } from "./wait.ts";

export type TestRedisOptions = {
  /** Default false: nothing is written to disk. */
  readonly appendonly?: boolean;
  /** Default "everysec", which matters only with appendonly. */
  readonly appendfsync?: "always" | "everysec" | "no";
  /** More lines of redis.conf, such as "maxmemory 4mb". */
  readonly config?: readonly string[];
};

export type TestRedis = {
  readonly socketPath: string;
  /** As BATON_REDIS_URL takes it. */
  readonly url: string;
  readonly pid: number;
  /** Ends the server as SIGTERM does, and removes its folder. Harmless when repeated. */
  stop(): Promise<void>;
  /** SIGKILL: what a crash leaves behind stays, for restart(). */
  kill(): Promise<void>;
  /** Starts it again on the same socket and folder, after kill(), or after ending a running one cleanly. */
  restart(): Promise<void>;
  /** The server stops answering, its connections stay open (SIGSTOP), until resume(). */
  pause(): void;
  resume(): void;
};

const START_WITHIN_MS = 10_000;
const STOP_WITHIN_MS = 10_000;

export async function startRedis(options: TestRedisOptions = {}): Promise<TestRedis> {
  const folder = await mkdtemp(join(tmpdir(), "baton-redis-"));
  const socketPath = join(folder, "redis.sock");
  const guard = startGuard(folder);
  let server = await startServer(folder, options);
  let stopped = false;

  async function end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const exited = once(server, "exit");
    server.kill("SIGCONT");
    server.kill(signal);
    await within(exited, { what: "redis-server to end", withinMs: STOP_WITHIN_MS }).catch(async (error) => {
      server.kill("SIGKILL");
      await exited;
      throw error;
    });
    rmSync(join(folder, "pid"), { force: true });
  }

  return {
    socketPath,
    url: `unix://${socketPath}`,
    get pid() {
      return server.pid as number;
    },
    async stop() {
      if (stopped) return;
      stopped = true;
      await end("SIGTERM");
      guard.stdin?.end();
      await rm(folder, { recursive: true, force: true });
    },
    kill: () => end("SIGKILL"),
    async restart() {
      await end("SIGTERM");
      server = await startServer(folder, options);
    },
    pause: () => void server.kill("SIGSTOP"),
    resume: () => void server.kill("SIGCONT"),
  };
}

/** The first redis-server or valkey-server on the PATH. */
export function redisServerBinary(): string {
  for (const name of ["redis-server", "valkey-server"]) {
    for (const folder of (process.env.PATH ?? "").split(delimiter)) {
      try {
        const path = join(folder, name);
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not here: look in the next folder.
      }
    }
  }
  throw new Error("there is no redis-server on the PATH: run `sh test/setup.sh`");
}

async function startServer(folder: string, options: TestRedisOptions): Promise<ChildProcess> {
  const config = [
    "port 0",
    "unixsocket redis.sock",
    "unixsocketperm 700",
    `dir "${folder}"`,
    'save ""',
    `appendonly ${options.appendonly ? "yes" : "no"}`,
    `appendfsync ${options.appendfsync ?? "everysec"}`,
    ...(options.config ?? []),
  ];
  const server = spawn(redisServerBinary(), ["-"], {
    cwd: folder,
    stdio: ["pipe", "pipe", "inherit"],
    // In a process group of its own, so that Ctrl-C on the test run does not end it before the tests have cleaned up.
    detached: true,
  });
  let output = "";
  server.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
    output = (output + chunk).slice(-8_192);
  });
  if (server.pid !== undefined) writeFileSync(join(folder, "pid"), String(server.pid));
  server.stdin?.end(`${config.join("\n")}\n`);
  await until(
    () => {
      if (server.exitCode === null) return answers(join(folder, "redis.sock"));
      throw new Error(`redis-server ended:\n${output}`);
    },
    { what: "redis-server to answer PING", withinMs: START_WITHIN_MS },
  );
  return server;
}

function startGuard(folder: string): ChildProcess {
  const script = 'cat >/dev/null; [ -f "$0/pid" ] && kill -9 "$(cat "$0/pid")" 2>/dev/null; rm -rf "$0"';
  const guard = spawn("sh", ["-c", script, folder], { stdio: ["pipe", "ignore", "ignore"], detached: true });
  guard.unref();
  // The pipe must not keep the test's process alive either.
  if (guard.stdin && "unref" in guard.stdin && typeof guard.stdin.unref === "function") guard.stdin.unref();
  return guard;
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(socketPath, () => socket.write("PING\r\n"));
    const finish = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(1_000, () => finish(false));
    socket.once("data", (data) => finish(data.toString().startsWith("+PONG")));
    socket.once("error", () => finish(false));
  });
}
