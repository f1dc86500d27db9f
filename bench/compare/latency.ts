/**
 * From put to delivery, at a steady rate: jobs come while the worker waits, so the time is the way from one to the
 * other, and not the queue's.
 */
import { PAYLOAD_BYTES } from "../support/jobs.ts";
import { percentile } from "../support/statistics.ts";
import type { Comparison, ComparisonGoal, Measure, Size } from "./comparison.ts";
import type { Contender, Measured } from "./contender.ts";
import { queueNames, UNFINISHED } from "./load.ts";
import { paced } from "./rounds.ts";

const IDLE_PER_SECOND = 100;
/** Jobs come seldom, and a percentile needs many. */
const ROUNDS_LONGER = 3;
/** Of a round, so that a client's answer stays small. */
const MOST_JOBS = 50_000;
const SHARES = { p50: 0.5, p99: 0.99, "p99.9": 0.999 } as const;
const ONE_BY_ONE = { batch: 1, calls: 64, payloadBytes: PAYLOAD_BYTES };

type Shape = Pick<Comparison, "title" | "goals"> & {
  /** From the system's peak of jobs that are put one by one, as these are. */
  readonly rateOf: (peak: number) => number;
};

export function latencyIdle(goals: readonly ComparisonGoal[]): Comparison {
  return latency({
    title: () => `From put to delivery, ${IDLE_PER_SECOND} jobs/s`,
    goals,
    rateOf: () => IDLE_PER_SECOND,
  });
}

export const latencyHalf: Comparison = latency({
  title: () => "From put to delivery, at half of the system's own peak of jobs put one by one",
  goals: [],
  rateOf: (peak) => Math.max(IDLE_PER_SECOND, peak / 2),
});

/** Measured just before the latencies, of each system its own: so it is warm as well, which few jobs would not make it. */
async function peakOf({ do: perform }: Contender, size: Size): Promise<number> {
  const queues = queueNames(1);
  const round = await paced(size, ONE_BY_ONE, (jobs) =>
    perform({ op: "lifeCycle", queues, streams: 1, unfinished: UNFINISHED, jobs, ...ONE_BY_ONE }),
  );
  return (await round()).perSecond;
}

function latency({ title, goals, rateOf }: Shape): Comparison {
  return {
    title,
    durability: "everysec",
    needs: ["lifeCycle", "latency"],
    inTurns: true,
    goals,
    async prepare(contender, size) {
      const perSecond = rateOf(await peakOf(contender, size));
      const jobs = Math.min(MOST_JOBS, Math.round((perSecond * size.roundMs * ROUNDS_LONGER) / 1_000));
      const round = async (count: number) => {
        const measured = await contender.do({
          op: "latency",
          queue: "bench",
          perSecond,
          jobs: count,
          payloadBytes: PAYLOAD_BYTES,
        });
        return [...percentilesOf(measured), ...(perSecond === IDLE_PER_SECOND ? [] : [rateMeasure(measured)])];
      };
      await round(Math.ceil(jobs / ROUNDS_LONGER));
      return () => round(jobs);
    },
  };
}

function percentilesOf({ latenciesMs = [] }: Measured): Measure[] {
  return Object.entries(SHARES).map(([name, share]) => ({ name, unit: "ms", value: percentile(latenciesMs, share) }));
}

function rateMeasure({ perSecond }: Measured): Measure {
  return { name: "rate", unit: "jobs/s", value: perSecond };
}
