/** A full queue is emptied: its workers come when all jobs are there, and nothing is put any more. */
import { PAYLOAD_BYTES } from "../support/jobs.ts";
import type { Comparison } from "./comparison.ts";
import { BATCHES, queueNames } from "./load.ts";
import { paced, speedOf } from "./rounds.ts";

export const drain: Comparison = {
  title: () => `Drain of a full queue, ${PAYLOAD_BYTES} bytes`,
  durability: "everysec",
  needs: ["putMany", "drain"],
  inTurns: true,
  goals: [],
  async prepare({ do: perform }, size) {
    const load = { ...BATCHES, payloadBytes: PAYLOAD_BYTES };
    const queues = queueNames(1);
    const round = await paced(size, load, async (jobs) => {
      await perform({ op: "putMany", queues, jobs, ...load });
      return perform({ op: "drain", queues, streams: 1, jobs });
    });
    return speedOf(round);
  },
};
