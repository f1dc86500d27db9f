/**
 * Many jobs that come due at one moment, while workers wait: delayed ones, and ones that have failed and are to be tried
 * again. The time runs from that moment until the last is finished.
 */
import { PAYLOAD_BYTES } from "../support/jobs.ts";
import type { Ability } from "../systems/system.ts";
import type { Comparison, Size } from "./comparison.ts";
import type { Contender, Measured } from "./contender.ts";
import { BATCHES, queueNames } from "./load.ts";
import { speed } from "./rounds.ts";

const mostJobs = ({ short }: Size) => (short ? 10_000 : 100_000);
/** A system has no more jobs than it can make to wait in this time: slow ones would need minutes for all rounds. */
const HOLD_BACK_MS = 4_000;
const WARM_UP_JOBS = 5_000;
/** Beyond the time that it should take to make them wait, and for the workers' start. */
const SPARE_MS = 2_000;
/** A system may slow down while its jobs become more. */
const SLOWER = 1.5;
const HOUR_MS = 3_600_000;
const LOAD = { ...BATCHES, payloadBytes: PAYLOAD_BYTES };
const QUEUES = queueNames(1);

type Perform = Contender["do"];

type Kind = {
  /** "delayed jobs" */
  readonly what: string;
  readonly needs: Ability;
  /** What can be done with so many jobs before it is known when they are due. */
  makeReady(perform: Perform, jobs: number): Promise<unknown>;
  /** Lets them wait until then. */
  holdBack(perform: Perform, jobs: number, dueAtMs: number): Promise<Measured>;
};

export const dueDelays = due({
  what: "delayed jobs",
  needs: "due",
  makeReady: async () => {},
  holdBack: (perform, jobs, dueAtMs) => perform({ op: "putMany", queues: QUEUES, jobs, dueAtMs, ...LOAD }),
});

export const dueRetries = due({
  what: "jobs that have failed once",
  needs: "retry",
  makeReady: (perform, jobs) => perform({ op: "putMany", queues: QUEUES, jobs, willFail: true, ...LOAD }),
  holdBack: (perform, jobs, retryAtMs) => perform({ op: "drain", queues: QUEUES, streams: 1, jobs, retryAtMs }),
});

function due({ what, needs, makeReady, holdBack }: Kind): Comparison {
  return {
    title: (size) => `Up to ${mostJobs(size).toLocaleString("en")} ${what} come due at one moment`,
    durability: "everysec",
    needs: ["putMany", "drain", needs],
    inTurns: true,
    goals: [],
    async prepare({ do: perform, clear }, size) {
      const warmUp = async () => {
        await makeReady(perform, WARM_UP_JOBS);
        return holdBack(perform, WARM_UP_JOBS, Date.now() + HOUR_MS);
      };
      await warmUp();
      let { perSecond } = await warmUp();
      await clear();
      return async () => {
        const jobs = Math.min(mostJobs(size), Math.round((perSecond * HOLD_BACK_MS) / 1_000));
        await makeReady(perform, jobs);
        const dueAtMs = Math.ceil(Date.now() + (jobs / perSecond) * 1_000 * SLOWER + SPARE_MS);
        ({ perSecond } = await holdBack(perform, jobs, dueAtMs));
        if (Date.now() >= dueAtMs) throw new Error("the first jobs were due before the last had been made to wait");
        const measured = await perform({ op: "drain", queues: QUEUES, streams: 1, jobs, fromMs: dueAtMs });
        if (measured.elapsedMs <= 0) throw new Error("the jobs were handed out before they were due");
        return speed(measured);
      };
    },
  };
}
