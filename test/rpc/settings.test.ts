/** What a broker's settings change of the contract, and how it shuts down, over real gRPC: each test has its own broker. */
import { describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { RevokedReason } from "../../gen/baton/v1/job_service_pb.js";
import { until } from "../support/wait.ts";
import { at, type Fixture, inMs, ms, startFixture } from "./fixture.ts";
import type { RawStream, Request } from "./raw-client.ts";

const queue = "queue";
const COMPLETED: NonNullable<Request<"release">["outcome"]> = { case: "completed", value: {} };

/** A stream that has started; it ends with the fixture. */
async function opened({ client }: Fixture, maxOutstanding = 1): Promise<RawStream> {
  const stream = client.subscribe({ queues: [{ name: queue }], maxOutstanding });
  await stream.saw("started");
  return stream;
}

describe("a broker", () => {
  it("says at intervals that an idle stream lives", async () => {
    const own = await startFixture({ keepaliveIntervalMs: 100 });
    try {
      const began = performance.now();
      const stream = await opened(own);
      await stream.saw("keepalive", 3);
      // The first comes at any moment of the first interval. Timers may be a millisecond early.
      expect(performance.now() - began).toBeGreaterThanOrEqual(198);
      expect(new Set(stream.events.slice(1).map((event) => event.case))).toEqual(new Set(["keepalive"]));
      stream.cancel();
    } finally {
      await own.stop();
    }
  });

  it("refuses more streams than --max-streams, and takes one again when another has ended", async () => {
    const own = await startFixture({ maxStreams: 1 });
    try {
      const first = await opened(own);
      const refused = await own.client.subscribe({ queues: [{ name: queue }] }).ended;
      expect(refused).toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "TOO_MANY_STREAMS", domain: "baton" });
      first.cancel();
      await until(
        async () => {
          const next = own.client.subscribe({ queues: [{ name: queue }] });
          const started = await Promise.race([next.saw("started").then(() => true), next.ended.then(() => false)]);
          next.cancel();
          return started;
        },
        { what: "a stream to be free" },
      );
    } finally {
      await own.stop();
    }
  });

  it("when it shuts down, says so on its streams, with its grace, and ends them well once all is released", async () => {
    const own = await startFixture({ drainGraceMs: 9_000 });
    try {
      await own.client.good("put", { queue, id: "held" });
      const busy = await opened(own);
      const idle = await opened(own);
      const [job] = await busy.got(1);
      const drained = own.broker.server.drain();
      const draining = await busy.saw("draining");
      expect(inMs(draining.grace)).toBe(9_000);
      expect(await idle.ended).toBeUndefined();
      expect(idle.events.at(-1)?.case).toBe("draining");
      const refused = { code: "UNAVAILABLE", reason: "DRAINING", domain: "baton", retryAfterMs: 100 };
      expect(await own.client.bad("reserve", { queues: [{ name: queue }] })).toMatchObject(refused);
      const release: Request<"release"> = { leaseToken: job?.leaseToken ?? "", outcome: COMPLETED };
      expect((await own.client.good("release", release)).state).toBe(JobState.COMPLETED);
      expect(await busy.ended).toBeUndefined();
      await drained;
    } finally {
      await own.stop();
    }
  });

  it("keeps its own limits in place of the defaults", async () => {
    const own = await startFixture({
      maxBatch: 2,
      maxQueues: 1,
      maxHeaders: 1,
      maxHeaderBytes: 3,
      maxPayloadBytes: 3,
      maxOutstanding: 2,
      maxWaitMs: 1_000,
      defaultRetentionMs: 7_000,
    });
    try {
      const { client } = own;
      const text = (value: string) => ({ content: { case: "text", value } }) as const;
      const field = async (refused: Promise<{ violations: readonly { field: string }[] }>) =>
        (await refused).violations.map((violation) => violation.field);
      const queues = [{ name: queue }];
      expect(await field(client.bad("putMany", { jobs: [{}, {}, {}] }))).toEqual(["jobs"]);
      expect(await field(client.bad("reserve", { queues: [...queues, { name: "b" }] }))).toEqual(["queues"]);
      expect(await field(client.bad("reserve", { queues, maxJobs: 3 }))).toEqual(["max_jobs"]);
      expect(await field(client.bad("reserve", { queues, wait: ms(1_001) }))).toEqual(["wait"]);
      expect(await field(client.bad("put", { queue, headers: { a: "", b: "" } }))).toEqual(["headers"]);
      expect(await field(client.bad("put", { queue, headers: { a: "bcd" } }))).toEqual(["headers"]);
      expect(await field(client.bad("put", { queue, payload: text("abcd") }))).toEqual(["payload"]);
      const stream = client.subscribe({ queues, maxOutstanding: 3 });
      expect((await stream.ended)?.violations.map((violation) => violation.field)).toEqual(["max_outstanding"]);
      await client.good("put", { queue, id: "job", headers: { a: "bc" }, payload: text("abc") });
      const { leaseToken } = await client.reserveOne(queue, { wait: ms(1_000) });
      const tooLarge: Request<"release"> = {
        leaseToken,
        outcome: { case: "completed", value: { result: text("abcd") } },
      };
      expect(await field(client.bad("release", tooLarge))).toEqual(["completed.result"]);
      await client.good("release", { leaseToken, outcome: COMPLETED });
      const { job } = await client.good("get", { queue, id: "job" });
      expect(at(job?.retainedUntil)).toBe(at(job?.finishedAt) + 7_000);
    } finally {
      await own.stop();
    }
  });

  it("hands out what it took, also when jobs together are larger than --max-message-bytes", async () => {
    const own = await startFixture({ maxMessageBytes: 1024 * 1024, maxPayloadBytes: 512 * 1024 });
    try {
      const { client } = own;
      const payload = { content: { case: "data", value: new Uint8Array(400 * 1024) } } as const;
      for (let i = 0; i < 6; i++) await client.good("put", { queue, id: `${i}`, payload });
      const jobs = await client.reserve({ queues: [{ name: queue }], maxJobs: 6, wait: ms(1_000) });
      expect(jobs.length).toBeGreaterThan(0);
      const stream = await opened(own, 6);
      await stream.got(6 - jobs.length);
      stream.cancel();
    } finally {
      await own.stop();
    }
  });

  it("that has just started ends a lease at its run_timeout within the sweep interval, though nobody waits there", async () => {
    const own = await startFixture();
    try {
      const { client, broker } = own;
      await client.good("put", { queue, id: "job", runTimeout: ms(200), retry: { maxAttempts: 1 } });
      const stream = await opened(own);
      await stream.got(1);
      expect(await stream.saw("revoked")).toMatchObject({ reason: RevokedReason.RUN_TIMEOUT });
      const { job } = await client.good("get", { queue, id: "job" });
      expect(job?.state).toBe(JobState.FAILED);
      const tookMs = at(job?.finishedAt) - at(job?.reservedAt);
      expect(tookMs).toBeLessThan(200 + broker.settings.sweepIntervalMs + 500);
    } finally {
      await own.stop();
    }
  });
});
