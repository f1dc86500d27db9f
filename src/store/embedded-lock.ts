/**
 * The lock on a data folder: at most one broker runs a Redis on it.
 *
 * A lock must die with its holder. A pid file does not: after a power loss it names a process that is somebody else
 * by now, and two starters that both find it stale can each remove the other's. Node has no flock. So the lock is a
 * listening Unix socket in the folder, one for each starter: the kernel stops listening when its process ends, however
 * it ends, and a connection then is refused. Files that were left behind mean nothing, and are removed.
 *
 * 1. Announce: listen on a socket under a name of no meaning, then rename it to `broker.<pid>.<random>.lock`. So whoever
 *    is seen under such a name and refuses connections is dead for good, never "about to listen".
 * 2. Look: connect to all the others. Dead ones are removed. If one lives, withdraw: it holds the lock, or is a rival
 *    at the same step.
 *
 * Both rivals announce before they look, so at least one of them sees the other: never do two hold the lock. When each
 * sees the other, both withdraw, and try again after a random time; a holder is still there after the last try.
 *
 * All of this works between containers that share the folder, and not between machines: it must be on a local disk.
 */
import { randomBytes, randomInt } from "node:crypto";
import { readdir, rename, rm } from "node:fs/promises";
import { createConnection, createServer, type Server } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

export type FolderLock = {
  /** Harmless when repeated. */
  release(): Promise<void>;
};

/** Rivals that start at the same moment get this many chances to get out of each other's way; at most 1.6 s in all. */
const MAX_TRIES = 8;
const MAX_PAUSE_MS = 200;

const LOCK_NAME = /^broker\.(\d+)\.[0-9a-f]+\.lock$/;
/** Sockets of starters that died between listening and announcing. */
const UNANNOUNCED_NAME = /^new\.[0-9a-f]+\.sock$/;

/**
 * Takes the lock, or throws.
 * @param folder a path short enough for Unix sockets in it
 * @param name the folder's name for people
 */
export async function lockFolder(folder: string, name: string): Promise<FolderLock> {
  for (let tries = 1; ; tries += 1) {
    const own = await announce(folder, name);
    const rival = await findRival(folder, own.file);
    if (rival === undefined) return own;
    await own.release();
    if (tries === MAX_TRIES) {
      throw new Error(
        `data folder ${name} is in use by the broker with pid ${rival}: stop it, or give this one another --data-dir`,
      );
    }
    await delay(randomInt(MAX_PAUSE_MS));
  }
}

async function announce(folder: string, name: string): Promise<FolderLock & { readonly file: string }> {
  const random = randomBytes(6).toString("hex");
  const file = `broker.${process.pid}.${random}.lock`;
  const listener = createServer((socket) => socket.destroy());
  try {
    await listen(listener, join(folder, `new.${random}.sock`));
    await rename(join(folder, `new.${random}.sock`), join(folder, file));
  } catch (error) {
    listener.close();
    throw new Error(
      `data folder ${name} cannot hold a Unix socket, which Baton's lock and Redis need: choose a --data-dir on a local disk`,
      { cause: error },
    );
  }
  return {
    file,
    async release() {
      await rm(join(folder, file), { force: true });
      if (listener.listening) await new Promise<void>((resolve) => listener.close(() => resolve()));
    },
  };
}

/** The pid of another starter or holder that lives; removes what dead ones left. */
async function findRival(folder: string, ownFile: string): Promise<string | undefined> {
  for (const file of await readdir(folder)) {
    const pid = LOCK_NAME.exec(file)?.[1];
    if (pid !== undefined && file !== ownFile) {
      if (await isListening(join(folder, file))) return pid;
      await rm(join(folder, file), { force: true });
    }
  }
  return undefined;
}

/** Removes unannounced sockets. Only for the holder: a rival that loses its socket this way fails to start. */
export async function removeUnannounced(folder: string): Promise<void> {
  for (const file of await readdir(folder)) {
    const path = join(folder, file);
    if (UNANNOUNCED_NAME.test(file) && !(await isListening(path))) await rm(path, { force: true });
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ path }, () => {
      server.removeListener("error", reject);
      // A failed accept (no file descriptor left) must not end the broker: the kernel goes on listening.
      server.on("error", () => {});
      server.unref();
      resolve();
    });
  });
}

/** Only what surely means "nobody listens" counts as that; any other trouble counts as a living holder. */
function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => {
      resolve(error.code !== "ECONNREFUSED" && error.code !== "ENOENT");
    });
  });
}
