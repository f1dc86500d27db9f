/**
 * The folder of the embedded Redis: `redis` inside the data folder, for its owner alone, with the append-only file,
 * the socket and the lock in it.
 *
 * A Unix socket's path may have only about 100 bytes (104 on macOS, 108 on Linux, with the final NUL), and data folders
 * may be deeper. Then a symbolic link in a new private folder under the system's temporary folder stands for it: the
 * sockets are in the data folder all the same, where the next start finds them by any other path.
 */
import { chmod, lstat, lutimes, mkdir, mkdtemp, realpath, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export type RedisFolder = {
  /** The real path, without symbolic links. */
  readonly path: string;
  /** The same folder, short enough for sockets in it. */
  readonly shortPath: string;
  /** Removes the link, if there is one. The data stays. */
  close(): Promise<void>;
};

const MAX_SOCKET_PATH_BYTES = 103;
/** What the longest name of a socket in the folder may take (`/broker.<pid>.<random>.lock`). */
const LONGEST_SOCKET_NAME_BYTES = 40;
/** Systems that tidy up their temporary folder remove what nobody has touched for days (systemd: 10). */
const TOUCH_INTERVAL_MS = 6 * 60 * 60 * 1_000;

export async function openRedisFolder(dataDir: string): Promise<RedisFolder> {
  const wanted = join(resolve(dataDir), "redis");
  // Only what is created here gets this mode: a data folder that exists may be shared on purpose.
  await mkdir(wanted, { recursive: true, mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`the data folder ${dataDir} cannot be used (${error.code}): choose another --data-dir`);
  });
  await claim(wanted);
  const path = await realpath(wanted);
  if (Buffer.byteLength(path) + LONGEST_SOCKET_NAME_BYTES <= MAX_SOCKET_PATH_BYTES) {
    return { path, shortPath: path, close: async () => {} };
  }

  const temporary = await mkdtemp(join(tmpdir(), "baton-"));
  const link = join(temporary, "redis");
  if (Buffer.byteLength(link) + LONGEST_SOCKET_NAME_BYTES > MAX_SOCKET_PATH_BYTES) {
    await rm(temporary, { recursive: true, force: true });
    throw new Error(
      `the data folder ${dataDir} and the temporary folder ${tmpdir()} are both too deep for a Unix socket in them: ` +
        "choose a --data-dir of at most 60 bytes, or set TMPDIR to a shorter path",
    );
  }
  await symlink(path, link);
  const touch = setInterval(() => {
    const now = new Date();
    lutimes(link, now, now).catch(() => {});
  }, TOUCH_INTERVAL_MS);
  touch.unref();
  return {
    path,
    shortPath: link,
    async close() {
      clearInterval(touch);
      await rm(temporary, { recursive: true, force: true });
    },
  };
}

/** In a data folder where others may write, somebody could have laid a trap in place of our folder. */
async function claim(path: string): Promise<void> {
  const stats = await lstat(path);
  if (!stats.isDirectory()) throw new Error(`${path} is no folder: choose another --data-dir`);
  const user = process.geteuid?.();
  if (user !== undefined && stats.uid !== user && user !== 0) {
    throw new Error(`${path} belongs to another user (uid ${stats.uid}): choose another --data-dir`);
  }
  if ((stats.mode & 0o777) !== 0o700) await chmod(path, 0o700);
}
