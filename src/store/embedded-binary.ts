/** Finds a redis-server or valkey-server that is new enough, or installs one with the system's package manager. */
import { execFile, spawn } from "node:child_process";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import type { Logger } from "../model/log.ts";

const run = promisify(execFile);

const MIN_REDIS_VERSION = "7.0";
const MIN_VALKEY_VERSION = "8.0";
const VERSION_WITHIN_MS = 10_000;
const INSTALL_WITHIN_MS = 10 * 60 * 1_000;

type Installer = {
  readonly program: string;
  readonly asRoot: boolean;
  /** Commands in turn; of each, the first alternative that succeeds. */
  readonly steps: readonly (readonly (readonly string[])[])[];
  /** What a person would type. */
  readonly advice: string;
};

const INSTALLERS: readonly Installer[] = [
  {
    program: "apt-get",
    asRoot: true,
    steps: [
      [["apt-get", "update", "-q"]],
      [["apt-get", "install", "-q", "-y", "--no-install-recommends", "redis-server"]],
    ],
    advice: "apt-get update && apt-get install redis-server",
  },
  {
    program: "dnf",
    asRoot: true,
    steps: [
      [
        ["dnf", "install", "-y", "redis"],
        ["dnf", "install", "-y", "valkey"],
      ],
    ],
    advice: "dnf install redis (or valkey)",
  },
  { program: "apk", asRoot: true, steps: [[["apk", "add", "redis"]]], advice: "apk add redis" },
  { program: "brew", asRoot: false, steps: [[["brew", "install", "redis"]]], advice: "brew install redis" },
];

type Found = { readonly path: string } | { readonly tooOld: string | undefined };

/** The server's path. Throws an error that says what to type when there is none and none could be installed. */
export async function redisBinary(install: boolean, log: Logger): Promise<string> {
  const found = await findServer();
  if ("path" in found) return found.path;
  const installer = await findInstaller();
  const advice = `install Redis 7.0 or later${installer ? ` (${installer.advice})` : ""}, or name one with BATON_REDIS_URL`;
  if (found.tooOld !== undefined) throw new Error(`${found.tooOld}: ${advice}`);
  if (!install || !installer) throw new Error(`there is no redis-server or valkey-server on the PATH: ${advice}`);

  log.info(`there is no redis-server on the PATH: installing it with ${installer.program}`);
  const failure = await runInstaller(installer);
  const installed = await findServer();
  if ("path" in installed) return installed.path;
  throw new Error(`${installed.tooOld ?? failure ?? "redis-server is still not on the PATH"}: ${advice}`);
}

async function findServer(): Promise<Found> {
  let tooOld: string | undefined;
  for (const name of ["redis-server", "valkey-server"]) {
    const path = await findOnPath(name);
    if (path === undefined) continue;
    const complaint = await complainAboutVersion(path);
    if (complaint === undefined) return { path };
    tooOld ??= complaint;
  }
  return { tooOld };
}

/** What is wrong with this server's version; undefined when nothing is. */
async function complainAboutVersion(path: string): Promise<string | undefined> {
  let output: string;
  try {
    output = (await run(path, ["--version"], { timeout: VERSION_WITHIN_MS })).stdout;
  } catch (error) {
    return `${path} does not run (${(error as Error).message.split("\n")[0]})`;
  }
  return versionComplaint(path, output);
}

/** Redis says "Redis server v=7.0.15 …"; Valkey "Valkey server v=8.1.1 …" or "Server v=…", also as a redis-server. */
export function versionComplaint(path: string, output: string): string | undefined {
  const match = /^(.*)v=(\d+)\.(\d+)(\S*)/m.exec(output);
  if (!match) return `${path} does not say its version`;
  const [, product = "", major = "", minor = "", rest = ""] = match;
  const isRedis = product.startsWith("Redis");
  const least = isRedis ? MIN_REDIS_VERSION : MIN_VALKEY_VERSION;
  const [leastMajor = 0, leastMinor = 0] = least.split(".").map(Number);
  const isEnough = Number(major) > leastMajor || (Number(major) === leastMajor && Number(minor) >= leastMinor);
  if (isEnough) return undefined;
  return `${path} is ${isRedis ? "Redis" : "Valkey"} ${major}.${minor}${rest}, and Baton needs ${least} or later`;
}

async function findInstaller(): Promise<Installer | undefined> {
  for (const installer of INSTALLERS) {
    if ((await findOnPath(installer.program)) !== undefined) return installer;
  }
  return undefined;
}

/** Why it failed; undefined when it did not. */
async function runInstaller(installer: Installer): Promise<string | undefined> {
  const isRoot = process.geteuid?.() === 0;
  const prefix = installer.asRoot && !isRoot ? ["sudo", "-n"] : [];
  if (prefix.length > 0 && !(await succeeds(["sudo", "-n", "true"]))) {
    return "redis-server is missing, and installing it needs root or a sudo without password";
  }
  for (const alternatives of installer.steps) {
    let succeeded = false;
    for (const command of alternatives) {
      succeeded ||= await succeeds([...prefix, ...command]);
    }
    if (!succeeded) return `\`${alternatives.map((words) => words.join(" ")).join("` and `")}\` failed`;
  }
  return undefined;
}

/** Runs it with what it says going to stderr, for the operator; stdout belongs to the broker. */
function succeeds(command: readonly string[]): Promise<boolean> {
  const [program = "", ...words] = command;
  return new Promise((resolve) => {
    const child = spawn(program, words, {
      stdio: ["ignore", 2, 2],
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      timeout: INSTALL_WITHIN_MS,
    });
    child.once("error", () => resolve(false));
    child.once("exit", (code) => resolve(code === 0));
  });
}

async function findOnPath(name: string): Promise<string | undefined> {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(folder || ".", name);
    const isExecutable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isExecutable) return path;
  }
  return undefined;
}
