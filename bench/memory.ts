/** What a job that waits costs in Redis: all of its keys' growth, indexes and hash tables included. */
import { create } from "@bufbuild/protobuf";
import { JobService, PutManyRequestSchema } from "../gen/baton/v1/job_service_pb.js";
import { newJob, PAYLOAD_BYTES } from "./support/jobs.ts";
import { LeanClient } from "./support/lean-client.ts";
import { redisCommands } from "./support/redis-commands.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const BATCH = 1_000;
/** A hash table doubles at powers of two: by how far it is filled, a job costs more or less. This is in the middle. */
const JOBS = 100_000;

export const memory: Workload = {
  title: `Memory of Redis for ${JOBS.toLocaleString("en")} jobs that wait, ${PAYLOAD_BYTES}-byte payloads, 36-byte ids`,
  run,
};

async function run({ broker, redis }: Stage): Promise<Figure[]> {
  const client = new LeanClient(broker.address);
  const commands = redisCommands(redis.socketPath);
  const putMany = client.unary(JobService.method.putMany);
  try {
    const before = await commands.usedBytes();
    for (let jobs = 0; jobs < JOBS; jobs += BATCH) {
      const batch = Array.from({ length: BATCH }, () => newJob("bench-memory"));
      const { results } = await putMany(create(PutManyRequestSchema, { jobs: batch }));
      if (results.some(({ result }) => result.case !== "job")) throw new Error("a job was not put");
    }
    const grown = (await commands.usedBytes()) - before;
    return [{ name: "per waiting job", unit: "bytes/job", rounds: [grown / JOBS] }];
  } finally {
    commands.close();
    client.close();
  }
}
