/** Jobs that tell by their ids when they were put: by the machine's own clock, which all of its processes share. */
import type { PutRequest } from "../../gen/baton/v1/job_service_pb.js";
import { newJob } from "./jobs.ts";

const NANOSECONDS_PER_MS = 1e6;

export function newTimedJob(queue: string): PutRequest {
  const job = newJob(queue);
  job.id = `${process.hrtime.bigint()}.${job.id}`;
  return job;
}

/** In ms. */
export function sincePut(id: string): number {
  const putAt = BigInt(id.slice(0, id.indexOf(".")));
  return Number(process.hrtime.bigint() - putAt) / NANOSECONDS_PER_MS;
}
