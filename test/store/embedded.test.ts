import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, statSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type EmbeddedRedis, startEmbeddedRedis } from "../../src/store/embedded.ts";
import { versionComplaint } from "../../src/store/embedded-binary.ts";
import { askRedis, infoField } from "../../src/store/embedded-probe.ts";
import { isAlive } from "../support/processes.ts";
import { redisServerBinary } from "../support/redis.ts";
import { until, within } from "../support/wait.ts";

type BrokerReport = { pid: number; redisPid?: number; socketPath?: string; error?: string };
type Broker = { readonly process: ChildProcess; readonly report: BrokerReport };

const BROKER_SCRIPT = fileURLToPath(new URL("embedded-broker.ts", import.meta.url));

let scratch = "";
let dataDir = "";
let logged: { level: string; message: string }[] = [];
const running: EmbeddedRedis[] = [];
const brokers: ChildProcess[] = [];
/** Every Redis that a test saw, so that none outlives the test, whatever fails. */
const redisPids = new Set<number>();

const log = {
  info: (message: string) => void logged.push({ level: "info", message }),
  warn: (message: string) => void logged.push({ level: "warn", message }),
  error: (message: string) => void logged.push({ level: "error", message }),
};

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "baton-test-"));
  dataDir = join(scratch, "data");
  logged = [];
});

afterEach(async () => {
  for (const redis of running.splice(0)) await redis.stop();
  for (const broker of brokers.splice(0)) broker.kill("SIGKILL");
  for (const pid of redisPids) if (isAlive(pid)) process.kill(pid, "SIGKILL");
  redisPids.clear();
  await rm(scratch, { recursive: true, force: true });
});

async function start(folder = dataDir): Promise<EmbeddedRedis> {
  const redis = await startEmbeddedRedis({ dataDir: folder, appendfsync: "always", log, install: false });
  running.push(redis);
  redisPids.add(redis.pid as number);
  return redis;
}

async function startBroker(folder = dataDir, ...flags: string[]): Promise<Broker> {
  const child = spawn(process.execPath, [BROKER_SCRIPT, folder, ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  brokers.push(child);
  const [line] = await within(once(createInterface({ input: child.stdout }), "line"), {
    what: "a broker to report",
    withinMs: 15_000,
  });
  const report = JSON.parse(line) as BrokerReport;
  if (report.redisPid !== undefined) redisPids.add(report.redisPid);
  return { process: child, report };
}

async function killBroker(broker: Broker): Promise<void> {
  const exited = once(broker.process, "exit");
  broker.process.kill("SIGKILL");
  await exited;
}

async function ask(socketPath: string, command: string): Promise<string> {
  const answer = await askRedis(socketPath, command, 2_000);
  return "text" in answer ? answer.text : answer.kind;
}

const set = (redis: { socketPath?: string }, value: string) => ask(redis.socketPath ?? "", `SET key ${value}`);
const get = (redis: { socketPath?: string }) => ask(redis.socketPath ?? "", "GET key");

const gone = (pid: number | undefined) =>
  until(() => pid !== undefined && !isAlive(pid), { what: `process ${pid} to end` });

describe("startEmbeddedRedis()", () => {
  it("starts a Redis that fsyncs every write, and ends it with stop()", async () => {
    const redis = await start();
    expect(await set(redis, "value")).toBe("OK");
    const config = await redisConfig(redis.socketPath);
    expect(config).toMatchObject({
      appendonly: "yes",
      appendfsync: "always",
      save: "",
      "maxmemory-policy": "noeviction",
    });
    const pid = redis.pid;
    await redis.stop();
    await redis.stop();
    expect(isAlive(pid as number)).toBe(false);
    expect(existsSync(redis.socketPath)).toBe(false);
  });

  it("keeps its data over stop and start", async () => {
    const first = await start();
    await set(first, "kept");
    await first.stop();
    expect(await get(await start())).toBe("kept");
  });

  it("opens no port, and lets nobody else into its folder", async () => {
    const redis = await start();
    expect(await redisConfig(redis.socketPath)).toMatchObject({ port: "0", "tls-port": "0" });
    expect(infoField(await ask(redis.socketPath, "INFO server"), "tcp_port")).toBe("0");
    expect(statSync(join(dataDir, "redis")).mode & 0o777).toBe(0o700);
    expect(statSync(redis.socketPath).mode & 0o777).toBe(0o700);
  });

  it("leaves the mode of a data folder alone that was there before", async () => {
    await mkdir(dataDir, { mode: 0o755 });
    await start();
    expect(statSync(dataDir).mode & 0o777).toBe(0o755);
  });

  it("works in a data folder too deep for a Unix socket, and leaves nothing in the temporary folder", async () => {
    const deep = join(dataDir, ...Array.from({ length: 6 }, () => "x".repeat(60)));
    const before = temporaryFolders();
    const first = await start(deep);
    expect(Buffer.byteLength(first.socketPath)).toBeLessThan(104);
    await set(first, "deep");
    await expect(start(deep)).rejects.toThrow(`is in use by the broker with pid ${process.pid}`);
    await first.stop();
    const second = await start(deep);
    expect(await get(second)).toBe("deep");
    await second.stop();
    expect(temporaryFolders()).toEqual(before);
  });

  it("knows a data folder by its real path, whatever symbolic link leads to it", async () => {
    await mkdir(dataDir);
    await symlink(dataDir, join(scratch, "alias"));
    await start();
    await expect(start(join(scratch, "alias"))).rejects.toThrow("is in use by the broker");
  });

  it("stops a start whose signal aborts, and leaves nothing behind", async () => {
    const aborted = AbortSignal.abort(new Error("not needed any more"));
    const attempt = startEmbeddedRedis({ dataDir, appendfsync: "no", log, install: false, signal: aborted });
    await expect(attempt).rejects.toThrow("not needed any more");
    expect(lockFiles()).toEqual([]);
    await start();
  });

  it("says what Redis said when Redis cannot start on the data", async () => {
    const first = await start();
    await set(first, "value");
    await first.stop();
    await writeFile(join(dataDir, "redis", "appendonlydir", "appendonly.aof.manifest"), "nonsense\n");
    await expect(start()).rejects.toThrow(/ended while it started:[\s\S]*manifest/);
    expect(lockFiles()).toEqual([]);
  });
});

describe("the lock on a data folder", () => {
  it("refuses a second broker, naming the folder and the pid of the first, which goes on", async () => {
    const first = await startBroker();
    const second = await startBroker();
    expect(second.report.error).toBe(
      `data folder ${dataDir} is in use by the broker with pid ${first.report.pid}: ` +
        "stop it, or give this one another --data-dir",
    );
    expect(await set(first.report, "value")).toBe("OK");
  });

  it("lets exactly one of several win that start at the same moment", async () => {
    const reports = (await Promise.all([1, 2, 3, 4].map(() => startBroker()))).map(({ report }) => report);
    expect(reports.filter(({ error }) => error === undefined)).toHaveLength(1);
    expect(lockFiles()).toHaveLength(1);
  });

  it("is free after kill -9 of its holder, and what it left is removed", async () => {
    await killBroker(await startBroker());
    expect(lockFiles()).toHaveLength(1);
    await start();
    expect(lockFiles()).toEqual([expect.stringContaining(`broker.${process.pid}.`)]);
  });
});

describe("after a crash", () => {
  it("of the broker, the next start ends the orphaned Redis, and finds its data", async () => {
    const broker = await startBroker();
    await set(broker.report, "survivor");
    await killBroker(broker);
    expect(isAlive(broker.report.redisPid as number)).toBe(true);

    const redis = await start();
    expect(isAlive(broker.report.redisPid as number)).toBe(false);
    expect(await get(redis)).toBe("survivor");
    expect(redis.pid).not.toBe(broker.report.redisPid);
  });

  it("of the broker, an orphan that hangs is ended too", async () => {
    const broker = await startBroker();
    await set(broker.report, "survivor");
    await killBroker(broker);
    process.kill(broker.report.redisPid as number, "SIGSTOP");
    expect(await get(await start())).toBe("survivor");
    expect(isAlive(broker.report.redisPid as number)).toBe(false);
  });

  it("of the broker, an orphan whose pid file is gone is found by its socket", async () => {
    const broker = await startBroker();
    await killBroker(broker);
    await rm(join(dataDir, "redis", "redis.pid"));
    await start();
    expect(isAlive(broker.report.redisPid as number)).toBe(false);
  });

  it("of the broker and its Redis, the stale socket is cleaned up, and the data is there", async () => {
    const broker = await startBroker();
    await set(broker.report, "survivor");
    await killBroker(broker);
    process.kill(broker.report.redisPid as number, "SIGKILL");
    await gone(broker.report.redisPid);
    expect(existsSync(broker.report.socketPath as string)).toBe(true);
    expect(await get(await start())).toBe("survivor");
  });

  it("a pid file that names another program's process does it no harm", async () => {
    const bystander = spawn("sleep", ["60"]);
    try {
      await mkdir(join(dataDir, "redis"), { recursive: true });
      await writeFile(join(dataDir, "redis", "redis.pid"), String(bystander.pid));
      await start();
      expect(isAlive(bystander.pid as number)).toBe(true);
    } finally {
      bystander.kill("SIGKILL");
    }
  });

  it("of Redis, it runs again on the same socket with its data, and the listeners are told", async () => {
    const redis = await start();
    await set(redis, "survivor");
    const exits: (string | null)[] = [];
    redis.onExit(({ signal }) => exits.push(signal));
    const crashed = redis.pid as number;
    process.kill(crashed, "SIGKILL");
    await until(() => redis.pid !== undefined && redis.pid !== crashed, { what: "another Redis" });
    redisPids.add(redis.pid as number);
    expect(await get(redis)).toBe("survivor");
    expect(exits).toEqual(["SIGKILL"]);
    expect(logged).toContainEqual({ level: "error", message: "the embedded Redis ended by itself: starting it again" });
  });

  it("of Redis, stop() during the wait for its next start ends the matter", async () => {
    const redis = await start();
    const told = new Promise<void>((resolve) => redis.onExit(() => resolve()));
    process.kill(redis.pid as number, "SIGKILL");
    await told;
    await within(redis.stop(), { what: "stop()" });
    expect(redis.pid).toBeUndefined();
    expect(lockFiles()).toEqual([]);
  });
});

describe("the end of the broker", () => {
  it("by SIGTERM ends Redis before the broker is gone", async () => {
    const broker = await startBroker();
    const exited = once(broker.process, "exit");
    broker.process.kill("SIGTERM");
    expect(await exited).toEqual([0, null]);
    expect(isAlive(broker.report.redisPid as number)).toBe(false);
  });

  it("by process.exit() ends Redis too", async () => {
    const broker = await startBroker(dataDir, "--exit");
    await gone(broker.report.redisPid);
  });
});

describe("finding a server", () => {
  it.each([
    ["Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0", undefined],
    ["Redis server v=8.2.1 sha=0", undefined],
    ["Valkey server v=8.1.1 sha=0", undefined],
    ["Server v=8.0.2 sha=0", undefined],
    ["Redis server v=6.2.7 sha=0", "/bin/server is Redis 6.2.7, and Baton needs 7.0 or later"],
    ["Server v=7.2.5 sha=0", "/bin/server is Valkey 7.2.5, and Baton needs 8.0 or later"],
    ["Segmentation fault", "/bin/server does not say its version"],
  ])("judges %j", (output, complaint) => {
    expect(versionComplaint("/bin/server", output)).toBe(complaint);
  });

  it("says what to type when there is none, and none may be installed", async () => {
    await withPath(["env"], async () => {
      await expect(start()).rejects.toThrow(
        "there is no redis-server or valkey-server on the PATH: install Redis 7.0 or later, or name one with BATON_REDIS_URL",
      );
    });
  });

  it("refuses one that is too old", async () => {
    await withPath([], async (folder) => {
      await writeFile(join(folder, "redis-server"), "#!/bin/sh\necho 'Redis server v=6.0.16 sha=0'\n", { mode: 0o755 });
      await expect(start()).rejects.toThrow(/Redis 6\.0\.16, and Baton needs 7\.0 or later: install Redis 7\.0/);
    });
  });

  it("installs one with the package manager that is there, when it may", async () => {
    const binary = redisServerBinary();
    await withPath([], async (folder) => {
      const script = `#!/bin/sh\n[ "$*" = "add redis" ] && /bin/ln -s "${binary}" "${folder}/redis-server"\n`;
      // A sudo for when the tests don't run as root: it may all that they may.
      await writeFile(join(folder, "sudo"), '#!/bin/sh\nshift\nexec "$@"\n', { mode: 0o755 });
      await writeFile(join(folder, "true"), "#!/bin/sh\n", { mode: 0o755 });
      await writeFile(join(folder, "apk"), script, { mode: 0o755 });
      const redis = await startEmbeddedRedis({ dataDir, appendfsync: "no", log, install: true });
      running.push(redis);
      expect(await set(redis, "value")).toBe("OK");
      const message = "there is no redis-server on the PATH: installing it with apk";
      expect(logged).toContainEqual({ level: "info", message });
    });
  });
});

describe("a socket that is no Redis", () => {
  it("counts as silent, not as an answer", async () => {
    const path = join(scratch, "mute.sock");
    const server = createServer(() => {}).listen(path);
    await once(server, "listening");
    expect(await askRedis(path, "PING", 50)).toEqual({ kind: "silent" });
    expect(await askRedis(join(scratch, "nothing.sock"), "PING", 50)).toEqual({ kind: "absent" });
    server.close();
  });
});

function lockFiles(): string[] {
  return readdirSync(join(dataDir, "redis")).filter((name) => name.startsWith("broker.") || name.startsWith("new."));
}

function temporaryFolders(): string[] {
  return readdirSync(tmpdir()).filter((name) => /^baton-[^-]{6}$/.test(name));
}

async function redisConfig(socketPath: string): Promise<Record<string, string>> {
  const client = new Redis(socketPath);
  try {
    const pairs = (await client.config("GET", "*")) as string[];
    return Object.fromEntries(
      pairs.flatMap((name, index) => (index % 2 === 0 ? [[name, pairs[index + 1] ?? ""]] : [])),
    );
  } finally {
    client.disconnect();
  }
}

/** Runs with a PATH that holds nothing but links to these programs. */
async function withPath(programs: readonly string[], body: (folder: string) => Promise<void>): Promise<void> {
  const folder = join(scratch, "bin");
  await mkdir(folder);
  for (const program of programs) await symlink(`/usr/bin/${program}`, join(folder, program));
  const before = process.env.PATH;
  process.env.PATH = folder;
  try {
    await body(folder);
  } finally {
    process.env.PATH = before;
  }
}
