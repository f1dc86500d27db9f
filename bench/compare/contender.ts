/** One system in a comparison: its server and its client, started together, measured together, and ended together. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isAlive } from "../../test/support/processes.ts";
import { startClient } from "../support/client-process.ts";
import { type CpuMeter, meterCpu } from "../support/cpu.ts";
import { startGuard } from "../support/guard.ts";
import { redisCommands } from "../support/redis-commands.ts";
import type { Done, Durability, Operation, System } from "../systems/system.ts";

/** Whose CPU time is told. */
export type Part = "broker" | "redis" | "client";

export type Measured = Done & {
  readonly perSecond: number;
  /** In µs for each job; what a system does not have is missing. */
  readonly cpu: Readonly<Partial<Record<Part, number>>>;
};

export type Contender = {
  readonly system: System;
  readonly version: string;
  /** In the system's own words. */
  readonly durability: string;
  do(operation: Operation): Promise<Measured>;
  /** Removes all jobs, so that each round begins with the same system. */
  clear(): Promise<void>;
  /** Its processes are stopped (SIGSTOP) while others have their turn: what idles on many threads would take part in it. */
  pause(): void;
  resume(): void;
  /** Until nothing of what was done is still being worked on in the background, as far as that can be known. */
  settle(): Promise<void>;
  /** Undefined when it has no Redis. */
  readonly redisBytes: (() => Promise<number>) | undefined;
  lastWords(): string;
  stop(): Promise<void>;
};

export type ContenderOptions = {
  readonly durability: Durability;
  readonly profileFolder?: string | undefined;
  readonly signal: AbortSignal;
};

/** When it does not start, nothing is left of it, and it throws. */
export async function startContender(
  system: System,
  { durability, profileFolder, signal }: ContenderOptions,
): Promise<Contender> {
  const folder = await mkdtemp(join(tmpdir(), `baton-bench-${system.name}-`));
  const endGuard = startGuard('rm -rf "$0"', folder);
  const ends: (() => Promise<unknown>)[] = [async () => endGuard(), () => rm(folder, { recursive: true, force: true })];
  /** Last started, first ended; one that does not end does not keep the others from it. */
  async function stop(): Promise<void> {
    const failures: unknown[] = [];
    for (let end = ends.pop(); end; end = ends.pop()) await end().catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  }
  try {
    const server = await system.start({ durability, folder, profileFolder });
    ends.push(server.stop);
    signal.throwIfAborted();
    const client = startClient(system.client(server), { profileFolder, signal });
    ends.push(client.stop);
    const redis = server.redisSocket === undefined ? undefined : redisCommands(server.redisSocket);
    if (redis) ends.push(async () => redis.close());
    const pids = { ...server.pids, client: client.pid };
    const signalAll = (signal: "SIGSTOP" | "SIGCONT") => {
      for (const pid of Object.values(pids)) if (pid !== undefined && isAlive(pid)) process.kill(pid, signal);
    };
    // What is stopped does not see the bench go.
    const endResumer = startGuard('kill -CONT "$0" "$@"', ...Object.values(pids).map(String));
    ends.push(
      async () => endResumer(),
      async () => signalAll("SIGCONT"),
    );
    /** Those that hold jobs. */
    const queues = new Set<string>();
    return {
      system,
      version: server.version,
      durability: server.durability,
      async do(operation) {
        for (const queue of "queue" in operation ? [operation.queue] : operation.queues) queues.add(queue);
        const meter = meterCpu(pids);
        return measured(await client.do(operation), meter);
      },
      async clear() {
        if (redis) await redis.clear();
        else if (queues.size > 0 && system.operations.has("clear"))
          await client.do({ op: "clear", queues: [...queues] });
        queues.clear();
      },
      pause: () => signalAll("SIGSTOP"),
      resume: () => signalAll("SIGCONT"),
      settle: async () => await redis?.settled(),
      redisBytes: redis?.usedBytes,
      lastWords: server.lastWords,
      stop,
    };
  } catch (error) {
    await stop().catch(() => {});
    throw error;
  }
}

function measured(done: Done, meter: CpuMeter<Partial<Record<Part, number>>>): Measured {
  return { ...done, perSecond: (done.jobs / done.elapsedMs) * 1_000, cpu: meter.perItem(done.jobs) };
}
