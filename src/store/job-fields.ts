/** A job's fields as the scripts take and give them: lua/lib/record.lua and lua/lib/view.lua. */
import {
  asksForNothing,
  type JobView,
  type NewJob,
  type OwnRetryPolicy,
  type Unique,
  type UniqueUntil,
} from "../model/job.ts";
import { type JobState, stateOf } from "../model/states.ts";

/** lua/lib/view.lua's view_of. */
export type JobReply = [
  spec: Buffer,
  outcome: Buffer | null,
  state: number,
  attempt: number,
  failures: number,
  atMs: number,
  putAtMs: number,
  worker: Buffer,
  reservedAtMs: number,
  finishedAtMs: number,
  reason: number,
  concurrencyKey: Buffer,
  concurrencyLimit: number,
  uniqueKey: Buffer,
  uniqueUntil: number,
  uniqueExpiresInMs: number,
  percent: number,
  reportedAtMs: number,
  note: Buffer,
  id: Buffer,
];

const CURVES = { exponential: 1, exq: 2 } as const;
const UNTIL = { start: 1, success: 2, expiry: 3 } as const satisfies Record<UniqueUntil, number>;
const UNTIL_BY_NUMBER = new Map(Object.entries(UNTIL).map(([name, number]) => [number as number, name as UniqueUntil]));

/** The same bytes, not a copy. */
export function bufferOf({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

export function knownState(number: number | undefined): JobState {
  const state = stateOf(number ?? 0);
  if (!state) throw new Error(`a script answered with state ${number}`);
  return state;
}

/** The order of lua/lib/record.lua's R_…; false: not set. */
export function retryFields(retry: OwnRetryPolicy): readonly (number | false)[] {
  const { maxAttempts, initialBackoffMs, maxBackoffMs, multiplier, jitter, curve } = retry;
  const fields = [maxAttempts, initialBackoffMs, maxBackoffMs, multiplier, jitter, curve && CURVES[curve]];
  return fields.map((field) => field ?? false);
}

/** What a put says of a job beside its id and spec: '' for a plain one, which so costs no JSON. */
export function jobOptions(job: NewJob): string {
  if (asksForNothing(job)) return "";
  const { priority, delayMs, runAtMs, conflict } = job;
  const policy = policyFields(job);
  return JSON.stringify({ priority, delay: delayMs, run_at: runAtMs, conflict, policy });
}

/** The order of lua/lib/record.lua's P_…; false: not set. Most jobs ask for nothing, and pay for nothing. */
function policyFields(job: NewJob): readonly unknown[] | undefined {
  const { leaseMs, runTimeoutMs, retentionMs, expiresInMs, retry, concurrency, unique } = job;
  const says = leaseMs ?? runTimeoutMs ?? retentionMs ?? expiresInMs ?? retry ?? concurrency ?? unique;
  if (says === undefined) return undefined;
  const fields = [
    leaseMs,
    runTimeoutMs,
    retentionMs,
    expiresInMs,
    retry && retryFields(retry),
    concurrency && [concurrency.key, concurrency.limit],
    unique && [unique.key, UNTIL[unique.until], unique.expiresInMs ?? false],
  ];
  return fields.map((field) => field ?? false);
}

/** lua/lib/record.lua's HEAD, which stands before what was put. */
const HEAD_BYTES = 19;

export function withoutHead(spec: Buffer): Buffer {
  return spec.subarray(HEAD_BYTES);
}

export function jobView(queue: string, reply: JobReply): JobView {
  const [spec, outcome, state, attempt, failures, atMs, putAtMs, worker, reservedAtMs, finishedAtMs, reason] = reply;
  const [concurrencyKey, concurrencyLimit] = reply.slice(11, 13) as [Buffer, number];
  return {
    queue,
    id: reply[19].toString(),
    spec: withoutHead(spec),
    outcome: outcome ?? undefined,
    state: knownState(state),
    attempt,
    failures,
    atMs,
    putAtMs,
    workerId: worker.toString(),
    reservedAtMs,
    finishedAtMs,
    reason,
    concurrency: concurrencyLimit > 0 ? { key: concurrencyKey.toString(), limit: concurrencyLimit } : undefined,
    unique: uniqueOf(reply),
    progress: progressOf(reply),
  };
}

function progressOf(reply: JobReply): JobView["progress"] {
  const [percent, reportedAtMs, note] = reply.slice(16) as [number, number, Buffer];
  return percent < 0 ? undefined : { percent, note: note.toString(), reportedAtMs };
}

function uniqueOf(reply: JobReply): Unique | undefined {
  const [key, untilNumber, expiresInMs] = reply.slice(13) as [Buffer, number, number];
  const until = UNTIL_BY_NUMBER.get(untilNumber);
  return until && { key: key.toString(), until, ...(expiresInMs > 0 && { expiresInMs }) };
}
