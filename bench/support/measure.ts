/** Runs one of Baton's own workloads: sets its stage, runs its process, and clears everything away, also when it is interrupted. */
import { once } from "node:events";
import { join } from "node:path";
import { startRedis } from "../../test/support/redis.ts";
import { end, launch, startServerProcess } from "./node-process.ts";
import type { Figure, Stage } from "./workload.ts";

export type Measured = { readonly name: string; readonly title: string; readonly figures: readonly Figure[] };

export type MeasureOptions = {
  readonly short: boolean;
  readonly profileFolder?: string | undefined;
  readonly signal: AbortSignal;
};

const WORKLOAD_WITHIN_MS = 10 * 60_000;

export async function measure(name: string, { short, profileFolder, signal }: MeasureOptions): Promise<Measured> {
  const redis = await startRedis({ appendonly: true, appendfsync: "everysec" });
  try {
    signal.throwIfAborted();
    const broker = await startServerProcess({
      script: join("src", "cli", "baton.js"),
      args: ["serve", "--grpc-addr", "127.0.0.1:0", "--redis-url", redis.url],
      profileFolder,
    });
    try {
      const { address, pid } = broker;
      const { socketPath } = redis;
      const stage: Stage = { broker: { address, pid }, redis: { socketPath, pid: redis.pid }, short };
      return { name, ...(await runWorkload(name, stage, profileFolder, signal)) };
    } catch (error) {
      if (!signal.aborted) console.error(`the broker's last words:\n${broker.lastWords()}`);
      throw error;
    } finally {
      await broker.stop();
    }
  } finally {
    await redis.stop();
  }
}

async function runWorkload(
  name: string,
  stage: Stage,
  profileFolder: string | undefined,
  signal: AbortSignal,
): Promise<Omit<Measured, "name">> {
  signal.throwIfAborted();
  const script = join("bench", "support", "run-workload.ts");
  const child = launch({ script, args: [name, JSON.stringify(stage)], profileFolder }, "inherit");
  child.stdout?.pipe(process.stderr);
  let measured: Omit<Measured, "name"> | undefined;
  child.once("message", (message) => {
    measured = message as Omit<Measured, "name">;
  });
  const stop = AbortSignal.any([signal, AbortSignal.timeout(WORKLOAD_WITHIN_MS)]);
  try {
    const [code] = (await once(child, "exit", { signal: stop })) as [number | null];
    if (code !== 0 || !measured) throw new Error(`the workload ${name} has failed`);
    return measured;
  } catch (error) {
    // once() itself says only that it was aborted.
    throw stop.aborted ? stop.reason : error;
  } finally {
    await end(child);
  }
}
