/**
 * Life cycles in an empty queue, and in one where a million jobs wait before those that are put meanwhile.
 */
import { PAYLOAD_BYTES } from "../support/jobs.ts";
import { median } from "../support/statistics.ts";
import type { Comparison, ComparisonGoal, Size } from "./comparison.ts";
import { BATCHES, queueNames, UNFINISHED } from "./load.ts";
import { paced, speed } from "./rounds.ts";

/** A full run is long enough without them. */
const TOO_SLOW = "putting a million jobs takes it minutes";
const EXCEPT = {
  echo: "it keeps nothing, so that nothing waits",
  lua: "what waits costs Redis the same as with the broker",
  faktory: TOO_SLOW,
  asynq: TOO_SLOW,
};

const waiting = ({ short }: Size) => (short ? 50_000 : 1_000_000);

export function lifeCycleWithBacklog(goals: readonly ComparisonGoal[]): Comparison {
  return {
    title: (size) => `Life cycles while ${waiting(size).toLocaleString("en")} jobs wait, beside none`,
    durability: "everysec",
    needs: ["putMany", "lifeCycle"],
    except: EXCEPT,
    // A million jobs of every system at once would not fit into a small machine.
    inTurns: false,
    goals,
    async prepare({ do: perform, settle }, size) {
      const load = { ...BATCHES, payloadBytes: PAYLOAD_BYTES };
      const queues = queueNames(1);
      const round = await paced(size, load, (jobs) =>
        perform({ op: "lifeCycle", queues, streams: 1, unfinished: UNFINISHED, jobs, ...load }),
      );
      const withNone: number[] = [];
      for (let n = 0; n < size.rounds; n++) withNone.push((await round()).perSecond);
      await perform({ op: "putMany", queues, jobs: waiting(size), ...load });
      // What it costs to have put them is not what it costs that they wait.
      await settle();
      let rounds = 0;
      return async () => {
        const measured = await round();
        return [
          ...speed(measured),
          { name: "with none", unit: "jobs/s", value: withNone[rounds++ % withNone.length] ?? 0 },
          { name: "waiting : none", unit: "ratio", value: measured.perSecond / median(withNone) },
        ];
      };
    },
  };
}
