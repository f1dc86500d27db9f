/** Answers that are written as bytes, read by the generated code. */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ReservedJobSchema } from "../../gen/baton/v1/job_pb.js";
import {
  PutManyResponseSchema,
  ReserveResponseSchema,
  SubscribeResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { PutAnswer, Settled } from "../../src/broker/jobs.ts";
import { jobExists } from "../../src/model/errors.ts";
import { type LeasedJob, NO_LEASE } from "../../src/model/job.ts";
import { encodeLeaseToken } from "../../src/model/lease-token.ts";
import { JOB_STATES } from "../../src/model/states.ts";
import { putAnswers } from "../../src/rpc/put-answers.ts";
import { encodeSpec, jobsEvent, reservedJobs } from "../../src/rpc/reserved-job.ts";

const NAMESPACE = "baton";
const YEAR_2106_MS = 2 ** 32 * 1_000 - 1;

const lengths = fc.constantFrom(0, 1, 19, 20, 21, 127, 128, 255);
const texts = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 60 }),
  lengths.map((length) => "x".repeat(length)),
  lengths.map((length) => "🎽".repeat(length)),
);
const sizes = fc.oneof(fc.nat({ max: 300 }), fc.constantFrom(127, 128, 16_383, 16_384, 70_000));
const specs = fc.record({
  payload: fc.option(
    fc.record({
      $typeName: fc.constant("baton.v1.Payload" as const),
      content: fc.oneof(
        fc.record({ case: fc.constant("data" as const), value: sizes.map((size) => new Uint8Array(size).fill(size)) }),
        fc.record({ case: fc.constant("text" as const), value: texts }),
        fc.constant({ case: undefined }),
      ),
      contentType: texts,
    }),
    { nil: undefined },
  ),
  headers: fc.dictionary(texts, texts, { maxKeys: 3 }),
  priority: fc.nat({ max: 9 }),
});
const fences = fc.oneof(fc.nat({ max: 3_000 }), fc.maxSafeNat());
const records = fc.record({
  queue: fc.constantFrom("mail", "q".repeat(128)),
  id: texts,
  fence: fences,
  attempt: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  failures: fc.nat({ max: 1_000 }),
  putAtMs: fc.nat({ max: YEAR_2106_MS }),
  leaseExpiresAtMs: fc.nat({ max: YEAR_2106_MS }),
});
type Given = { readonly spec: Parameters<typeof encodeSpec>[0]; readonly record: Omit<LeasedJob, "spec"> };

const leasedJob = ({ spec, record }: Given): LeasedJob => ({ ...record, spec: encodeSpec(spec) });

function expected({ spec, record }: Given) {
  const { fence, putAtMs, leaseExpiresAtMs, ...rest } = record;
  return create(ReservedJobSchema, {
    ...(spec as MessageInitShape<typeof ReservedJobSchema>),
    ...rest,
    putAt: timestampFromMs(putAtMs),
    leaseToken: encodeLeaseToken(NAMESPACE, record),
    ...(fence !== NO_LEASE && { leaseExpiresAt: timestampFromMs(leaseExpiresAtMs) }),
  });
}

describe("jobs for a worker", () => {
  it("say all that was put, and all that their record and lease say", () => {
    fc.assert(
      fc.property(fc.array(fc.record({ spec: specs, record: records }), { maxLength: 5 }), (given) => {
        const jobs = given.map(leasedJob);
        const wanted = given.map(expected);
        // Compared as bytes, which are the same for what is the same.
        const bytesOf = (all: typeof wanted) => all.map((job) => Buffer.from(toBinary(ReservedJobSchema, job)));
        expect(bytesOf(fromBinary(ReserveResponseSchema, reservedJobs(NAMESPACE, jobs)).jobs)).toEqual(bytesOf(wanted));
        const { event } = fromBinary(SubscribeResponseSchema, jobsEvent(NAMESPACE, jobs));
        expect(event.case === "jobs" && bytesOf(event.value.jobs)).toEqual(bytesOf(wanted));
      }),
      { numRuns: 500 },
    );
  });
});

describe("the answers of PutMany", () => {
  it("are those of the jobs that were put, and the errors of the others, in their order", () => {
    const good = fc.record({
      id: texts,
      created: fc.boolean(),
      state: fc.constantFrom("READY" as const, "SCHEDULED" as const, "FAILED" as const),
    });
    // Long texts are cut in errors.
    const bad = fc.string({ maxLength: 20 }).map((id) => ({ error: jobExists("mail", id, "READY") }));
    const settled = fc.oneof(
      good.map((ok): Settled<PutAnswer> => ({ ok })),
      bad,
    );
    fc.assert(
      fc.property(fc.array(settled, { maxLength: 6 }), (answers) => {
        const { results } = fromBinary(PutManyResponseSchema, putAnswers(answers));
        const shown = results.map(({ result }) =>
          result.case === "job"
            ? { id: result.value.jobId, created: result.value.created, state: result.value.state }
            : { error: result.value?.message },
        );
        expect(shown).toEqual(
          answers.map((answer) =>
            "ok" in answer
              ? { ...answer.ok, state: JOB_STATES[answer.ok.state] }
              : { error: (answer.error as Error).message },
          ),
        );
      }),
    );
  });

  it("are whole again after an error that fails the whole call", () => {
    const ok = { id: "1", created: true, state: "READY" } as const;
    expect(() => putAnswers([{ ok }, { error: new TypeError("a bug") }])).toThrow("a bug");
    expect(fromBinary(PutManyResponseSchema, putAnswers([{ ok }])).results).toHaveLength(1);
  });
});
