/**
 * Life cycles on one Work stream, against Subscribe with a Release for each job, and Subscribe with ReleaseMany. The
 * three run in turns, and the ratios are taken within each turn, so that whatever else the machine does meets all.
 */
import { meterCpu } from "./support/cpu.ts";
import { Finished } from "./support/finished.ts";
import { LeanClient } from "./support/lean-client.ts";
import { BATCH, produce } from "./support/produce.ts";
import { redisCommands } from "./support/redis-commands.ts";
import { releaseMany, releaseOneByOne, releaseOnWork, type StartWorker } from "./support/workers.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const RELEASE_CALLS = 64;
const GOAL_TO_RELEASE = 3;
const GOAL_TO_RELEASE_MANY = 1;

export const work: Workload = {
  title: `Life cycles with PutMany(${BATCH}): one Work stream, against Subscribe with Release or ReleaseMany`,
  run,
};

async function run({ broker, redis, short }: Stage): Promise<Figure[]> {
  const client = new LeanClient(broker.address);
  const commands = redisCommands(redis.socketPath);
  const pids = { client: process.pid, broker: broker.pid, Redis: redis.pid };

  async function turn(startWorker: StartWorker, jobs: number) {
    await commands.clear();
    const finished = new Finished();
    const queue = "bench-work";
    const stop = startWorker(client, queue, finished);
    try {
      const meter = meterCpu(pids);
      const startMs = performance.now();
      await produce(client, queue, finished, jobs);
      const perSecond = (jobs / (performance.now() - startMs)) * 1_000;
      return { perSecond, cpu: meter.perItem(jobs) };
    } finally {
      stop();
    }
  }

  async function round() {
    const one = await turn(releaseOneByOne(RELEASE_CALLS), short ? 10_000 : 30_000);
    const many = await turn(releaseMany, short ? 30_000 : 120_000);
    const onWork = await turn(releaseOnWork, short ? 30_000 : 120_000);
    return { one, many, onWork };
  }

  try {
    await round();
    const rounds: Awaited<ReturnType<typeof round>>[] = [];
    for (let n = 0; n < (short ? 5 : 9); n++) rounds.push(await round());
    const rate = (name: string, of: keyof (typeof rounds)[number]): Figure => {
      return { name, unit: "jobs/s", rounds: rounds.map((all) => all[of].perSecond) };
    };
    const ratio = (name: string, to: "one" | "many", atLeast: number): Figure => {
      const ratios = rounds.map((all) => all.onWork.perSecond / all[to].perSecond);
      return { name, unit: "ratio", rounds: ratios, goal: { atLeast } };
    };
    const cpu = (name: string, of: "many" | "onWork", pid: keyof typeof pids): Figure => {
      return { name, unit: "µs/job", rounds: rounds.map((all) => all[of].cpu[pid]) };
    };
    return [
      rate("Subscribe, Release", "one"),
      rate("Subscribe, ReleaseMany", "many"),
      rate("Work", "onWork"),
      ratio("Work : Release", "one", GOAL_TO_RELEASE),
      ratio("Work : ReleaseMany", "many", GOAL_TO_RELEASE_MANY),
      cpu("ReleaseMany: broker", "many", "broker"),
      cpu("ReleaseMany: client", "many", "client"),
      cpu("ReleaseMany: Redis", "many", "Redis"),
      cpu("Work: broker", "onWork", "broker"),
      cpu("Work: client", "onWork", "client"),
      cpu("Work: Redis", "onWork", "Redis"),
    ];
  } finally {
    commands.close();
    client.close();
  }
}
