/** The jobs that all workloads put: an id of the producer's own, as safe producers choose it, and 200 bytes of payload. */
import { randomBytes, randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type PutRequest, PutRequestSchema } from "../../gen/baton/v1/job_service_pb.js";

export const PAYLOAD_BYTES = 200;

const PAYLOAD = randomBytes(PAYLOAD_BYTES);

export function newJob(queue: string): PutRequest {
  return create(PutRequestSchema, {
    queue,
    id: randomUUID(),
    payload: { content: { case: "data", value: PAYLOAD } },
  });
}
