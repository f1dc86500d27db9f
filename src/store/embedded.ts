/**
 * The private Redis of a broker that was told of no other: found or installed, on a Unix socket in its data folder,
 * started with the broker, started again when it crashes, ended with the broker.
 *
 * 1. The folder is opened and locked (embedded-folder, embedded-lock): a second broker on it is refused.
 * 2. A Redis that a killed broker left behind is ended cleanly (embedded-orphan), and what it wrote is kept.
 * 3. A server starts on the folder (embedded-binary, embedded-server), and loads its data.
 * 4. When it ends by itself, the next one starts on the same socket after a short wait, which doubles while starts
 *    fail. The broker's clients reconnect by themselves, so there is nothing else to do.
 * 5. stop() ends it, after its last flush, and gives up the lock.
 */
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../model/log.ts";
import { redisBinary } from "./embedded-binary.ts";
import { openRedisFolder, type RedisFolder } from "./embedded-folder.ts";
import { type FolderLock, lockFolder, removeUnannounced } from "./embedded-lock.ts";
import { endOrphan, forgetPid } from "./embedded-orphan.ts";
import {
  type Fsync,
  type RedisServer,
  type ServerExit,
  type ServerOptions,
  SOCKET_NAME,
  startServer,
} from "./embedded-server.ts";

export type EmbeddedRedisOptions = {
  readonly dataDir: string;
  readonly appendfsync: Fsync;
  readonly log: Logger;
  /** Whether a missing redis-server may be installed with the system's package manager. */
  readonly install: boolean;
  /** Aborts a start that takes long because there is much to load. */
  readonly signal?: AbortSignal;
};

export type EmbeddedRedis = {
  readonly socketPath: string;
  /** The server's process now; undefined while there is none. */
  readonly pid: number | undefined;
  /** Ends it. Harmless when repeated: every call resolves when it has ended. */
  stop(): Promise<void>;
  /** Is told of every end of the server that stop() did not ask for; it is being started again then. */
  onExit(listener: (exit: ServerExit) => void): void;
};

const MIN_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 5_000;
/** A server that ran so long was no failed start: the next wait is the shortest again. */
const STABLE_AFTER_MS = 10_000;

export async function startEmbeddedRedis(options: EmbeddedRedisOptions): Promise<EmbeddedRedis> {
  const { dataDir, appendfsync, log, install } = options;
  const folder = await openRedisFolder(dataDir);
  let lock: FolderLock | undefined;
  try {
    lock = await lockFolder(folder.shortPath, dataDir);
    await removeUnannounced(folder.shortPath);
    await endOrphan(folder.path, join(folder.shortPath, SOCKET_NAME), log);
    const binary = await redisBinary(install, log);
    const serverOptions = { binary, folder, appendfsync, log };
    const server = await startServer(serverOptions, options.signal ?? new AbortController().signal);
    log.info("the embedded Redis runs", { pid: server.pid, folder: folder.path, appendfsync });
    return new Supervisor(server, serverOptions, lock);
  } catch (error) {
    await lock?.release();
    await folder.close();
    throw error;
  }
}

class Supervisor implements EmbeddedRedis {
  readonly socketPath: string;
  readonly #options: ServerOptions;
  readonly #folder: RedisFolder;
  readonly #lock: FolderLock;
  readonly #listeners: ((exit: ServerExit) => void)[] = [];
  /** Aborts when stop() is called. */
  readonly #stopping = new AbortController();
  #server: RedisServer | undefined;
  readonly #supervision: Promise<void>;
  #stopped: Promise<void> | undefined;

  constructor(server: RedisServer, options: ServerOptions, lock: FolderLock) {
    this.#options = options;
    this.#folder = options.folder;
    this.#lock = lock;
    this.socketPath = join(options.folder.shortPath, SOCKET_NAME);
    this.#server = server;
    this.#supervision = this.#supervise(server);
  }

  get pid(): number | undefined {
    return this.#server?.pid;
  }

  onExit(listener: (exit: ServerExit) => void): void {
    this.#listeners.push(listener);
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#stopping.abort();
    await this.#server?.end();
    await this.#supervision;
    await forgetPid(this.#folder.path);
    await this.#lock.release();
    await this.#folder.close();
  }

  async #supervise(first: RedisServer): Promise<void> {
    let server: RedisServer | undefined = first;
    let backoffMs = MIN_BACKOFF_MS;
    while (server) {
      const startedAt = performance.now();
      const exit: ServerExit = await server.exited;
      this.#server = undefined;
      if (this.#stopping.signal.aborted) return;
      if (performance.now() - startedAt > STABLE_AFTER_MS) backoffMs = MIN_BACKOFF_MS;
      this.#options.log.error("the embedded Redis ended by itself: starting it again", {
        code: exit.code ?? undefined,
        signal: exit.signal ?? undefined,
        last_words: exit.lastWords,
        wait_ms: backoffMs,
      });
      for (const listener of this.#listeners) listener(exit);
      server = await this.#startAgain(backoffMs);
      this.#server = server;
      // stop() came at the very moment when it was ready, and so found no server to end.
      if (this.#stopping.signal.aborted) await server?.end();
      backoffMs = Math.min(backoffMs * 2, MAX_BACKOFF_MS);
    }
  }

  /** Tries until one runs; undefined when stop() was called meanwhile. */
  async #startAgain(firstWaitMs: number): Promise<RedisServer | undefined> {
    const { signal } = this.#stopping;
    for (let waitMs = firstWaitMs; !signal.aborted; waitMs = Math.min(waitMs * 2, MAX_BACKOFF_MS)) {
      try {
        await delay(waitMs, undefined, { signal });
        const server = await startServer(this.#options, signal);
        this.#options.log.info("the embedded Redis runs again", { pid: server.pid });
        return server;
      } catch (error) {
        if (!signal.aborted) this.#options.log.error("the embedded Redis does not start", { error: error as Error });
      }
    }
    return undefined;
  }
}
