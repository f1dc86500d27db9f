/**
 * Ends a Redis that a broker left behind when it was killed with -9.
 *
 * It is ended, not taken over: it may run with other settings (its fsync) or an older version than this broker asks
 * for, and a process that is not our child can be neither watched nor restarted. SIGTERM makes it flush its append-only
 * file, so nothing is lost, and its successor loads the file.
 *
 * It is found by the pid that its broker wrote down when it started it, if the process of that number still works in
 * this folder (pids are used again), and by its socket, for the case that the file is gone or that the two run in
 * different containers.
 */
import { execFile } from "node:child_process";
import { readFile, readlink, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import type { Logger } from "../model/log.ts";
import { askRedis, infoField } from "./embedded-probe.ts";

const run = promisify(execFile);

const PID_FILE = "redis.pid";
/** Long enough to flush to a slow disk; then SIGKILL, whose loss is what the fsync setting allows. */
const END_WITHIN_MS = 30_000;
const KILL_WITHIN_MS = 5_000;
const ANSWER_WITHIN_MS = 2_000;
const POLL_INTERVAL_MS = 20;

export async function rememberPid(folder: string, pid: number): Promise<void> {
  await writeFile(join(folder, PID_FILE), String(pid));
}

export async function forgetPid(folder: string): Promise<void> {
  await rm(join(folder, PID_FILE), { force: true });
}

export async function endOrphan(folder: string, socketPath: string, log: Logger): Promise<void> {
  const pid = (await findBySocket(folder, socketPath)) ?? (await findByPidFile(folder));
  if (pid !== undefined) await endProcess(pid, folder, log);
  // One in another container, whose pid means nothing here; or one that does not answer, and is not where we look.
  const answer = await askRedis(socketPath, "SHUTDOWN NOSAVE", END_WITHIN_MS);
  if (answer.kind !== "absent") await expectGone(socketPath, folder);
  await rm(socketPath, { force: true });
  await forgetPid(folder);
}

async function findBySocket(folder: string, socketPath: string): Promise<number | undefined> {
  const answer = await askRedis(socketPath, "INFO server", ANSWER_WITHIN_MS);
  if (answer.kind !== "text") return undefined;
  const pid = Number(infoField(answer.text, "process_id"));
  return (await worksIn(pid, folder)) ? pid : undefined;
}

async function findByPidFile(folder: string): Promise<number | undefined> {
  const text = await readFile(join(folder, PID_FILE), "utf8").catch(() => "");
  const pid = Number(text);
  return (await worksIn(pid, folder)) ? pid : undefined;
}

async function endProcess(pid: number, folder: string, log: Logger): Promise<void> {
  log.info("ending the Redis that an earlier broker left behind", { pid });
  send(pid, "SIGTERM");
  // It may have been suspended.
  send(pid, "SIGCONT");
  if (await isGone(pid, folder, END_WITHIN_MS)) return;
  log.warn("it does not end: killing it", { pid });
  send(pid, "SIGKILL");
  if (await isGone(pid, folder, KILL_WITHIN_MS)) return;
  throw new Error(`an earlier Redis (pid ${pid}) still runs on ${folder} and cannot be ended: end it by hand`);
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone meanwhile, or not ours to signal: the wait that follows tells.
  }
}

async function isGone(pid: number, folder: string, withinMs: number): Promise<boolean> {
  const deadline = performance.now() + withinMs;
  while (await worksIn(pid, folder)) {
    if (performance.now() > deadline) return false;
    await delay(POLL_INTERVAL_MS);
  }
  return true;
}

async function expectGone(socketPath: string, folder: string): Promise<void> {
  const deadline = performance.now() + END_WITHIN_MS;
  while ((await askRedis(socketPath, "PING", ANSWER_WITHIN_MS)).kind !== "absent") {
    if (performance.now() > deadline) {
      throw new Error(`an earlier Redis still runs on ${folder} and does not end: end it by hand`);
    }
    await delay(POLL_INTERVAL_MS);
  }
}

/** Whether the process lives and has the folder as its working directory, as every Redis of ours has. */
async function worksIn(pid: number, folder: string): Promise<boolean> {
  if (!Number.isSafeInteger(pid) || pid <= 1) return false;
  if (process.platform === "linux") {
    return (await readlink(`/proc/${pid}/cwd`).catch(() => undefined)) === folder;
  }
  const listing = await run("lsof", ["-a", "-p", String(pid), "-d", "cwd", "-Fn"]).catch(() => undefined);
  return listing?.stdout.split("\n").includes(`n${folder}`) ?? false;
}
