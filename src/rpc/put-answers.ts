/** The bytes of a PutManyResponse. Nearly all of its results are jobs that were put. */
import { create, toBinary } from "@bufbuild/protobuf";
import { PutResultSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { PutAnswer, Settled } from "../broker/jobs.ts";
import { JOB_STATES } from "../model/states.ts";
import { itemStatus } from "./batch.ts";
import { delimited, FIELD_BYTES, MessageWriter, UTF8_BYTES, varint } from "./message-writer.ts";

const RESULTS = delimited(1);
const RESULT = { job: delimited(1) };
const JOB = { jobId: delimited(1), created: varint(2), state: varint(3) };
/** Of tags, lengths and numbers. */
const RESULT_BYTES = 5 * FIELD_BYTES;

const writer = new MessageWriter();

export function putAnswers(answers: readonly Settled<PutAnswer>[]): Buffer {
  writer.begin();
  for (const answer of answers) {
    if ("ok" in answer) writePut(answer.ok);
    else writeError(answer.error);
  }
  return writer.finish();
}

function writePut({ id, created, state }: PutAnswer): void {
  writer.room(RESULT_BYTES + UTF8_BYTES * id.length);
  const result = writer.open(RESULTS);
  const job = writer.open(RESULT.job);
  writer.text(JOB.jobId, id);
  if (created) writer.number(JOB.created, 1);
  writer.number(JOB.state, JOB_STATES[state]);
  writer.close(job);
  writer.close(result);
}

function writeError(error: unknown): void {
  const bytes = toBinary(
    PutResultSchema,
    create(PutResultSchema, { result: { case: "error", value: itemStatus(error) } }),
  );
  writer.room(FIELD_BYTES + bytes.length);
  writer.bytes(RESULTS, bytes);
}
