/**
 * Releases that complete their job without a result, read from their bytes. Any other is read by the generated code.
 *
 * Of 100 in one message, that takes 0.3 µs of CPU each where it took 1.0.
 */
import { type ReleaseRequest, ReleaseRequestSchema } from "../../gen/baton/v1/job_service_pb.js";
import type { NumberedRelease } from "../broker/work.ts";
import { readLeaseToken } from "./lease-token.ts";
import { MessageReader, partOf } from "./message-reader.ts";
import { delimited, varint } from "./message-writer.ts";

const RELEASE_MANY = { releases: delimited(1) };
const WORK = { releases: delimited(3) };
const RELEASE = { leaseToken: delimited(1), completed: delimited(2), sequence: varint(5) };
const COMPLETED = { kind: "completed" } as const;

/** A ReleaseManyRequest is one; its releases are as they came, or checked already. */
export type ReleaseBatch = { readonly releases: readonly (ReleaseRequest | NumberedRelease)[] };

/** Undefined: there is something else than releases in it. */
export function readReleaseMany(bytes: Buffer, namespace: string): ReleaseBatch | undefined {
  return readReleases(bytes, RELEASE_MANY.releases, namespace);
}

/** Likewise, of a WorkRequest. */
export function readWork(bytes: Buffer, namespace: string): ReleaseBatch | undefined {
  return readReleases(bytes, WORK.releases, namespace);
}

function readReleases(bytes: Buffer, tag: number, namespace: string): ReleaseBatch | undefined {
  const reader = new MessageReader(bytes);
  const releases: (ReleaseRequest | NumberedRelease)[] = [];
  while (reader.at < bytes.length) {
    const end = reader.skip(tag, bytes.length) ? reader.endOfField(bytes.length) : -1;
    if (end < 0) return undefined;
    const from = reader.at;
    const release = plainRelease(reader, end, namespace) ?? partOf(ReleaseRequestSchema, bytes.subarray(from, end));
    if (!release) return undefined;
    releases.push(release);
    reader.at = end;
  }
  return { releases };
}

function plainRelease(reader: MessageReader, end: number, namespace: string): NumberedRelease | undefined {
  const token = reader.skip(RELEASE.leaseToken, end) ? reader.text(end) : undefined;
  const lease = token === undefined ? undefined : readLeaseToken(namespace, token);
  if (!lease || !reader.skip(RELEASE.completed, end) || reader.endOfField(end) !== reader.at) return undefined;
  const sequence = reader.skip(RELEASE.sequence, end) ? reader.number(end) : 0;
  return sequence < 0 || reader.at !== end ? undefined : { sequence, lease, outcome: COMPLETED };
}
