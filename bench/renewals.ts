/**
 * What it costs Redis that the broker keeps many leases of one queue, held on many streams: each is renewed every third of
 * its time.
 */
import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { JobService, PutManyRequestSchema } from "../gen/baton/v1/job_service_pb.js";
import { loadScripts } from "../src/store/scripts.ts";
import { until } from "../test/support/wait.ts";
import { newJob } from "./support/jobs.ts";
import { LeanClient } from "./support/lean-client.ts";
import { openWorker } from "./support/open-worker.ts";
import { type NotedRun, redisCommands } from "./support/redis-commands.ts";
import { median } from "./support/statistics.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const LEASES = 10_000;
const STREAMS = 100;
const LEASE_MS = 6_000;
/** Long enough for two periods. */
const ROUND_MS = (LEASE_MS / 3) * 2.5;
const BATCH = 1_000;
const QUEUE = "bench-renewals";
const GOAL_CALLS = LEASES / BATCH;

export const renewals: Workload = {
  title: `Renewals of ${LEASES.toLocaleString("en")} leases of one queue, held on ${STREAMS} streams`,
  run,
};

async function run({ broker, redis, short }: Stage): Promise<Figure[]> {
  const client = new LeanClient(broker.address);
  const commands = redisCommands(redis.socketPath);
  const putMany = client.unary(JobService.method.putMany);
  let held = 0;
  let failure: unknown;
  const { extend } = loadScripts();
  try {
    for (let n = 0; n < STREAMS; n++) {
      openWorker(client, {
        kind: "Work",
        queue: QUEUE,
        maxOutstanding: LEASES / STREAMS,
        leaseMs: LEASE_MS,
        onJobs: (jobs) => {
          held += jobs.length;
        },
        onFailure: (error) => {
          failure = error;
        },
      });
    }
    for (let put = 0; put < LEASES; put += BATCH) {
      await putMany(create(PutManyRequestSchema, { jobs: Array.from({ length: BATCH }, () => newJob(QUEUE)) }));
    }
    await until(() => held === LEASES, { what: "all leases to be held", withinMs: 30_000 });
    const rounds = [];
    for (let round = 0; round < (short ? 1 : 5); round++) {
      const noted = await commands.noteRuns(extend.sha);
      await delay(ROUND_MS);
      const runs = await noted.end();
      const periods = periodsOf(runs).map(({ length }) => length);
      rounds.push({ calls: median(periods), busyMs: median(runs.map(({ microseconds }) => microseconds)) / 1_000 });
    }
    if (failure !== undefined) throw failure;
    if (held !== LEASES) throw new Error("leases were lost, and their jobs handed out again");
    return [
      {
        name: "calls a period",
        unit: "calls",
        rounds: rounds.map(({ calls }) => calls),
        goal: { atMost: GOAL_CALLS },
      },
      { name: "Redis is busy with one", unit: "ms", rounds: rounds.map(({ busyMs }) => busyMs) },
    ];
  } finally {
    commands.close();
    client.close();
  }
}

/** What comes together belongs to one period: they are 2 s apart. */
function periodsOf(runs: readonly NotedRun[]): NotedRun[][] {
  const periods: NotedRun[][] = [];
  let last = Number.NEGATIVE_INFINITY;
  for (const run of runs) {
    if (run.atSeconds > last + 1) periods.push([]);
    periods.at(-1)?.push(run);
    last = run.atSeconds;
  }
  return periods;
}
