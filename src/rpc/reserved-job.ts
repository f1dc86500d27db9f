/**
 * A job on its way from its Put to its worker, as bytes: what was put is stored as a ReservedJob, and what the job's
 * record and its reservation say is written around it. Fields of a message may come in any order, so nothing is decoded in
 * between, which would cost more than all else that a delivery does.
 */
import type { Payload } from "../../gen/baton/v1/job_pb.js";
import { type LeasedJob, NO_LEASE } from "../model/job.ts";
import { LeaseTokens } from "../model/lease-token.ts";
import { delimited, FIELD_BYTES, MessageWriter, UTF8_BYTES, varint } from "./message-writer.ts";
import { contentBytes } from "./payload.ts";

/** job.proto, ReservedJob. */
const JOB = {
  queue: delimited(1),
  id: delimited(2),
  payload: delimited(3),
  headers: delimited(4),
  priority: varint(5),
  putAt: delimited(6),
  leaseToken: delimited(10),
  leaseExpiresAt: delimited(11),
  attempt: varint(12),
  failures: varint(13),
};
const PAYLOAD = { data: delimited(1), text: delimited(2), contentType: delimited(3) };
const HEADER = { key: delimited(1), value: delimited(2) };
/** The field `jobs` in ReserveResponse, WorkResponse and JobBatch; and in SubscribeResponse, where it is a JobBatch. */
const JOBS = delimited(1);
const BATCH = delimited(2);
/** What a job has beside what was put and its names: tags, lengths, times and numbers. */
const JOB_BYTES = 16 * FIELD_BYTES;

const writer = new MessageWriter();

export type JobSpec = {
  readonly payload?: Payload | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly priority: number;
};

/** What is stored with the put. Its queue and id stand in its key and its record. */
export function encodeSpec({ payload, headers, priority }: JobSpec): Uint8Array {
  writer.begin();
  if (payload) writePayload(payload);
  for (const key in headers) {
    const value = headers[key] as string;
    writer.room(3 * FIELD_BYTES + UTF8_BYTES * (key.length + value.length));
    const header = writer.open(JOB.headers);
    writer.text(HEADER.key, key);
    writer.text(HEADER.value, value);
    writer.close(header);
  }
  writer.room(FIELD_BYTES);
  if (priority !== 0) writer.number(JOB.priority, priority);
  return writer.finish();
}

function writePayload({ content, contentType }: Payload): void {
  const bytes = contentBytes(content);
  writer.room(3 * FIELD_BYTES + bytes + UTF8_BYTES * contentType.length);
  const message = writer.open(JOB.payload, bytes);
  if (content.case === "data") writer.bytes(PAYLOAD.data, content.value);
  if (content.case === "text") writer.text(PAYLOAD.text, content.value, bytes);
  if (contentType !== "") writer.text(PAYLOAD.contentType, contentType);
  writer.close(message, bytes);
}

/** These jobs as the field `jobs` of a message; as the other fields of that message may stand before or behind them. */
export function reservedJobs(namespace: string, jobs: readonly LeasedJob[]): Buffer {
  writer.begin();
  writeReservedJobs(namespace, jobs);
  return writer.finish();
}

/** A SubscribeResponse with these jobs. */
export function jobsEvent(namespace: string, jobs: readonly LeasedJob[]): Buffer {
  writer.begin();
  writer.room(FIELD_BYTES);
  const batch = writer.open(BATCH);
  writeReservedJobs(namespace, jobs);
  writer.room(FIELD_BYTES);
  writer.close(batch);
  return writer.finish();
}

function writeReservedJobs(namespace: string, jobs: readonly LeasedJob[]): void {
  const tokens = new LeaseTokens(namespace);
  for (const job of jobs) {
    tokens.encode(job);
    writeReservedJob(job, tokens);
  }
}

function writeReservedJob(job: LeasedJob, token: Pick<LeaseTokens, "first" | "second">): void {
  const { queue, id, spec, fence, putAtMs, leaseExpiresAtMs, attempt, failures } = job;
  const names = queue.length + 2 * id.length + token.first.length + token.second.length;
  writer.room(JOB_BYTES + spec.length + UTF8_BYTES * names);
  const message = writer.open(JOBS, spec.length);
  writer.text(JOB.queue, queue);
  const idText = writer.text(JOB.id, id);
  writer.raw(spec);
  writer.time(JOB.putAt, putAtMs);
  const leaseToken = writer.open(JOB.leaseToken);
  writer.part(token.first);
  writer.part(token.second);
  writer.again(idText);
  writer.close(leaseToken);
  if (fence !== NO_LEASE) writer.time(JOB.leaseExpiresAt, leaseExpiresAtMs);
  writer.number(JOB.attempt, attempt);
  if (failures > 0) writer.number(JOB.failures, failures);
  writer.close(message, spec.length);
}
