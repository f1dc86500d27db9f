/** Jobs put in batches, while nobody takes them. */
import { PAYLOAD_BYTES } from "../support/jobs.ts";
import type { Durability } from "../systems/system.ts";
import type { Comparison, ComparisonGoal } from "./comparison.ts";
import { BATCHES } from "./load.ts";
import { paced, speedOf } from "./rounds.ts";

type Shape = {
  readonly payloadBytes?: number;
  readonly durability?: Durability;
  readonly goals?: readonly ComparisonGoal[];
};

export function putMany({ payloadBytes = PAYLOAD_BYTES, durability = "everysec", goals = [] }: Shape): Comparison {
  return {
    title: () =>
      `Put in batches of ${BATCHES.batch}, ${BATCHES.calls} batches at a time, ${payloadBytes} bytes, ${durability}`,
    durability,
    needs: ["putMany"],
    inTurns: true,
    goals,
    async prepare({ do: perform, clear }, size) {
      const load = { ...BATCHES, payloadBytes };
      const round = await paced(size, load, async (jobs) => {
        const measured = await perform({ op: "putMany", queues: ["bench"], jobs, ...load });
        await clear();
        return measured;
      });
      return speedOf(round);
    },
  };
}
