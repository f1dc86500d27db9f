import { toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { BatonError, badRequest, jobNotFound, storeFull } from "../../src/model/errors.ts";
import { statusOf } from "../../src/rpc/status.ts";
import { failureOf, grpcStatusOf } from "../../src/transport/status.ts";
import { detailsOf, type LogEntry, putError, startServer } from "./support.ts";

const silent = { info() {}, warn() {}, error() {} };

/** As the trailers' size is reckoned: 32 bytes beside each name and value. */
function trailerBytes({ details, metadata }: ReturnType<typeof grpcStatusOf>): number {
  const [binary] = metadata.get("grpc-status-details-bin");
  const values = [
    encodeURI(details),
    Buffer.from(binary ?? "").toString("base64"),
    "16",
    "200",
    "application/grpc+proto",
  ];
  const names = ["grpc-message", "grpc-status-details-bin", "grpc-status", ":status", "content-type"];
  return [...names, ...values].join("").length + names.length * 32;
}

describe("the status of an error", () => {
  it("holds its code, reason, metadata, and how long to wait", () => {
    expect(detailsOf(grpcStatusOf(jobNotFound("q", "a")))).toMatchObject({
      code: 5,
      message: "queue q has no job a",
      info: { domain: "baton", reason: "JOB_NOT_FOUND", metadata: { queue: "q", id: "a" } },
    });
    expect(detailsOf(grpcStatusOf(storeFull())).retry?.retryDelay).toMatchObject({ seconds: 5n });
  });

  it("keeps queue names and ids of any allowed length whole", () => {
    const [queue, id] = ["q".repeat(128), "\u{1F600}".repeat(63)];
    expect(detailsOf(grpcStatusOf(jobNotFound(queue, id))).info?.metadata).toEqual({ queue, id });
  });

  it("fits into the 8 KiB of trailers that a Java client takes, whatever the error holds", () => {
    const long = "ü✓\u{1F600}".repeat(10_000);
    const violations = Array.from({ length: 1_000 }, (_, i) => ({ field: `jobs[${i}].${long}`, description: long }));
    const metadata = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`key${i}`, long]));
    const error = new BatonError("INVALID_ARGUMENT", "BAD_REQUEST", long, { violations, metadata, retryAfterMs: 1 });
    expect(toBinary(StatusSchema, statusOf(error)).length).toBeLessThanOrEqual(4_096);
    expect(trailerBytes(grpcStatusOf(error))).toBeLessThan(8_192);
    expect(detailsOf(grpcStatusOf(error)).badRequest?.fieldViolations.length).toBeGreaterThan(0);
  });

  it("names at most 20 violations", () => {
    const violations = Array.from({ length: 30 }, (_, i) => ({ field: `jobs[${i}].queue`, description: "is empty" }));
    const found = detailsOf(grpcStatusOf(badRequest(violations))).badRequest?.fieldViolations ?? [];
    expect(found).toHaveLength(20);
    expect(found[19]).toMatchObject({ field: "jobs[19].queue", description: "is empty" });
  });

  it("cuts a long message between characters", () => {
    const { message } = statusOf(new BatonError("INTERNAL", "X", "\u{1F600}".repeat(1_000)));
    expect(message).toMatch(/^(\u{1F600})+…$/u);
    expect(Buffer.byteLength(message)).toBeLessThanOrEqual(768);
  });

  it("survives half of a surrogate pair, which no wire can carry", async () => {
    await using server = await startServer({ handlers: { put: () => Promise.reject(jobNotFound("q", "a\ud83d")) } });
    const error = await putError(server.client, "a");
    expect(error.details).toBe("queue q has no job a\ufffd");
    expect(detailsOf(error).info?.metadata).toMatchObject({ id: "a\ufffd" });
  });

  it.each([
    ["AbortError", "CANCELLED"],
    ["TimeoutError", "DEADLINE_EXCEEDED"],
  ])("of an %s is %s", (name, reason) => {
    const failure = failureOf(new DOMException("gone", name), { method: "m", log: silent });
    expect(detailsOf(failure).info?.reason).toBe(reason);
  });

  it.each([undefined, null, "text", { code: 5 }, Symbol("s")])(
    "of something odd that was thrown, %s, is INTERNAL",
    (thrown) => {
      const entries: LogEntry[] = [];
      const log = { ...silent, error: (message: string) => void entries.push({ level: "error", message, fields: {} }) };
      expect(detailsOf(failureOf(thrown, { method: "m", log })).info?.reason).toBe("INTERNAL");
      expect(entries).toHaveLength(1);
    },
  );
});
