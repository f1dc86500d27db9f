/** All comparisons, in the order in which they run, and what Baton is to reach in them. */
import { lifeCycleWithBacklog } from "./backlog.ts";
import type { Comparison } from "./comparison.ts";
import { drain } from "./drain.ts";
import { dueDelays, dueRetries } from "./due.ts";
import { latencyHalf, latencyIdle } from "./latency.ts";
import { lifeCycle } from "./life-cycle.ts";
import { memory } from "./memory.ts";
import { put } from "./put.ts";
import { putMany } from "./put-many.ts";

const LARGE_BYTES = 4_096;
const RATE = "jobs/s";

export const COMPARISONS: Readonly<Record<string, Comparison>> = {
  "put-1": put({ concurrency: 1 }),
  "put-64": put({ concurrency: 64, goals: [{ label: RATE, over: "echo", goal: { atLeast: 0.85 } }] }),
  "put-64-4k": put({ concurrency: 64, payloadBytes: LARGE_BYTES }),
  "put-many": putMany({
    goals: [
      { label: RATE, over: "bullmq", goal: { atLeast: 1.5 } },
      { label: RATE, over: "beanstalkd", goal: { atLeast: 1 } },
    ],
  }),
  "put-many-4k": putMany({ payloadBytes: LARGE_BYTES }),
  "put-many-safest": putMany({ durability: "safest" }),
  "life-cycle": lifeCycle({
    goals: [
      { label: RATE, over: "bullmq", goal: { atLeast: 3 } },
      { label: RATE, over: "jetstream", goal: { atLeast: 1.5 } },
      { label: RATE, over: "beanstalkd", goal: { atLeast: 1.1 } },
      { label: RATE, over: "lua", goal: { atLeast: 0.55 } },
    ],
  }),
  "life-cycle-4k": lifeCycle({ payloadBytes: LARGE_BYTES }),
  "life-cycle-safest": lifeCycle({ durability: "safest" }),
  // A Work stream takes 64 queues at most.
  "life-cycle-100-queues": lifeCycle({ queues: 100, streams: 10 }),
  "life-cycle-1000-streams": lifeCycle({ streams: 1_000 }),
  "life-cycle-1m": lifeCycleWithBacklog([{ label: "ratio (waiting : none)", goal: { atLeast: 0.9 } }]),
  drain,
  "due-delays": dueDelays,
  "due-retries": dueRetries,
  "latency-idle": latencyIdle([
    { label: "ms (p50)", over: "bullmq", goal: { atMost: 1 } },
    { label: "ms (p99)", over: "bullmq", goal: { atMost: 1 } },
  ]),
  "latency-half": latencyHalf,
  memory: memory([{ label: "bytes/job", over: "bullmq", goal: { atMost: 0.6 } }]),
};

/** Those that have goals: what a short run is about. */
export function comparisonsWithGoals(): string[] {
  return Object.entries(COMPARISONS)
    .filter(([, { goals }]) => goals.length > 0)
    .map(([name]) => name);
}
