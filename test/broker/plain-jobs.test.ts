import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/client.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until } from "../support/wait.ts";
import { openStream } from "./support.ts";

const JOBS = 300;
/** Sweeps, renewals and the list of workers, which come by the clock and not by the job. */
const BACKGROUND = 60;

describe("plain jobs", () => {
  let broker: TestBroker;
  let client: BatonClient;
  let redis: Redis;

  beforeAll(async () => {
    broker = await startBroker();
    client = new BatonClient({ address: broker.address });
    redis = new Redis(broker.redis.socketPath);
  });

  afterAll(async () => {
    client.close();
    redis.disconnect();
    await broker.stop();
  });

  /** How often the broker ran a script, and how often it read who is quiet, meanwhile. */
  async function counted(work: () => Promise<void>): Promise<{ scripts: number; quietReads: number }> {
    const before = await calls();
    await work();
    const after = await calls();
    return { scripts: after.scripts - before.scripts, quietReads: after.quietReads - before.quietReads };
  }

  async function calls(): Promise<{ scripts: number; quietReads: number }> {
    const stats = await redis.info("commandstats");
    const of = (command: string) => Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
    return { scripts: of("evalsha"), quietReads: of("zscan") };
  }

  it("cost one script for each Put, Reserve and Release, and nothing for the list of workers or for quiet ones", async () => {
    await client.put({ queue: "q", id: "first" });
    await client.queues.quiet("somebody else");
    const { scripts, quietReads } = await counted(async () => {
      for (let i = 0; i < JOBS; i++) {
        await client.put({ queue: "q", id: `${i}` });
        const [job] = await client.reserve({ queues: ["q"], workerId: "w" });
        await client.release(job?.leaseToken ?? "", { outcome: "completed" });
      }
    });
    expect(scripts).toBeGreaterThanOrEqual(3 * JOBS);
    expect(scripts).toBeLessThanOrEqual(3 * JOBS + BACKGROUND);
    expect(quietReads).toBeLessThanOrEqual(BACKGROUND);
  });

  it("that are handed out on a stream cost no script beyond those that reserve them", async () => {
    await client.putMany(Array.from({ length: JOBS }, (_, i) => ({ queue: "s", id: `${i}` })));
    const { scripts } = await counted(async () => {
      const stream = await openStream(client, { queues: ["s"], maxOutstanding: JOBS });
      await until(() => stream.jobs.length === JOBS, { what: "all jobs" });
      await stream.cut();
    });
    expect(scripts).toBeLessThanOrEqual(BACKGROUND);
  });
});
