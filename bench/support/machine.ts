/** Where figures were taken: without it they say little. */
import { execFile } from "node:child_process";
import { cpus, loadavg } from "node:os";
import { promisify } from "node:util";
import { redisServerBinary } from "../../test/support/redis.ts";

export type Machine = {
  readonly cpu: string;
  readonly cores: number;
  readonly node: string;
  readonly redis: string;
};

/** How many programs wanted to run in the last minute, on average. */
export function load(): number {
  return loadavg()[0] ?? 0;
}

export async function describeMachine(): Promise<Machine> {
  const { stdout } = await promisify(execFile)(redisServerBinary(), ["--version"], { timeout: 5_000 });
  const [first] = cpus();
  return {
    cpu: first?.model.trim() ?? "unknown",
    cores: cpus().length,
    node: process.versions.node,
    redis: /v=(\S+)/.exec(stdout)?.[1] ?? stdout.trim(),
  };
}
