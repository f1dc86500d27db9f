/**
 * Whole life cycles: PutMany, Subscribe, ReleaseMany, all at once. A job counts when its release as completed has been
 * answered; a round ends when all of its jobs have.
 */
import { meterCpu } from "./support/cpu.ts";
import { Finished } from "./support/finished.ts";
import { PAYLOAD_BYTES } from "./support/jobs.ts";
import { LeanClient } from "./support/lean-client.ts";
import { BATCH, produce } from "./support/produce.ts";
import { redisCommands } from "./support/redis-commands.ts";
import { releaseMany } from "./support/workers.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const QUEUE = "bench-life-cycle";
const GOAL_PER_SECOND = 25_000;

export const lifeCycle: Workload = {
  title: `Whole life cycles: PutMany(${BATCH}), Subscribe, ReleaseMany, ${PAYLOAD_BYTES}-byte payloads`,
  run,
};

async function run({ broker, redis, short }: Stage): Promise<Figure[]> {
  const client = new LeanClient(broker.address);
  const commands = redisCommands(redis.socketPath);
  const pids = { client: process.pid, broker: broker.pid, Redis: redis.pid };
  const jobs = short ? 40_000 : 120_000;
  const finished = new Finished();
  const stop = releaseMany(client, QUEUE, finished);
  try {
    await produce(client, QUEUE, finished, jobs);
    const rounds = [];
    for (let round = 0; round < (short ? 5 : 9); round++) {
      await commands.clear();
      const meter = meterCpu(pids);
      const startMs = performance.now();
      await produce(client, QUEUE, finished, jobs);
      const elapsedMs = performance.now() - startMs;
      rounds.push({ perSecond: (jobs / elapsedMs) * 1_000, cpu: meter.perItem(jobs) });
    }
    return [
      {
        name: "life cycles",
        unit: "jobs/s",
        rounds: rounds.map(({ perSecond }) => perSecond),
        goal: { atLeast: GOAL_PER_SECOND },
      },
      { name: "CPU of the broker", unit: "µs/job", rounds: rounds.map(({ cpu }) => cpu.broker) },
      { name: "CPU of the client", unit: "µs/job", rounds: rounds.map(({ cpu }) => cpu.client) },
      { name: "CPU of Redis", unit: "µs/job", rounds: rounds.map(({ cpu }) => cpu.Redis) },
    ];
  } finally {
    stop();
    commands.close();
    client.close();
  }
}
