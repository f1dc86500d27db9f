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
import {
  type Answer,
  acceptAll,
  job,
  type OnWork,
  Refusal,
  type Script,
  type ScriptedBroker,
  type ScriptedWork,
  startScriptedBroker,
  statusOf,
} from "./scripted-broker.ts";

const INVALID_ARGUMENT = 3;
const DEADLINE_EXCEEDED = 4;
const FAILED_PRECONDITION = 9;
const INTERNAL = 13;
const UNAVAILABLE = 14;

/** A worker on a scripted broker that accepts every release and every extension, unless the test says otherwise. */
class Stage {
  /** Those that were accepted, on streams and by ReleaseMany. */
  readonly releases: ReleaseRequest[] = [];
  /** Those of them that came by ReleaseMany. */
  readonly called: ReleaseRequest[] = [];
  /** How many came in each message. */
  readonly batches: number[] = [];
  readonly extended: string[] = [];
  /** The jobs of those of which the worker has heard. */
  readonly onReleased: string[] = [];
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
      onReleased: ({ id }) => this.onReleased.push(id),
      onError: (error, context) => this.errors.push({ error, context }),
      ...options,
    });
  }

  static async open(
    handler: Handler,
    options: Partial<WorkerOptions> = {},
    { onWork = acceptAll, ...script }: Script & { readonly onWork?: OnWork } = {},
  ): Promise<Stage> {
    const unary: Script = {
      releaseMany: ({ releases }) => {
        stage.batches.push(releases.length);
        stage.releases.push(...releases);
        stage.called.push(...releases);
        return {
          results: releases.map(() => ({ result: { case: "released", value: { state: JobState.COMPLETED } } })),
        };
      },
      extend: ({ leaseTokens }) => {
        stage.extended.push(...leaseTokens);
        return { results: leaseTokens.map(() => ({ result: { case: "leaseExpiresAt", value: {} } })) };
      },
      ...script,
    };
    const broker = await startScriptedBroker(unary, {
      onWork: (stream, message) => {
        if (message.releases.length > 0) stage.batches.push(message.releases.length);
        if (onWork === acceptAll) stage.releases.push(...message.releases);
        onWork(stream, message);
      },
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

/** Releases are answered as the test says. */
function answering(answer: (release: ReleaseRequest) => Answer): OnWork {
  return (stream, { releases, quiet }) => {
    for (const release of releases) stream.answer(release, answer(release));
    if (quiet !== undefined) stream.send({ quiet });
  };
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
      textless: () => Promise.reject(Object.create(null)),
      odd: () => Promise.reject(Object.assign(new Error(), { message: 42, name: 43 })),
      never: () => Promise.reject(new RetryLater(Number.MAX_VALUE)),
      yesterday: (job) => job.giveBack({ delayMs: -1 }),
    };
    const ids = Object.keys(handlers);
    const stage = await Stage.open((job, context) => handlers[job.id]?.(job, context), { concurrency: ids.length });
    const started = stage.worker.start();
    const stream = await stage.broker.work(0);
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
    expect(outcomes.get("textless")).toMatchObject(failed("what was thrown has no text", "object"));
    expect(outcomes.get("odd")).toMatchObject(failed("42", "43"));
    expect(outcomes.get("never")).toMatchObject(failed("delayMs must be a number from 0 to 365 days", "TypeError"));
    expect(outcomes.get("yesterday")).toMatchObject(
      failed("delayMs must be a number from 0 to 36,525 days", "TypeError"),
    );
    const unforeseen = ["fails", "badResult", "long", "strange", "textless", "odd", "never", "yesterday"];
    expect(stage.errors.map(({ context }) => context.job?.id).sort()).toEqual(unforeseen.sort());
  });

  it("sends releases that are ready at the same time in one call", async () => {
    const stage = await Stage.open(() => "done", { concurrency: 50 });
    void stage.worker.start();
    (await stage.broker.work(0)).start().jobs(...Array.from({ length: 50 }, (_, n) => String(n)));
    await stage.released(50);
    expect(stage.batches).toEqual([50]);
  });

  it("sends at most 1,000 releases, and about 4 MiB, in one message", async () => {
    const text = "x".repeat(1_500_000);
    const stage = await Stage.open(({ id }) => (id.startsWith("big") ? text : "done"), { concurrency: 2_500 });
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs(...Array.from({ length: 2_500 }, (_, n) => String(n)));
    await stage.released(2_500);
    expect(stage.batches).toEqual([1_000, 1_000, 500]);
    stream.jobs(...Array.from({ length: 6 }, (_, n) => `big-${n}`));
    await stage.released(2_506);
    expect(stage.batches.slice(3)).toEqual([2, 2, 2]);
    expect(stage.called).toEqual([]);
  });

  it("gathers what it has to say while the broker does not read, and says all of it", async () => {
    const text = "x".repeat(65_536);
    const stage = await Stage.open(() => text, { concurrency: 300 });
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.pause();
    const ids = Array.from({ length: 300 }, (_, n) => String(n));
    for (const id of ids) {
      stream.jobs(id);
      await new Promise(setImmediate);
    }
    expect(stage.releases.length).toBeLessThan(300);
    stream.resume();
    await stage.released(300);
    expect(stage.releases.map(({ leaseToken }) => leaseToken)).toEqual(ids.map((id) => `token-${id}`));
    expect(stage.batches.length).toBeLessThan(250);
    expect(Math.max(...stage.batches)).toBeLessThanOrEqual(64);
  });

  it("never runs more handlers at once than its concurrency", async () => {
    const { handler, begun, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2 });
    void stage.worker.start();
    (await stage.broker.work(0)).start().jobs("1", "2", "3");
    await running("2");
    expect(begun).toEqual(["1", "2"]);
    finish("1");
    await running("3");
  });

  it("opens a lost stream again, and its jobs in hand go on and keep their leases", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 4 });
    void stage.worker.start();
    const first = await stage.broker.work(0);
    first.start({ graceMs: 400 }).jobs("1", "2");
    const signal = await running("2");
    first.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    const second = await stage.broker.work(1);
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
    expect(stage.broker.works).toHaveLength(2);
    expect(stage.errors).toMatchObject([{ context: { during: "stream" }, error: { reason: "STORE_UNAVAILABLE" } }]);
  });

  it("aborts a job in hand when no broker confirms its lease within the grace", async () => {
    const { handler, running } = gate();
    const stage = await Stage.open(handler, {}, { extend: () => new Promise(() => {}) });
    void stage.worker.start();
    const stream = await stage.broker.work(0);
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
    const stream = await stage.broker.work(0);
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
    const first = await stage.broker.work(0);
    first.start().jobs("1");
    const signal = await running("1");
    first.send({ draining: {} });
    const second = await stage.broker.work(1);
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
    const first = (await stage.broker.work(0)).start();
    first.jobs("1", "2");
    const signals = [await running("1"), await running("2")];
    first.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    const second = (await stage.broker.work(1)).start();
    second.send({ revoked: [{ leaseTokens: ["token-1"], reason: RevokedReason.EXPIRED }] });
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
    const first = (await stage.broker.work(0)).start({ graceMs: 400 });
    first.jobs("1");
    const signal = await running("1");
    first.send({ draining: {} });
    (await stage.broker.work(1)).break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    await until(() => stage.extended.includes("token-1"), { what: "an extension" });
    expect((await stage.broker.work(2)).request.resumeLeaseTokens).toEqual(["token-1"]);
    expect(signal.aborted).toBe(false);
  });

  it("says how many jobs may come as those end that no stream could take along", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 4 });
    void stage.worker.start();
    const first = (await stage.broker.work(0)).start();
    first.pulled("1", "2", "3");
    await running("3");
    first.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    const second = (await stage.broker.work(1)).start();
    expect(second.request).toMatchObject({ maxOutstanding: 1, resumeLeaseTokens: [] });
    for (const [id, credit] of [
      ["1", 2],
      ["2", 3],
      ["3", 4],
    ] as const) {
      finish(id);
      await until(() => second.credit === credit, { what: `a credit of ${credit}` });
    }
    expect(stage.broker.works).toHaveLength(2);
  });

  it("takes no jobs for a handler that goes on although its job was taken away, until it ends", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2 });
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs("1", "2");
    await running("2");
    stream.send({ revoked: [{ leaseTokens: ["token-1"], reason: RevokedReason.CANCELLED }] });
    await until(() => stream.credit === 1, { what: "a credit of 1" });
    finish("1");
    await until(() => stream.credit === 2, { what: "a credit of 2" });
    finish("2");
    await stage.released(1);
  });

  it("lets go of a lease on the new stream that it gave up before that was open", async () => {
    const { handler, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2 }, { extend: () => new Promise(() => {}) });
    void stage.worker.start();
    const first = (await stage.broker.work(0)).start({ graceMs: 200 });
    first.jobs("1", "2");
    await running("2");
    // Its handler goes on, so one of the next jobs waits.
    first.send({ revoked: [{ leaseTokens: ["token-1"], reason: RevokedReason.DELETED }] });
    first.jobs("3");
    await until(() => first.credit === 1, { what: "the worker to have heard of it" });
    first.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    const second = await stage.broker.work(1);
    expect(second.request.resumeLeaseTokens).toEqual(["token-2", "token-3"]);
    const signal = await running("2");
    await until(() => signal.aborted, { what: "the signal to abort" });
    second.start();
    await stage.released(1);
    expect(stage.releases).toMatchObject([{ leaseToken: "token-3", outcome: { case: "returned" } }]);
  });

  it("reads jobs that are pulled no faster than it runs them, and asks nobody to keep or take them back", async () => {
    const { handler, begun, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2, silenceLimitMs: 150 });
    void stage.worker.start();
    const first = (await stage.broker.work(0)).start();
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
    for (const { request } of stage.broker.works.slice(1)) expect(request.resumeLeaseTokens).toEqual([]);
    expect(stage.extended).toEqual([]);
  });

  it("aborts a revoked job and drops what its handler makes of it", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 1 });
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs("1");
    const signal = await running("1");
    stream.send({ revoked: [{ leaseTokens: ["token-1", "unknown"], reason: RevokedReason.DELETED }] });
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
    const first = (await stage.broker.work(0)).start();
    await stage.broker.work(1);
    expect(stage.errors[0]?.error).toMatchObject({ code: "UNAVAILABLE", reason: "STREAM_SILENT" });
    await until(() => first.cancelled, { what: "the silent stream to be cancelled" });
  });

  it("waits longer and longer before it opens a stream that breaks every time", async () => {
    const stage = await Stage.open(() => {}, { maxReconnectDelayMs: 400 });
    void stage.worker.start();
    const times: number[] = [];
    for (let n = 0; n < 5; n++) {
      const stream = await stage.broker.work(n);
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
    (await stage.broker.work(0)).start();
    await started;
    stage.broker.stop();
    await until(() => stage.errors.length > 1, { what: "attempts that fail" });
    const port = Number(stage.broker.address.split(":")[1]);
    const next = await startScriptedBroker({}, { port });
    await next.work(0);
    await stage.worker.stop();
    next.stop();
  });

  it("stops for good when the broker refuses the subscription", async () => {
    const stage = await Stage.open(() => {});
    const started = stage.worker.start();
    const violations = [{ field: "queues[0].name", description: "must be 1 to 128 characters" }];
    (await stage.broker.work(0)).break(statusOf(INVALID_ARGUMENT, "BAD_REQUEST", { violations }));
    await expect(started).rejects.toMatchObject({ code: "INVALID_ARGUMENT", violations });
    await expect(stage.worker.closed).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(stage.broker.works).toHaveLength(1);
  });

  it("reports a lease that was lost before the release, and goes on", async () => {
    const lost = statusOf(FAILED_PRECONDITION, "LEASE_LOST");
    const stage = await Stage.open(() => "done", {}, { onWork: answering(() => ({ case: "error", value: lost })) });
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs("1");
    await until(() => stage.errors.length === 1, { what: "the report" });
    stream.jobs("2");
    await until(() => stage.errors.length === 2, { what: "the second report" });
    expect(stage.errors[0]).toMatchObject({
      error: { reason: "LEASE_LOST" },
      context: { during: "release", job: { id: "1" } },
    });
    expect(stage.called).toEqual([]);
  });

  it("fails a job for good whose result the broker refuses, because the work is done", async () => {
    const outcomes: ReleaseRequest["outcome"][] = [];
    const refused = statusOf(INVALID_ARGUMENT, "BAD_REQUEST", { message: "result is larger than 4 MiB" });
    const onWork = answering(({ outcome }) => {
      outcomes.push(outcome);
      if (outcome.case === "completed") return { case: "error", value: refused };
      return { case: "released", value: { state: JobState.FAILED } };
    });
    const stage = await Stage.open(() => "too large", {}, { onWork });
    void stage.worker.start();
    (await stage.broker.work(0)).start().jobs("1");
    await until(() => outcomes.length === 2, { what: "the second release" });
    expect(outcomes[1]).toMatchObject({
      case: "failed",
      value: { permanent: true, type: "RESULT_REFUSED", message: expect.stringContaining("larger than 4 MiB") },
    });
  });

  it("sends a result by itself that is too large to go with others, so that a stream is not lost for it", async () => {
    const stage = await Stage.open((job) => (job.id === "large" ? "x".repeat(5 * 1024 * 1024) : "small"), {
      concurrency: 2,
    });
    void stage.worker.start();
    (await stage.broker.work(0)).start().jobs("large", "small");
    await stage.released(2);
    expect(stage.called.map(({ leaseToken }) => leaseToken)).toEqual(["token-large"]);
    expect(stage.errors).toEqual([]);
  });

  it("repeats a release while Redis is away, by calls", async () => {
    let calls = 0;
    const away = statusOf(UNAVAILABLE, "STORE_UNAVAILABLE");
    const stage = await Stage.open(
      () => "done",
      {},
      {
        onWork: answering(() => ({ case: "error", value: away })),
        releaseMany: ({ releases }) => {
          calls++;
          if (calls < 3) throw new Refusal(away);
          stage.releases.push(...releases);
          return { results: [{ result: { case: "released", value: { state: JobState.COMPLETED } } }] };
        },
      },
    );
    void stage.worker.start();
    (await stage.broker.work(0)).start().jobs("1");
    await stage.released(1);
    expect(stage.errors).toEqual([]);
  });

  it("goes on repeating a release, however long Redis is away: the broker may keep the lease as long", async () => {
    let tries = 0;
    const away = statusOf(UNAVAILABLE, "STORE_UNAVAILABLE");
    const stage = await Stage.open(
      () => "done",
      {},
      {
        onWork: answering(() =>
          ++tries < 3 ? { case: "error", value: away } : { case: "released", value: { state: JobState.COMPLETED } },
        ),
        releaseMany: () => {
          throw new Refusal(statusOf(DEADLINE_EXCEEDED, "DEADLINE"));
        },
      },
    );
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs("1");
    await until(() => tries === 3, { what: "the release that is accepted" });
    expect(stage.errors.map(({ context }) => [context.during, context.job?.id])).toEqual([
      ["release", "1"],
      ["release", "1"],
    ]);
  });

  it("leaves a stream whose broker does not let go of a job, and takes the others along", async () => {
    const { handler, finish, running } = gate();
    const broken = statusOf(INTERNAL, "INTERNAL");
    const stage = await Stage.open(
      handler,
      { concurrency: 2 },
      { onWork: answering(() => ({ case: "error", value: broken })) },
    );
    void stage.worker.start();
    (await stage.broker.work(0)).start().jobs("1", "2");
    await running("2");
    finish("1");
    const next = await stage.broker.work(1);
    expect(next.request).toMatchObject({ maxOutstanding: 2, resumeLeaseTokens: ["token-2"] });
    expect(stage.errors[0]).toMatchObject({ context: { during: "release", job: { id: "1" } } });
    expect(stage.errors[1]).toMatchObject({ error: { reason: "RELEASE_REFUSED" }, context: { during: "stream" } });
  });

  it("keeps the lease of a job in time whose stream ends while it still waits for the answer about another", async () => {
    const { handler, running } = gate();
    const asked: string[][] = [];
    const stage = await Stage.open(
      handler,
      { concurrency: 3, maxReconnectDelayMs: 60_000 },
      {
        extend: ({ leaseTokens }) => {
          asked.push(leaseTokens);
          return new Promise(() => {});
        },
      },
    );
    void stage.worker.start();
    const first = (await stage.broker.work(0)).start({ graceMs: 1_000 });
    first.jobs("1");
    await running("1");
    first.send({ draining: {} });
    const second = (await stage.broker.work(1)).start({ graceMs: 1_000 });
    second.jobs("2");
    await running("2");
    // One that was on its way.
    first.jobs("3");
    await running("3");
    second.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    await until(() => asked.length === 1, { what: "the first extension" });
    first.end();
    const endedAt = performance.now();
    await until(() => asked.some((tokens) => tokens.includes("token-3")), { what: "that of the other job" });
    expect(performance.now() - endedAt).toBeLessThan(800);
  });

  it("says a release again that was not answered when its stream ended, and reports it once", async () => {
    const onReleased: string[] = [];
    const stage = await Stage.open(
      () => "done",
      { concurrency: 2, onReleased: (job) => onReleased.push(job.id) },
      // Answers one of two, and is gone.
      {
        onWork: (stream, { releases, quiet }) => {
          if (quiet !== undefined) stream.send({ quiet });
          const [first] = releases;
          if (first === undefined) return;
          stream.answer(first);
          stream.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
        },
      },
    );
    void stage.worker.start();
    (await stage.broker.work(0)).start().jobs("1", "2");
    await until(() => onReleased.length === 2, { what: "both releases" });
    expect(onReleased).toEqual(["1", "2"]);
    expect(stage.called.map(({ leaseToken }) => leaseToken)).toEqual(["token-2"]);
    expect(stage.errors).toMatchObject([{ context: { during: "stream" } }]);
  });

  it("takes along the lease of a job whose release is still on its way elsewhere", async () => {
    const answer = Promise.withResolvers<void>();
    const onReleased: string[] = [];
    const stage = await Stage.open(
      () => "done",
      { concurrency: 3, onReleased: (job) => onReleased.push(job.id) },
      {
        onWork: (stream, { releases, quiet }) => {
          if (quiet !== undefined) stream.send({ quiet });
          if (releases.length > 0) stream.end();
        },
        releaseMany: async ({ releases }) => {
          await answer.promise;
          return {
            results: releases.map(() => ({ result: { case: "released", value: { state: JobState.COMPLETED } } })),
          };
        },
      },
    );
    void stage.worker.start();
    (await stage.broker.work(0)).start().jobs("1");
    const second = await stage.broker.work(1);
    expect(second.request).toMatchObject({ maxOutstanding: 3, resumeLeaseTokens: ["token-1"] });
    second.start();
    answer.resolve();
    await until(() => onReleased.length === 1, { what: "the release" });
    expect(stage.broker.works).toHaveLength(2);
  });
});

describe("A job's progress", () => {
  const reportsOf = (stream: ScriptedWork) =>
    stream.messages.flatMap(({ progress }) => progress.map(({ percent, note }) => [percent, note]));

  it("is reported as a whole number of percent with a note that fits, at most ten times a second, the last one last", async () => {
    const done = Promise.withResolvers<void>();
    const stage = await Stage.open(async (_job, { progress }) => {
      progress(-3.2, "é".repeat(600));
      await until(() => reportsOf(stream).length === 1, { what: "the first report" });
      for (let percent = 0; percent < 1_000; percent++) {
        progress(percent / 8, `step ${percent}`);
        if (percent % 10 === 0) await new Promise(setImmediate);
      }
      await until(() => reportsOf(stream).at(-1)?.[1] === "step 999", { what: "the last report" });
      done.resolve();
    });
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs("1");
    const startedAt = performance.now();
    await done.promise;
    const most = 2 + (performance.now() - startedAt) / 100;
    const reports = reportsOf(stream);
    expect(reports[0]).toEqual([0, "é".repeat(512)]);
    expect(reports.at(-1)).toEqual([100, "step 999"]);
    expect(reports.length).toBeLessThanOrEqual(most);
  });

  it("is not sent any more once the job is released, nor for a job without lease", async () => {
    let late = () => {};
    const stage = await Stage.open(
      (job, { progress }) => {
        if (job.id === "1") late = () => progress(50);
        progress(10);
      },
      { concurrency: 2 },
    );
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs("1");
    stream.pulled("2");
    await stage.released(2);
    late();
    stream.jobs("3");
    await stage.released(3);
    expect(reportsOf(stream)).toEqual([]);
  });

  it("waits for the next stream when there is none", async () => {
    const { handler, running, finish } = gate();
    let say = (_percent: number) => {};
    const stage = await Stage.open((job, context) => {
      say = context.progress;
      return handler(job, context);
    });
    void stage.worker.start();
    const first = (await stage.broker.work(0)).start();
    first.jobs("1");
    await running("1");
    first.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    const second = await stage.broker.work(1);
    say(70);
    second.start();
    await until(() => reportsOf(second).length === 1, { what: "the report" });
    expect(reportsOf(second)).toEqual([[70, ""]]);
    finish("1");
  });

  it("tells onError of reports that were refused, but not where the lease was lost, and throws for what is no number", async () => {
    const { handler, running, finish } = gate();
    const thrown: unknown[] = [];
    const stage = await Stage.open((job, context) => {
      try {
        context.progress(Number.NaN);
      } catch (error) {
        thrown.push(error);
      }
      return handler(job, context);
    });
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs("1");
    await running("1");
    const refuse = (error: ReturnType<typeof statusOf>) =>
      stream.send({ refusedReports: [{ leaseToken: "token-1", error }] });
    refuse(statusOf(FAILED_PRECONDITION, "LEASE_LOST"));
    refuse(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    await until(() => stage.errors.length > 0, { what: "the report's refusal" });
    expect(stage.errors).toMatchObject([
      { error: { reason: "STORE_UNAVAILABLE" }, context: { during: "progress", job: { id: "1" } } },
    ]);
    expect(thrown).toEqual([new TypeError("percent must be a number")]);
    finish("1");
  });
});

describe("Worker.stop()", () => {
  it("says quiet, gives back what comes before the answer, lets the jobs in hand finish, and closes its side", async () => {
    const { handler, begun, finish, running } = gate();
    const stage = await Stage.open(
      handler,
      { concurrency: 2 },
      {
        onWork: (stream, { releases, quiet }) => {
          for (const release of releases) stream.answer(release);
          stage.releases.push(...releases);
          // A job that was on its way.
          if (quiet !== undefined) stream.jobs("3");
          if (quiet !== undefined) stream.send({ jobs: [job("4")], quiet });
        },
      },
    );
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs("1", "2");
    await running("2");
    const stopped = stage.worker.stop();
    await stage.released(2);
    expect(stage.releases.map((r) => [r.leaseToken, r.outcome.case])).toEqual([
      ["token-3", "returned"],
      ["token-4", "returned"],
    ]);
    finish("1");
    finish("2");
    await within(stopped, { what: "the worker to stop" });
    expect(begun).toEqual(["1", "2"]);
    expect(stage.releases.slice(2).map((r) => r.outcome.case)).toEqual(["completed", "completed"]);
    expect(stage.broker.works).toHaveLength(1);
    expect(stream.finished).toBe(true);
    expect(stage.errors).toEqual([]);
  });

  it("does without a broker that does not answer quiet: it keeps the leases of the jobs that it lets finish", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(
      handler,
      { concurrency: 2 },
      {
        onWork: (stream, { start }) =>
          stage.broker.works.length > 1 && start && stream.break(statusOf(UNAVAILABLE, "DRAINING")),
      },
    );
    void stage.worker.start();
    (await stage.broker.work(0)).start({ graceMs: 200 }).jobs("1");
    const signal = await running("1");
    const stopped = stage.worker.stop();
    await until(() => stage.extended.length >= 3, { what: "three extensions" });
    expect(signal.aborted).toBe(false);
    finish("1");
    await stopped;
    expect(stage.called.map((r) => [r.leaseToken, r.outcome.case])).toEqual([["token-1", "completed"]]);
  });

  it("takes the jobs that it lets finish along to another stream, which is quiet from the beginning", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2 });
    void stage.worker.start();
    const first = (await stage.broker.work(0)).start();
    first.jobs("1");
    const signal = await running("1");
    const stopped = stage.worker.stop();
    await until(() => first.messages.at(-1)?.quiet, { what: "quiet" });
    first.send({ draining: {} });
    const second = await stage.broker.work(1);
    expect(second.messages[0]).toMatchObject({ quiet: true, start: { resumeLeaseTokens: ["token-1"] } });
    second.start();
    first.end();
    expect(signal.aborted).toBe(false);
    finish("1");
    await within(stopped, { what: "the worker to stop" });
    expect(stage.releases.map((r) => [r.leaseToken, r.outcome.case])).toEqual([["token-1", "completed"]]);
    expect(stage.broker.works).toHaveLength(2);
  });

  it("aborts and gives back what is not finished in time", async () => {
    const { handler, running } = gate();
    const stage = await Stage.open(handler);
    void stage.worker.start();
    (await stage.broker.work(0)).start().jobs("1");
    const signal = await running("1");
    const slow = stage.worker.stop({ timeoutMs: 60_000 });
    await within(Promise.all([stage.worker.stop({ timeoutMs: 100 }), slow]), { what: "the worker to stop" });
    expect(signal.reason).toMatchObject({ reason: "WORKER_STOPPED" });
    expect(stage.releases.map((r) => [r.leaseToken, r.outcome.case])).toEqual([["token-1", "returned"]]);
  });

  it("says nothing more after it has closed its side, whatever becomes of the handlers that it left behind", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(
      handler,
      {},
      {
        onWork: (stream, message) => {
          acceptAll(stream, message);
          // Does not hear of the end for a while.
          if (message.releases.length > 0) stream.pause();
        },
      },
    );
    void stage.worker.start();
    const stream = (await stage.broker.work(0)).start();
    stream.jobs("1");
    await running("1");
    const stopped = stage.worker.stop({ timeoutMs: 0 });
    await until(() => stage.onReleased.length === 1, { what: "the job to be given back" });
    await new Promise(setImmediate);
    finish("1");
    await new Promise(setImmediate);
    stream.resume();
    await within(stopped, { what: "the worker to stop", withinMs: 1_500 });
    expect(stream.finished).toBe(true);
  });

  it("is harmless before the start, and twice", async () => {
    const stage = await Stage.open(() => {});
    await stage.worker.stop();
    await stage.worker.stop();
    await stage.worker.closed;
    await stage.worker.start();
    expect(stage.broker.works).toHaveLength(0);
  });

  it("happens by itself after maxJobs, of which the credit never allows more", async () => {
    const { handler, finish, running } = gate();
    const stage = await Stage.open(handler, { concurrency: 2, maxJobs: 3 });
    void stage.worker.start();
    const stream = await stage.broker.work(0);
    expect(stream.request.maxOutstanding).toBe(2);
    stream.start().jobs("1", "2");
    await running("2");
    expect(stream.credit).toBe(2);
    finish("1");
    await stage.released(1);
    // Said before the broker counts the release: one is in hand, one more may come.
    expect(stream.credit).toBe(2);
    finish("2");
    await stage.released(2);
    expect(stream.credit).toBe(1);
    stream.jobs("3");
    await running("3");
    finish("3");
    await within(stage.worker.closed, { what: "the worker to stop" });
    expect(stage.releases).toHaveLength(3);
  });
});
