/** What a job that waits costs in Redis: all of its keys' growth, indexes and hash tables included. */
import { PAYLOAD_BYTES } from "../support/jobs.ts";
import type { Comparison, ComparisonGoal } from "./comparison.ts";
import { BATCHES, queueNames } from "./load.ts";

/** A hash table doubles at powers of two: by how far it is filled, a job costs more or less. This is in the middle. */
const JOBS = 100_000;
const WARM_UP_JOBS = 1_000;

export function memory(goals: readonly ComparisonGoal[]): Comparison {
  return {
    title: () => `Memory of Redis for ${JOBS.toLocaleString("en")} jobs that wait, ${PAYLOAD_BYTES} bytes`,
    durability: "everysec",
    needs: ["putMany"],
    needsRedis: true,
    except: { lua: "it is the same as with the broker" },
    inTurns: true,
    rounds: ({ short }) => (short ? 1 : 3),
    goals,
    async prepare({ do: perform, clear, redisBytes }) {
      if (!redisBytes) throw new Error("it has no Redis");
      const load = { ...BATCHES, payloadBytes: PAYLOAD_BYTES };
      const queues = queueNames(1);
      await perform({ op: "putMany", queues, jobs: WARM_UP_JOBS, ...load });
      return async () => {
        await clear();
        const before = await redisBytes();
        await perform({ op: "putMany", queues, jobs: JOBS, ...load });
        return [{ name: "", unit: "bytes/job", value: ((await redisBytes()) - before) / JOBS }];
      };
    },
  };
}
