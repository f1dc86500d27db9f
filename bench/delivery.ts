/**
 * From Put to delivery on an idle stream: each job is put while the worker waits, so the time is the doorbell's, not
 * the queue's. Puts come at a steady rate, whether or not the job before has arrived.
 */
import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { JobService, ReleaseRequestSchema, SubscribeRequestSchema } from "../gen/baton/v1/job_service_pb.js";
import { within } from "../test/support/wait.ts";
import { newJob } from "./support/jobs.ts";
import { LeanClient } from "./support/lean-client.ts";
import { percentile } from "./support/statistics.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const INTERVAL_MS = 10;
const QUEUE = "bench-delivery";
const MAX_OUTSTANDING = 100;
const ARRIVE_WITHIN_MS = 10_000;
const GOAL_P50_MS = 3;

export const delivery: Workload = {
  title: `Put to delivery on an idle stream, ${1_000 / INTERVAL_MS} puts a second`,
  run,
};

async function run({ broker, short }: Stage): Promise<Figure[]> {
  const client = new LeanClient(broker.address);
  const put = client.unary(JobService.method.put);
  const release = client.unary(JobService.method.release);
  /** id → when its job was put, and who waits for it. */
  const underWay = new Map<string, { putMs: number; arrived: (latencyMs: number) => void }>();
  const request = create(SubscribeRequestSchema, { queues: [{ name: QUEUE }], maxOutstanding: MAX_OUTSTANDING });
  const stream = client.stream(JobService.method.subscribe, request);
  const { promise: broken, reject: onBroken } = Promise.withResolvers<never>();
  stream.on("error", onBroken);
  stream.on("end", () => onBroken(new Error("the broker has ended the stream")));
  stream.on("data", ({ event }) => {
    const nowMs = performance.now();
    if (event.case !== "jobs") return;
    for (const { id, leaseToken } of event.value.jobs) {
      const job = underWay.get(id);
      underWay.delete(id);
      job?.arrived(nowMs - job.putMs);
      release(create(ReleaseRequestSchema, { leaseToken, outcome: { case: "completed", value: {} } })).catch(onBroken);
    }
  });

  function deliver(): Promise<number> {
    const job = newJob(QUEUE);
    return new Promise((resolve, reject) => {
      underWay.set(job.id, { putMs: performance.now(), arrived: resolve });
      put(job).catch(reject);
    });
  }

  async function deliverMany(jobs: number): Promise<number[]> {
    const latencies: Promise<number>[] = [];
    const startMs = performance.now();
    for (let n = 1; n <= jobs; n++) {
      latencies.push(deliver());
      await delay(Math.max(0, startMs + n * INTERVAL_MS - performance.now()));
    }
    const all = Promise.race([Promise.all(latencies), broken]);
    return within(all, { what: "all jobs to arrive", withinMs: ARRIVE_WITHIN_MS }).catch((error: unknown) => {
      throw new Error(`${underWay.size} of ${jobs} jobs have not arrived`, { cause: error });
    });
  }

  try {
    await deliverMany(200);
    const rounds = [];
    for (let round = 0; round < (short ? 3 : 5); round++) rounds.push(await deliverMany(short ? 300 : 1_000));
    return [
      {
        name: "p50",
        unit: "ms",
        rounds: rounds.map((latencies) => percentile(latencies, 0.5)),
        goal: { atMost: GOAL_P50_MS },
      },
      { name: "p99", unit: "ms", rounds: rounds.map((latencies) => percentile(latencies, 0.99)) },
    ];
  } finally {
    // Ending the stream is an error to it, which nobody needs to hear of any more.
    broken.catch(() => {});
    stream.cancel();
    client.close();
  }
}
