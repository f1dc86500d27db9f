/**
 * Jobs for a worker that finishes them meanwhile. A few PutMany calls are kept under way, with a pause while too many
 * jobs are unfinished, so that Redis holds a short queue and not the whole round.
 */
import { create } from "@bufbuild/protobuf";
import { JobService, PutManyRequestSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { Finished } from "./finished.ts";
import { newJob } from "./jobs.ts";
import type { LeanClient } from "./lean-client.ts";

export const BATCH = 100;
const PUT_CALLS = 4;
const MAX_UNFINISHED = 10_000;

/** Puts so many jobs, and resolves when they are finished. */
export async function produce(client: LeanClient, queue: string, finished: Finished, jobs: number): Promise<void> {
  const putMany = client.unary(JobService.method.putMany);
  const target = finished.count + jobs;
  let left = jobs;
  async function put(): Promise<void> {
    while (left > 0) {
      left -= BATCH;
      const batch = Array.from({ length: BATCH }, () => newJob(queue));
      const { results } = await putMany(create(PutManyRequestSchema, { jobs: batch }));
      for (const { result } of results) {
        if (result.case !== "job") throw new Error(`a job was not put: ${result.value?.message}`);
      }
      const unfinished = target - left - finished.count;
      if (unfinished > MAX_UNFINISHED) await finished.reached(target - left - MAX_UNFINISHED);
    }
  }
  await Promise.all([...Array.from({ length: PUT_CALLS }, put), finished.reached(target)]);
}
