/**
 * What the next reservation costs when much waits: ready, scheduled, or held under one concurrency key. Each large queue
 * stands beside a small one of its kind, and they are asked in turns.
 */
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { ConcurrencySchema } from "../gen/baton/v1/job_pb.js";
import {
  JobService,
  PutManyRequestSchema,
  type PutRequest,
  ReleaseRequestSchema,
  ReserveRequestSchema,
} from "../gen/baton/v1/job_service_pb.js";
import { newJob } from "./support/jobs.ts";
import { LeanClient } from "./support/lean-client.ts";
import { percentile } from "./support/statistics.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const SMALL = 1_000;
const BATCH = 1_000;
const DAY_MS = 86_400_000;
const GOAL_RATIO = 1.5;

export const backlog: Workload = {
  title: `The next reservation with a long backlog, against one with ${SMALL.toLocaleString("en")}`,
  run,
};

type Kind = {
  readonly name: string;
  readonly jobs: (short: boolean) => number;
  readonly make: (queue: string) => PutRequest;
  /** A job that can be reserved at once, where the backlog itself cannot. */
  readonly next: "from the backlog" | "put";
};

const KINDS: readonly Kind[] = [
  { name: "ready", jobs: (short) => (short ? 50_000 : 1_000_000), make: newJob, next: "from the backlog" },
  {
    name: "scheduled",
    jobs: (short) => (short ? 50_000 : 1_000_000),
    make(queue) {
      const job = newJob(queue);
      job.start = { case: "delay", value: durationFromMs(DAY_MS) };
      return job;
    },
    next: "put",
  },
  {
    name: "held",
    jobs: (short) => (short ? 10_000 : 100_000),
    make(queue) {
      const job = newJob(queue);
      job.concurrency = create(ConcurrencySchema, { key: "one", limit: 1 });
      return job;
    },
    next: "from the backlog",
  },
];

async function run({ broker, short }: Stage): Promise<Figure[]> {
  const client = new LeanClient(broker.address);
  const put = client.unary(JobService.method.put);
  const putMany = client.unary(JobService.method.putMany);
  const reserve = client.unary(JobService.method.reserve);
  const release = client.unary(JobService.method.release);

  async function fill(queue: string, jobs: number, make: Kind["make"]): Promise<void> {
    for (let left = jobs; left > 0; left -= BATCH) {
      const batch = Array.from({ length: Math.min(left, BATCH) }, () => make(queue));
      const { results } = await putMany(create(PutManyRequestSchema, { jobs: batch }));
      if (results.some(({ result }) => result.case !== "job")) throw new Error("a job was not put");
    }
  }

  /** One reservation, in ms. */
  async function next(queue: string, { next }: Kind): Promise<number> {
    if (next === "put") await put(newJob(queue));
    const startMs = performance.now();
    const { jobs } = await reserve(create(ReserveRequestSchema, { queues: [{ name: queue }] }));
    const ms = performance.now() - startMs;
    const [job] = jobs;
    if (!job) throw new Error(`${queue} has handed out nothing`);
    const outcome = { case: "completed", value: {} } as const;
    await release(create(ReleaseRequestSchema, { leaseToken: job.leaseToken, outcome }));
    return ms;
  }

  try {
    const figures: Figure[] = [];
    for (const kind of KINDS) {
      const [small, large] = [`${kind.name}-small`, `${kind.name}-large`];
      await fill(small, SMALL, kind.make);
      await fill(large, kind.jobs(short), kind.make);
      // The first reservation of a queue with held jobs holds them.
      for (const queue of [small, large]) await next(queue, kind);
      const rounds = [];
      for (let round = 0; round < 5; round++) {
        const times: [number[], number[]] = [[], []];
        for (let i = 0; i < 100; i++) {
          times[0].push(await next(small, kind));
          times[1].push(await next(large, kind));
        }
        rounds.push(times.map((ms) => percentile(ms, 0.5)) as [number, number]);
      }
      const count = kind.jobs(short).toLocaleString("en");
      figures.push(
        { name: `${kind.name}, ${SMALL.toLocaleString("en")}`, unit: "ms", rounds: rounds.map(([ms]) => ms) },
        { name: `${kind.name}, ${count}`, unit: "ms", rounds: rounds.map(([, ms]) => ms) },
        {
          name: `${kind.name}, large : small`,
          unit: "ratio",
          rounds: rounds.map(([small, large]) => large / small),
          goal: { atMost: GOAL_RATIO },
        },
      );
    }
    return figures;
  } finally {
    client.close();
  }
}
