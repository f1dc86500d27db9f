/** Requests that are read straight from their bytes, against what the generated code and all checks make of them. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ReservedJobSchema } from "../../gen/baton/v1/job_pb.js";
import {
  PutManyRequestSchema,
  type PutRequest,
  PutRequestSchema,
  ReleaseManyRequestSchema,
  type ReleaseRequest,
  ReleaseRequestSchema,
  WorkRequestSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { PutJob } from "../../src/broker/jobs.ts";
import { encodeLeaseToken } from "../../src/model/lease-token.ts";
import { readPut, readPutMany } from "../../src/rpc/plain-put.ts";
import { readReleaseMany, readWork } from "../../src/rpc/plain-release.ts";
import { newJob } from "../../src/rpc/put.ts";
import { checkRelease } from "../../src/rpc/release.ts";

const NAMESPACE = "baton";
const MAX_PAYLOAD_BYTES = 300;
const LIMITS = {
  maxPayloadBytes: MAX_PAYLOAD_BYTES,
  maxHeaders: 2,
  maxHeaderBytes: 100,
  maxBatch: 10,
  maxQueues: 10,
  maxWaitMs: 1_000,
  maxAwaitMs: 1_000,
  maxOutstanding: 10,
};

const texts = fc.oneof(
  fc.stringMatching(/^[ -~]{0,40}$/),
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.constantFrom("\u007f", "a\nb", "größe", "i".repeat(255), "i".repeat(256)),
);
const queues = fc.oneof({ weight: 5, arbitrary: fc.constantFrom("mail", "q-1") }, { weight: 1, arbitrary: texts });
const sizes = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.constantFrom(127, 128, MAX_PAYLOAD_BYTES + 1));
const contents = fc.oneof(
  fc.record({ case: fc.constant("data" as const), value: sizes.map((size) => new Uint8Array(size).fill(size)) }),
  fc.record({
    case: fc.constant("text" as const),
    value: fc.oneof(
      texts,
      sizes.map((size) => "x".repeat(size)),
    ),
  }),
  fc.constant({ case: undefined }),
);
const payloads = fc.record({ content: contents, contentType: fc.oneof(fc.constant(""), texts) });
const plainPuts = fc.record({ queue: queues, id: texts, payload: payloads }, { requiredKeys: ["queue"] });
const otherFields = fc.oneof(
  fc.record({ headers: fc.dictionary(fc.constantFrom("a", "b", ""), fc.string(), { maxKeys: 3 }) }),
  fc.record({ priority: fc.integer({ min: -1, max: 10 }) }),
  fc.constant({ retry: { maxAttempts: 3 } }),
  fc.constant({ start: { case: "delay" as const, value: { seconds: 1n } } }),
);
const puts = fc.oneof(
  { weight: 4, arbitrary: plainPuts },
  { weight: 1, arbitrary: fc.tuple(plainPuts, otherFields).map(([put, more]) => ({ ...put, ...more })) },
);
const putBatches = fc
  .array(puts, { maxLength: 5 })
  .map((jobs) => Buffer.from(toBinary(PutManyRequestSchema, create(PutManyRequestSchema, { jobs }))));

const leases = fc.record({ queue: queues, id: texts, fence: fc.maxSafeNat() });
const tokens = fc.oneof(
  { weight: 4, arbitrary: leases.map((lease) => encodeLeaseToken(NAMESPACE, lease)) },
  {
    weight: 1,
    arbitrary: fc.oneof(
      texts,
      leases.map((lease) => encodeLeaseToken("other", lease)),
    ),
  },
);
const outcomes = fc.oneof(
  { weight: 4, arbitrary: fc.constant({ case: "completed" as const, value: {} }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      { case: undefined },
      { case: "returned" as const, value: {} },
      { case: "completed" as const, value: { result: { content: { case: "text" as const, value: "done" } } } },
    ),
  },
);
const numbers = fc.oneof(fc.nat({ max: 300 }), fc.constantFrom(2 ** 28 - 1, 2 ** 28, 2 ** 32 - 1));
const releases = fc.array(fc.record({ leaseToken: tokens, outcome: outcomes, sequence: numbers }), { maxLength: 5 });

/** As they are, cut off, or with one byte changed. */
function damaged(messages: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> {
  const damages = fc.record({ at: fc.nat(), byte: fc.integer({ min: 0, max: 255 }), isCut: fc.boolean() });
  return fc.tuple(messages, damages).map(([bytes, { at, byte, isCut }]) => {
    const place = at % (bytes.length + 1);
    if (isCut) return bytes.subarray(0, place);
    const changed = Buffer.from(bytes);
    if (place < changed.length) changed[place] = byte;
    return changed;
  });
}

function orError<T>(work: () => T): T | { readonly error: string } {
  try {
    return work();
  } catch (error) {
    return { error: String(error) };
  }
}

/** What was put, by all checks and with its payload read; an id that the broker made is left out. */
function shown(read: PutRequest | PutJob, wasWithoutId: boolean) {
  return orError(() => {
    const { queue, job } = "job" in read ? read : newJob(read, LIMITS, "");
    const { spec, id, ...rest } = job;
    return { queue, id: wasWithoutId ? "" : id, spec: fromBinary(ReservedJobSchema, spec), ...without(rest) };
  });
}

function without(fields: object): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function shownRelease(read: ReleaseRequest | ReturnType<typeof checkRelease>) {
  return orError(() => {
    const { lease, outcome } = "lease" in read ? read : checkRelease(read, NAMESPACE, LIMITS, "");
    return { lease, outcome };
  });
}

describe("jobs that are read from their bytes", () => {
  it("are what the generated code and all checks make of them, whatever the bytes are", () => {
    fc.assert(
      fc.property(fc.oneof(putBatches, damaged(putBatches)), (bytes) => {
        const expected = orError(() => fromBinary(PutManyRequestSchema, bytes).jobs);
        const read = readPutMany(bytes, LIMITS);
        // Left to the generated code.
        if (read === undefined) return;
        if ("error" in expected) throw new Error(`the generated code refuses it: ${expected.error}`);
        const show = (jobs: readonly (PutRequest | PutJob)[]) =>
          jobs.map((job, i) => shown(job, expected[i]?.id === ""));
        expect(show(read.jobs)).toEqual(show(expected));
      }),
      { numRuns: 2_000 },
    );
  });

  const data = { content: { case: "data" as const, value: Buffer.alloc(200, 1) } };
  it.each([
    { name: "data", job: { queue: "mail", id: "1", payload: data } },
    { name: "text", job: { queue: "mail", id: "1", payload: { content: { case: "text" as const, value: "größe" } } } },
    { name: "a media type", job: { queue: "mail", id: "1", payload: { ...data, contentType: "a/b" } } },
    { name: "no payload", job: { queue: "mail", id: "1" } },
    { name: "no id", job: { queue: "mail", payload: data } },
    { name: "the longest id", job: { queue: "mail", id: "i".repeat(255) } },
  ])("need no generated code with $name", ({ job }) => {
    const bytes = Buffer.from(toBinary(PutRequestSchema, create(PutRequestSchema, job)));
    expect(readPut(bytes, LIMITS)).toMatchObject({ queue: "mail", job: { conflict: "reject" } });
  });

  it("are left to the checks where an empty queue is written out, which the generated code would leave away", () => {
    const emptyQueue = Buffer.from([0x0a, 0]);
    expect(readPut(emptyQueue, LIMITS)).toBeUndefined();
    const jobs = readPutMany(Buffer.from([0x0a, emptyQueue.length, ...emptyQueue]), LIMITS)?.jobs ?? [];
    expect(jobs.map((one) => shown(one, true))).toEqual([{ error: expect.stringContaining("queue") }]);
  });

  it("get an id of their own each when they bring none", () => {
    const job = { queue: "mail" };
    const bytes = toBinary(PutManyRequestSchema, create(PutManyRequestSchema, { jobs: [job, job] }));
    const ids = readPutMany(Buffer.from(bytes), LIMITS)?.jobs.map((one) => ("job" in one ? one.job.id : ""));
    expect(new Set(ids).size).toBe(2);
    expect(ids).not.toContain("");
  });
});

describe("releases that are read from their bytes", () => {
  it.each([
    {
      name: "ReleaseMany",
      write: (all: object[]) => toBinary(ReleaseManyRequestSchema, create(ReleaseManyRequestSchema, { releases: all })),
      read: readReleaseMany,
      readAll: (bytes: Buffer) => fromBinary(ReleaseManyRequestSchema, bytes).releases,
    },
    {
      name: "Work",
      write: (all: object[]) => toBinary(WorkRequestSchema, create(WorkRequestSchema, { releases: all })),
      read: readWork,
      readAll: (bytes: Buffer) => fromBinary(WorkRequestSchema, bytes).releases,
    },
  ])("are what the generated code and all checks make of them, whatever the bytes of $name are", (method) => {
    const batches = releases.map((all) => Buffer.from(method.write(all)));
    fc.assert(
      fc.property(fc.oneof(batches, damaged(batches)), (bytes) => {
        const expected = orError(() => method.readAll(bytes));
        const read = method.read(bytes, NAMESPACE);
        if (read === undefined) return;
        if ("error" in expected) throw new Error(`the generated code refuses it: ${expected.error}`);
        expect(read.releases.map(shownRelease)).toEqual(expected.map(shownRelease));
        expect(read.releases.map(({ sequence }) => sequence)).toEqual(expected.map(({ sequence }) => sequence));
      }),
      { numRuns: 2_000 },
    );
  });

  it("need no generated code when they complete their job", () => {
    const leaseToken = encodeLeaseToken(NAMESPACE, { queue: "mail", id: "a/b", fence: 2 ** 50 });
    const release = create(ReleaseRequestSchema, {
      leaseToken,
      outcome: { case: "completed", value: {} },
      sequence: 300,
    });
    const bytes = toBinary(WorkRequestSchema, create(WorkRequestSchema, { releases: [release] }));
    expect(readWork(Buffer.from(bytes), NAMESPACE)?.releases).toEqual([
      { sequence: 300, lease: { queue: "mail", id: "a/b", fence: 2 ** 50 }, outcome: { kind: "completed" } },
    ]);
  });
});
