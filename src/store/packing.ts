/**
 * Batches as the scripts take them: in one argument, which Lua unpacks with `struct`. Each argument of a call costs the
 * client, the wire and Redis a few tenths of a microsecond, and a job would have three, a release six.
 */
import type { Lease, NewJob, Outcome } from "../model/job.ts";
import { jobOptions } from "./job-fields.ts";

const NOTHING = Buffer.alloc(0);
/** The lengths before an id, and before what may be longer. */
const ID_LENGTH_BYTES = 1;
const LENGTH_BYTES = 4;
/** Node writes at most 6 bytes of an integer at once. */
const HIGH = 2 ** 48;
const FENCE_BYTES = 7;
const OUTCOME_BYTES = 1;
const WAIT_BYTES = 7;

/** lua/release.lua */
const OUTCOMES = { completed: 1, failed: 2, buried: 3, returned: 4, undelivered: 5, pulled: 6 } as const;

/** lua/put.lua's JOB, of each. */
export function packPuts(jobs: readonly NewJob[]): Buffer {
  const options = jobs.map(jobOptions);
  let size = 0;
  for (const [i, { id, spec }] of jobs.entries()) {
    size += ID_LENGTH_BYTES + Buffer.byteLength(id) + 2 * LENGTH_BYTES + spec.length;
    size += Buffer.byteLength(options[i] as string);
  }
  const writer = new Writer(size);
  for (const [i, { id, spec }] of jobs.entries()) {
    writer.id(id);
    writer.bytes(spec);
    writer.text(options[i] as string);
  }
  return writer.buffer;
}

export type Release = { readonly lease: Lease; readonly outcome: Outcome };

/** lua/release.lua's RELEASE, of each. */
export function packReleases(releases: readonly Release[]): Buffer {
  const all = releases.map(({ outcome }) => releaseFields(outcome));
  let size = 0;
  for (const [i, { lease }] of releases.entries()) {
    const { bytes, detail } = all[i] as ReleaseFields;
    size += ID_LENGTH_BYTES + Buffer.byteLength(lease.id) + FENCE_BYTES + OUTCOME_BYTES + WAIT_BYTES;
    size += 2 * LENGTH_BYTES + bytes.length + Buffer.byteLength(detail);
  }
  const writer = new Writer(size);
  for (const [i, { lease }] of releases.entries()) {
    const { outcome, waitMs, bytes, detail } = all[i] as ReleaseFields;
    writer.id(lease.id);
    writer.sevenBytes(lease.fence);
    writer.byte(OUTCOMES[outcome]);
    writer.sevenBytes(waitMs === undefined ? 0 : Math.round(waitMs) + 1);
    writer.bytes(bytes);
    writer.text(detail);
  }
  return writer.buffer;
}

type ReleaseFields = {
  readonly outcome: keyof typeof OUTCOMES;
  /** Undefined: by the retry policy. */
  readonly waitMs: number | undefined;
  readonly bytes: Uint8Array;
  readonly detail: string;
};

const COMPLETED: ReleaseFields = { outcome: "completed", waitMs: undefined, bytes: NOTHING, detail: "" };

function releaseFields(outcome: Outcome): ReleaseFields {
  switch (outcome.kind) {
    case "completed": {
      const { result, eventDetail } = outcome;
      if (!result && !eventDetail) return COMPLETED;
      return { ...COMPLETED, bytes: result ?? NOTHING, detail: eventDetail ?? "" };
    }
    case "failed": {
      const { permanent, retryAfterMs, error, eventDetail } = outcome;
      return { outcome: permanent ? "buried" : "failed", waitMs: retryAfterMs, bytes: error, detail: eventDetail };
    }
    case "returned":
      return { ...COMPLETED, outcome: "returned", waitMs: outcome.delayMs };
    case "undelivered":
    case "pulled":
      return { ...COMPLETED, outcome: outcome.kind };
  }
}

class Writer {
  readonly buffer: Buffer;
  #at = 0;

  constructor(size: number) {
    this.buffer = Buffer.allocUnsafe(size);
  }

  byte(value: number): void {
    this.buffer[this.#at++] = value;
  }

  sevenBytes(value: number): void {
    this.buffer[this.#at] = Math.floor(value / HIGH);
    this.#at = this.buffer.writeUIntBE(value % HIGH, this.#at + 1, 6);
  }

  id(value: string): void {
    const length = this.buffer.write(value, this.#at + ID_LENGTH_BYTES);
    this.buffer[this.#at] = length;
    this.#at += ID_LENGTH_BYTES + length;
  }

  text(value: string): void {
    const length = value === "" ? 0 : this.buffer.write(value, this.#at + LENGTH_BYTES);
    this.buffer.writeUInt32BE(length, this.#at);
    this.#at += LENGTH_BYTES + length;
  }

  bytes(value: Uint8Array): void {
    this.buffer.writeUInt32BE(value.length, this.#at);
    this.buffer.set(value, this.#at + LENGTH_BYTES);
    this.#at += LENGTH_BYTES + value.length;
  }
}
