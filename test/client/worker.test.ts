import { afterEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { type ReleaseRequest, RevokedReason } from "../../gen/baton/v1/job_service_pb.js";
import {
  BatonClient,
  type Handler,
  JobAborted,
  PermanentError,
  RetryLater,
  Worker,
  type WorkerErrorContext,
  type WorkerOptions,
} from "../../src/client/index.ts";
import { until, within } from "../support/wait.ts";
import { Refusal, type Script, type ScriptedBroker, startScriptedBroker, statusOf } from "./scripted-broker.ts";

const INVALID_ARGUMENT = 3;
const FAILED_PRECONDITION = 9;
const UNAVAILABLE = 14;

/** A worker on a scripted broker that accepts every release and every extension, unless the test says otherwise. */
class Stage {
  readonly releases: ReleaseRequest[] = [];
  readonly batches: number[] = [];
  readonly extended: string[] = [];
  readonly errors: { error: unknown; context: WorkerErrorContext }[] = [];
  readonly broker: ScriptedBroker;
  readonly client: BatonClient;
  readonly worker: Worker;

  private constructor(broker: ScriptedBroker, handler: Handler, options: Partial<WorkerOptions>) {
    this.broker = broker;
    this.client = new BatonClient({ address: broker.address, defaultDeadlineMs: 5_000 });
    this.worker = new Worker(this.client, {
      queues: ["q"],
      handler,
      onError: (error, context) => this.errors.push({ error, context }),
      ...options,
    });
  }

  static async open(handler: Handler, options: Partial<WorkerOptions> = {}, script: Script = {}): Promise<Stage> {
    const broker = await startScriptedBroker({
      releaseMany: ({ releases }) => {
        stage.batches.push(releases.length);
        stage.releases.push(...releases);
        return {
          results: releases.map(() => ({ result: { case: "released", value: { state: JobState.COMPLETED } } })),
        };
      },
      extend: ({ leaseTokens }) => {
        stage.extended.push(...leaseTokens);
        return { results: leaseTokens.map(() => ({ result: { case: "leaseExpiresAt", value: {} } })) };
      },
      ...script,
    });
    const stage = new Stage(broker, handler, options);
    stages.push(stage);
    return stage;
  }

  async released(count: number): Promise<ReleaseRequest[]> {
    await until(() => this.releases.length >= count, {
      what: `${count} releases, of which ${this.releases.length} came`,
    });
    return this.releases;
  }

  async close(): Promise<void> {
    await this.worker.stop({ timeoutMs: 0 });
    this.client.close();
    this.broker.stop();
  }
}

const stages: Stage[] = [];

afterEach(async () => {
  for (const stage of stages.splice(0)) await within(stage.close(), { what: "the worker to stop" });
});

/** A handler that ends each job when the test says so. */
function gate() {
  const begun: string[] = [];
  const signals = new Map<string, AbortSignal>();
  const doors = new Map<string, PromiseWithResolvers<string>>();
  const handler: Handler = async (job, { signal }) => {
    begun.push(job.id);
    signals.set(job.id, signal);
    const door = Promise.withResolvers<string>();
    doors.set(job.id, door);
    return await door.promise;
  };
  const finish = (id: string) => doors.get(id)?.resolve(`result of ${id}`);
  const running = (id: string) => until(() => signals.get(id), { what: `job ${id} to be run` });
  return { handler, begun, finish, running };
}

describe("Worker", () => {
  it("releases what its handler made of each job", async () => {
    const handlers: Record<string, Handler> = {
      text: () => "done",
      json: () => ({ json: { sum: 3 } }),
      nothing: async () => {},
      fails: () => {
        throw new RangeError("too far");
      },
      permanent: () => Promise.reject(new PermanentError("no such user")),
      typed: () => Promise.reject(new PermanentError("gone", { type: "GONE" })),
      later: () => Promise.reject(new RetryLater(90_000, "busy")),
      back: (job) => job.giveBack({ delayMs: 250 }),
      badResult: () => ({ json: undefined }),
      long: () => Promise.reject(new Error("ä".repeat(20_000))),
      strange: () => Promise.reject("a string"),
    };
    const ids = Object.keys(handlers);
    const stage = await Stage.open((job, context) => handlers[job.id]?.(job, context), { concurrency: ids.length });
    const started = stage.worker.start();
    const stream = await stage.broker.stream(0);
    expect(stream.request).toMatchObject({ maxOutstanding: ids.length, queues: [{ name: "q" }] });
    stream.start().jobs(...ids);
    await started;
    const outcomes = new Map((await stage.released(ids.length)).map((r) => [r.leaseToken.slice(6), r.outcome]));
    const text = (value: string, contentType = "") => ({ result: { content: { case: "text", value }, contentType } });
    expect(outcomes.get("text")).toMatchObject({ case: "completed", value: text("done") });
    expect(outcomes.get("json")).toMatchObject({ case: "completed", value: text('{"sum":3}', "application/json") });
    expect(outcomes.get("nothing")).toMatchObject({ case: "completed" });
    expect(outcomes.get("nothing")?.value).not.toHaveProperty("result");
    const failed = (message: string, type: string, permanent = false) => ({
      case: "failed",
      value: { message, type, permanent },
    });
    expect(outcomes.get("fails")).toMatchObject(failed("too far", "RangeError"));
    expect(outcomes.get("permanent")).toMatchObject(failed("no such user", "PermanentError", true));
    expect(outcomes.get("typed")).toMatchObject(failed("gone", "GONE", true));
    expect(outcomes.get("later")).toMatchObject({
      case: "failed",
      value: { message: "busy", retryAfter: { seconds: 90n } },
    });
    expect(outcomes.get("back")).toMatchObject({ case: "returned", value: { delay: { nanos: 250_000_000 } } });
    expect(outcomes.get("badResult")).toMatchObject(failed("this value has no form in JSON", "TypeError"));
    expect(outcomes.get("long")).toMatchObject(failed("ä".repeat(8 * 1024), "Error"));
    expect(outcomes.get("strange")).toMatchObject(failed("a string", "string"));
    expect(stage.errors.map(({ context }) => context.job?.id).sort()).toEqual([
      "badResult",
      "fails",
      "long",
      "strange",
    ]);
  });

  it("sends releases that are ready at the same time in one call", async () => {
    const stage = await Stage.open(() => "done", { concurrency: 50 });
    void stage.worker.start();
    (await stage.broker.stream(0)).start().jobs(...Array.from({ length: 50 }, (_, n) => String(n)));
    await stage.released(50);
    expect(stage.batches).toEqual([50]);
  });

  it("never runs more handlers at once than its concurrency", async () => {
    const { handler, begun, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2 });
    void stage.worker.start();
    (await stage.broker.stream(0)).start().jobs("1", "2", "3");
    await running("2");
    expect(begun).toEqual(["1", "2"]);
    finish("1");
    await running("3");
  });

  it("opens a lost stream again, and its jobs in hand go on and keep their leases", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 4 });
    void stage.worker.start();
    const first = await stage.broker.stream(0);
    first.start({ graceMs: 400 }).jobs("1", "2");
    const signal = await running("2");
    first.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    const second = await stage.broker.stream(1);
    // Two of the four are still at work: the new stream takes them along.
    expect(second.request).toMatchObject({ maxOutstanding: 4, resumeLeaseTokens: ["token-1", "token-2"] });
    // As long as nobody says that it is open, the worker keeps their leases itself.
    await until(() => stage.extended.filter((token) => token === "token-1").length >= 3, { what: "three extensions" });
    second.start();
    expect(signal.aborted).toBe(false);
    finish("1");
    finish("2");
    const releases = await stage.released(2);
    expect(releases.map(({ leaseToken, outcome }) => [leaseToken, outcome.case])).toEqual([
      ["token-1", "completed"],
      ["token-2", "completed"],
    ]);
    // Their credit is the new stream's.
    second.jobs("3", "4", "5", "6");
    await running("6");
    expect(stage.broker.streams).toHaveLength(2);
    expect(stage.errors).toMatchObject([{ context: { during: "stream" }, error: { reason: "STORE_UNAVAILABLE" } }]);
  });

  it("aborts a job in hand when no broker confirms its lease within the grace", async () => {
    const { handler, running } = gate();
    const stage = await Stage.open(handler, {}, { extend: () => new Promise(() => {}) });
    void stage.worker.start();
    const stream = await stage.broker.stream(0);
    stream.start({ graceMs: 200 }).jobs("1");
    const signal = await running("1");
    stream.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    await until(() => signal.aborted, { what: "the job's signal to abort" });
    expect(signal.reason).toMatchObject({ name: "JobAborted", reason: "DISCONNECTED" });
  });

  it("aborts a job in hand when the broker says that its lease is lost", async () => {
    const { handler, running } = gate();
    const lost = { result: { case: "error" as const, value: statusOf(FAILED_PRECONDITION, "LEASE_LOST") } };
    const stage = await Stage.open(handler, {}, { extend: () => ({ results: [lost] }) });
    void stage.worker.start();
    const stream = await stage.broker.stream(0);
    stream.start().jobs("1");
    const signal = await running("1");
    stream.end();
    await until(() => signal.aborted, { what: "the job's signal to abort" });
    expect(signal.reason).toMatchObject({ reason: "LEASE_LOST" });
  });

  it("opens a new stream when its broker drains, while the jobs in hand finish", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2 });
    void stage.worker.start();
    const first = await stage.broker.stream(0);
    first.start().jobs("1");
    const signal = await running("1");
    first.send({ case: "draining", value: {} });
    const second = await stage.broker.stream(1);
    expect(second.request).toMatchObject({ maxOutstanding: 2, resumeLeaseTokens: ["token-1"] });
    second.start().jobs("2");
    await running("2");
    first.end();
    finish("1");
    finish("2");
    expect((await stage.released(2)).map(({ leaseToken }) => leaseToken).sort()).toEqual(["token-1", "token-2"]);
    expect(signal.aborted).toBe(false);
    expect(stage.errors).toEqual([]);
  });

  it("aborts a job that it took along, and whose lease turns out to be lost", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2 });
    void stage.worker.start();
    const first = (await stage.broker.stream(0)).start();
    first.jobs("1", "2");
    const signals = [await running("1"), await running("2")];
    first.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    const second = (await stage.broker.stream(1)).start();
    second.send({ case: "revoked", value: { leaseTokens: ["token-1"], reason: RevokedReason.EXPIRED } });
    await until(() => signals[0]?.aborted, { what: "the job's signal to abort" });
    expect(signals[0]?.reason).toMatchObject({ reason: "EXPIRED" });
    expect(signals[1]?.aborted).toBe(false);
    second.jobs("3");
    finish("1");
    finish("2");
    await running("3");
    expect((await stage.released(1)).map(({ leaseToken }) => leaseToken)).toEqual(["token-2"]);
  });

  it("keeps the leases itself again when a stream that was to take them along breaks before it is open", async () => {
    const { handler, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2 });
    void stage.worker.start();
    const first = (await stage.broker.stream(0)).start({ graceMs: 400 });
    first.jobs("1");
    const signal = await running("1");
    first.send({ case: "draining", value: {} });
    (await stage.broker.stream(1)).break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    await until(() => stage.extended.includes("token-1"), { what: "an extension" });
    expect((await stage.broker.stream(2)).request.resumeLeaseTokens).toEqual(["token-1"]);
    expect(signal.aborted).toBe(false);
  });

  it("reads jobs that are pulled no faster than it runs them, and asks nobody to keep or take them back", async () => {
    const { handler, begun, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2, silenceLimitMs: 150 });
    void stage.worker.start();
    const first = (await stage.broker.stream(0)).start();
    for (let n = 0; n < 10; n++) first.pulled(`${n}-a`, `${n}-b`);
    await running("0-b");
    // The silence is the worker's own: it reads nothing, for longer than a stream may be silent.
    await until(() => performance.now() - first.openedAt > 400, { what: "a while" });
    expect(stage.errors).toEqual([]);
    expect(begun).toEqual(["0-a", "0-b"]);
    first.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    for (let n = 0; n < 10; n++) {
      await running(`${n}-b`);
      finish(`${n}-a`);
      finish(`${n}-b`);
    }
    await stage.released(20);
    for (const { request } of stage.broker.streams.slice(1)) expect(request.resumeLeaseTokens).toEqual([]);
    expect(stage.extended).toEqual([]);
  });

  it("aborts a revoked job and drops what its handler makes of it", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 1 });
    void stage.worker.start();
    const stream = (await stage.broker.stream(0)).start();
    stream.jobs("1");
    const signal = await running("1");
    stream.send({ case: "revoked", value: { leaseTokens: ["token-1", "unknown"], reason: RevokedReason.DELETED } });
    await until(() => signal.aborted, { what: "the job's signal to abort" });
    expect(signal.reason).toBeInstanceOf(JobAborted);
    expect(signal.reason).toMatchObject({ reason: "DELETED" });
    stream.jobs("2");
    finish("1");
    await running("2");
    finish("2");
    expect((await stage.released(1)).map(({ leaseToken }) => leaseToken)).toEqual(["token-2"]);
  });

  it("takes a stream for lost on which not even keepalives come", async () => {
    const stage = await Stage.open(() => {}, { silenceLimitMs: 150 });
    void stage.worker.start();
    const first = (await stage.broker.stream(0)).start();
    await stage.broker.stream(1);
    expect(stage.errors[0]?.error).toMatchObject({ code: "UNAVAILABLE", reason: "STREAM_SILENT" });
    await until(() => first.cancelled, { what: "the silent stream to be cancelled" });
  });

  it("waits longer and longer before it opens a stream that breaks every time", async () => {
    const stage = await Stage.open(() => {}, { maxReconnectDelayMs: 400 });
    void stage.worker.start();
    const times: number[] = [];
    for (let n = 0; n < 5; n++) {
      const stream = await stage.broker.stream(n);
      times.push(performance.now());
      stream.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    }
    const waits = times.slice(1).map((time, n) => time - (times[n] ?? 0));
    expect(waits[0]).toBeGreaterThan(45);
    expect(waits[2]).toBeGreaterThan(195);
    expect(waits[3]).toBeLessThan(2_000);
  });

  it("finds its broker again after that was away altogether", async () => {
    const stage = await Stage.open(() => "done");
    const started = stage.worker.start();
    (await stage.broker.stream(0)).start();
    await started;
    stage.broker.stop();
    await until(() => stage.errors.length > 1, { what: "attempts that fail" });
    const port = Number(stage.broker.address.split(":")[1]);
    const next = await startScriptedBroker({}, { port });
    await next.stream(0);
    await stage.worker.stop();
    next.stop();
  });

  it("stops for good when the broker refuses the subscription", async () => {
    const stage = await Stage.open(() => {});
    const started = stage.worker.start();
    const violations = [{ field: "queues[0].name", description: "must be 1 to 128 characters" }];
    (await stage.broker.stream(0)).break(statusOf(INVALID_ARGUMENT, "BAD_REQUEST", { violations }));
    await expect(started).rejects.toMatchObject({ code: "INVALID_ARGUMENT", violations });
    await expect(stage.worker.closed).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(stage.broker.streams).toHaveLength(1);
  });

  it("reports a lease that was lost before the release, and goes on", async () => {
    const lost = statusOf(FAILED_PRECONDITION, "LEASE_LOST");
    const stage = await Stage.open(
      () => "done",
      {},
      {
        releaseMany: ({ releases }) => ({ results: releases.map(() => ({ result: { case: "error", value: lost } })) }),
      },
    );
    void stage.worker.start();
    const stream = (await stage.broker.stream(0)).start();
    stream.jobs("1");
    await until(() => stage.errors.length === 1, { what: "the report" });
    stream.jobs("2");
    await until(() => stage.errors.length === 2, { what: "the second report" });
    expect(stage.errors[0]).toMatchObject({
      error: { reason: "LEASE_LOST" },
      context: { during: "release", job: { id: "1" } },
    });
  });

  it("fails a job for good whose result the broker refuses, because the work is done", async () => {
    const outcomes: ReleaseRequest["outcome"][] = [];
    const stage = await Stage.open(
      () => "too large",
      {},
      {
        releaseMany: ({ releases: [release] }) => {
          if (release === undefined) return {};
          outcomes.push(release.outcome);
          const value = statusOf(INVALID_ARGUMENT, "BAD_REQUEST", { message: "result is larger than 4 MiB" });
          if (release.outcome.case === "completed") return { results: [{ result: { case: "error", value } }] };
          return { results: [{ result: { case: "released", value: { state: JobState.FAILED } } }] };
        },
      },
    );
    void stage.worker.start();
    (await stage.broker.stream(0)).start().jobs("1");
    await until(() => outcomes.length === 2, { what: "the second release" });
    expect(outcomes[1]).toMatchObject({
      case: "failed",
      value: { permanent: true, type: "RESULT_REFUSED", message: expect.stringContaining("larger than 4 MiB") },
    });
  });

  it("repeats a release while the broker is unavailable", async () => {
    let calls = 0;
    const stage = await Stage.open(
      () => "done",
      {},
      {
        releaseMany: ({ releases }) => {
          calls++;
          if (calls < 3) throw new Refusal(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
          stage.releases.push(...releases);
          return { results: [{ result: { case: "released", value: { state: JobState.COMPLETED } } }] };
        },
      },
    );
    void stage.worker.start();
    (await stage.broker.stream(0)).start().jobs("1");
    await stage.released(1);
    expect(stage.errors).toEqual([]);
  });
});

describe("Worker.stop()", () => {
  it("lets the jobs in hand finish, and gives back what arrives meanwhile", async () => {
    const { handler, begun, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2 });
    void stage.worker.start();
    const stream = (await stage.broker.stream(0)).start();
    stream.jobs("1");
    await running("1");
    const stopped = stage.worker.stop();
    stream.jobs("2");
    await until(() => stream.cancelled, { what: "the stream to be closed" });
    expect((await stage.released(1)).map((r) => [r.leaseToken, r.outcome.case])).toEqual([["token-2", "returned"]]);
    finish("1");
    await within(stopped, { what: "the worker to stop" });
    expect(begun).toEqual(["1"]);
    expect(stage.releases.map((r) => r.outcome.case)).toEqual(["returned", "completed"]);
    expect(stage.broker.streams).toHaveLength(1);
  });

  it("keeps the leases of the jobs that it lets finish", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler);
    void stage.worker.start();
    (await stage.broker.stream(0)).start({ graceMs: 200 }).jobs("1");
    const signal = await running("1");
    const stopped = stage.worker.stop();
    await until(() => stage.extended.length >= 3, { what: "three extensions" });
    expect(signal.aborted).toBe(false);
    finish("1");
    await stopped;
  });

  it("aborts and gives back what is not finished in time", async () => {
    const { handler, running } = gate();
    const stage = await Stage.open(handler);
    void stage.worker.start();
    (await stage.broker.stream(0)).start().jobs("1");
    const signal = await running("1");
    const slow = stage.worker.stop({ timeoutMs: 60_000 });
    await within(Promise.all([stage.worker.stop({ timeoutMs: 100 }), slow]), { what: "the worker to stop" });
    expect(signal.reason).toMatchObject({ reason: "WORKER_STOPPED" });
    expect(stage.releases.map((r) => [r.leaseToken, r.outcome.case])).toEqual([["token-1", "returned"]]);
  });

  it("is harmless before the start, and twice", async () => {
    const stage = await Stage.open(() => {});
    await stage.worker.stop();
    await stage.worker.stop();
    await stage.worker.closed;
    await stage.worker.start();
    expect(stage.broker.streams).toHaveLength(0);
  });

  it("happens by itself after maxJobs", async () => {
    const stage = await Stage.open(() => "done", { concurrency: 10, maxJobs: 1 });
    void stage.worker.start();
    const stream = await stage.broker.stream(0);
    expect(stream.request.maxOutstanding).toBe(1);
    stream.start().jobs("1");
    await within(stage.worker.closed, { what: "the worker to stop" });
    expect(stage.releases).toHaveLength(1);
  });
});
