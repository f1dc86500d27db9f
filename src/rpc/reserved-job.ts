/**
 * A job on its way from its Put to its worker, as bytes: what was put is stored as a ReservedJob, and what its
 * reservation adds is appended. Fields of a message may come in any order, so nothing is decoded in between, which
 * would cost more than all else that a delivery does.
 *
 * The answers carry these bytes as a field that the message classes don't know; written out, they are the `jobs` of
 * field 1. A transport that needs the objects themselves reads the answer's bytes back first.
 */
import type { UnknownField } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { Payload } from "../../gen/baton/v1/job_pb.js";
import { type LeasedJob, NO_LEASE } from "../model/job.ts";
import { encodeLeaseToken } from "../model/lease-token.ts";

/** The tag of a field: its number in job.proto, and how it is written. */
const text = (field: number) => (field << 3) | WireType.LengthDelimited;
const message = text;
const varint = (field: number) => (field << 3) | WireType.Varint;

const JOB = {
  queue: text(1),
  id: text(2),
  payload: message(3),
  headers: message(4),
  priority: varint(5),
  putAt: message(6),
  leaseToken: text(10),
  leaseExpiresAt: message(11),
  attempt: varint(12),
  failures: varint(13),
};
const PAYLOAD = { data: text(1), text: text(2), contentType: text(3) };
const HEADER = { key: text(1), value: text(2) };
const TIMESTAMP = { seconds: varint(1), nanos: varint(2) };

/** The field `jobs` in ReserveResponse and in JobBatch. */
const JOBS_FIELD = 1;

/** Used again and again: it keeps its buffer, which is never larger than the largest message. */
const writer = new BinaryWriter();

export type JobSpec = {
  readonly queue: string;
  readonly id: string;
  readonly payload: Payload | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly priority: number;
};

/** What is stored with the put. */
export function encodeSpec(spec: JobSpec): Uint8Array {
  return written(() => writeSpec(spec));
}

function writeSpec({ queue, id, payload, headers, priority }: JobSpec): void {
  writer.uint32(JOB.queue).string(queue).uint32(JOB.id).string(id);
  if (payload) {
    const { content, contentType } = payload;
    writer.uint32(JOB.payload).fork();
    if (content.case === "data") writer.uint32(PAYLOAD.data).bytes(content.value);
    if (content.case === "text") writer.uint32(PAYLOAD.text).string(content.value);
    if (contentType !== "") writer.uint32(PAYLOAD.contentType).string(contentType);
    writer.join();
  }
  for (const key in headers) {
    writer.uint32(JOB.headers).fork();
    writer
      .uint32(HEADER.key)
      .string(key)
      .uint32(HEADER.value)
      .string(headers[key] as string);
    writer.join();
  }
  if (priority !== 0) writer.uint32(JOB.priority).uint32(priority);
}

/**
 * The field `jobs` with these jobs: to be the `$unknown` of the message that has it. What is written for such a field is
 * its tag, and then its data as they are; so all jobs go into one, with the tags of the others between them, and cost one
 * piece of memory together.
 */
export function reservedJobs(namespace: string, jobs: readonly LeasedJob[]): UnknownField[] {
  if (jobs.length === 0) return [];
  const data = written(() => {
    for (const [i, job] of jobs.entries()) {
      if (i > 0) writer.uint32(message(JOBS_FIELD));
      writeReservedJob(namespace, job);
    }
  });
  return [{ no: JOBS_FIELD, wireType: WireType.LengthDelimited, data }];
}

/** With its length before it. */
function writeReservedJob(namespace: string, job: LeasedJob): void {
  writer.fork().raw(job.spec);
  writeTime(JOB.putAt, job.putAtMs);
  writer.uint32(JOB.leaseToken).string(encodeLeaseToken(namespace, job));
  if (job.fence !== NO_LEASE) writeTime(JOB.leaseExpiresAt, job.leaseExpiresAtMs);
  writer.uint32(JOB.attempt).uint32(job.attempt);
  if (job.failures > 0) writer.uint32(JOB.failures).uint32(job.failures);
  writer.join();
}

/** What was written; after an error nothing of it stays behind. */
function written(write: () => void): Uint8Array {
  let bytes: Uint8Array | undefined;
  try {
    write();
  } finally {
    bytes = writer.finish();
  }
  return bytes;
}

/** Seconds are an int64, which for a time before the year 2106 is written as a uint32 is. */
function writeTime(tag: number, ms: number): void {
  const seconds = Math.floor(ms / 1_000);
  writer.uint32(tag).fork();
  writer.uint32(TIMESTAMP.seconds).uint32(seconds);
  writer.uint32(TIMESTAMP.nanos).uint32((ms - seconds * 1_000) * 1_000_000);
  writer.join();
}
