/** Jobs put in a call each, so many calls at a time, while nobody takes them. */
import { PAYLOAD_BYTES } from "../support/jobs.ts";
import type { Comparison, ComparisonGoal } from "./comparison.ts";
import { speedOf } from "./rounds.ts";

type Shape = {
  readonly concurrency: number;
  readonly payloadBytes?: number;
  readonly goals?: readonly ComparisonGoal[];
};

export function put({ concurrency, payloadBytes = PAYLOAD_BYTES, goals = [] }: Shape): Comparison {
  return {
    title: () => `Put one by one, ${concurrency} at a time, ${payloadBytes} bytes`,
    durability: "everysec",
    needs: ["put"],
    inTurns: true,
    goals,
    async prepare({ do: perform, clear }, { roundMs, warmUpMs }) {
      const round = async (durationMs: number) => {
        const measured = await perform({ op: "put", queue: "bench", concurrency, durationMs, payloadBytes });
        await clear();
        return measured;
      };
      await round(warmUpMs);
      return speedOf(() => round(roundMs));
    },
  };
}
