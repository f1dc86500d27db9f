/** Jobs put in batches, handed out and finished, producer and workers at once. */
import { PAYLOAD_BYTES } from "../support/jobs.ts";
import type { Durability } from "../systems/system.ts";
import type { Comparison, ComparisonGoal } from "./comparison.ts";
import { BATCHES, queueNames, UNFINISHED } from "./load.ts";
import { paced, speedOf } from "./rounds.ts";

type Shape = {
  readonly payloadBytes?: number;
  readonly durability?: Durability;
  readonly queues?: number;
  readonly streams?: number;
  readonly goals?: readonly ComparisonGoal[];
};

export function lifeCycle(shape: Shape): Comparison {
  const { payloadBytes = PAYLOAD_BYTES, durability = "everysec", queues = 1, streams = 1, goals = [] } = shape;
  const inQueues = `${queues} ${queues === 1 ? "queue" : "queues"}`;
  const byWorkers = `${streams.toLocaleString("en")} ${streams === 1 ? "worker" : "workers"}`;
  return {
    title: () =>
      `Life cycles in batches of ${BATCHES.batch}: ${inQueues}, ${byWorkers}, ${payloadBytes} bytes, ${durability}`,
    durability,
    needs: ["lifeCycle"],
    inTurns: true,
    goals,
    async prepare({ do: perform }, size) {
      const load = { ...BATCHES, payloadBytes };
      const names = queueNames(queues);
      const round = await paced(size, load, (jobs) =>
        perform({ op: "lifeCycle", queues: names, streams, unfinished: UNFINISHED, jobs, ...load }),
      );
      return speedOf(round);
    },
  };
}
