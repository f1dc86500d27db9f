import { afterEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { OnConflict, type PutRequest } from "../../gen/baton/v1/job_service_pb.js";
import { BatonClient, BatonClientError } from "../../src/client/index.ts";
import { until } from "../support/wait.ts";
import { job, Refusal, type Script, type ScriptedBroker, startScriptedBroker, statusOf } from "./scripted-broker.ts";

const INVALID_ARGUMENT = 3;
const DEADLINE_EXCEEDED = 4;
const ALREADY_EXISTS = 6;
const FAILED_PRECONDITION = 9;
const UNAVAILABLE = 14;

let broker: ScriptedBroker | undefined;
let client: BatonClient | undefined;

async function clientOf(script: Script, defaultDeadlineMs = 5_000): Promise<BatonClient> {
  broker = await startScriptedBroker(script);
  client = new BatonClient({ address: broker.address, defaultDeadlineMs });
  return client;
}

afterEach(() => {
  client?.close();
  broker?.stop();
});

const unavailable = () => new Refusal(statusOf(UNAVAILABLE, "DRAINING"));

async function errorOf(promise: Promise<unknown>): Promise<BatonClientError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(BatonClientError);
  return error as BatonClientError;
}

describe("BatonClient.put()", () => {
  it("makes an id and repeats the put while the broker is unavailable, so that there is one job", async () => {
    const seen: PutRequest[] = [];
    const client = await clientOf({
      put: (request) => {
        seen.push(request);
        if (seen.length < 3) throw unavailable();
        return { jobId: request.id, created: false, state: JobState.READY };
      },
    });
    const result = await client.put({ queue: "q", payload: "x" });
    expect(new Set(seen.map(({ id }) => id)).size).toBe(1);
    expect(result.jobId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/);
    expect(seen.every(({ onConflict }) => onConflict === OnConflict.KEEP)).toBe(true);
    // An earlier attempt of the same call may have created it: nobody else has this id.
    expect(result).toMatchObject({ created: true, state: "READY" });
  });

  it("does not repeat a put of the user's own id, unless it is to be kept", async () => {
    let calls = 0;
    const client = await clientOf({
      put: ({ id }) => {
        calls++;
        if (calls === 1 || calls === 2) throw unavailable();
        return { jobId: id, created: false, state: JobState.READY };
      },
    });
    expect(await errorOf(client.put({ queue: "q", id: "mine" }))).toMatchObject({ code: "UNAVAILABLE" });
    expect(calls).toBe(1);
    expect(await client.put({ queue: "q", id: "mine", onConflict: "KEEP" })).toMatchObject({ created: false });
    expect(calls).toBe(3);
  });

  it("ends with the broker's last word when the deadline leaves no time for another attempt", async () => {
    const client = await clientOf({ put: () => Promise.reject(unavailable()) });
    const begun = performance.now();
    const error = await errorOf(client.put({ queue: "q" }, { deadlineMs: 300 }));
    expect(error).toMatchObject({ code: "UNAVAILABLE", reason: "DRAINING" });
    expect(performance.now() - begun).toBeLessThan(2_000);
  });

  it("ends with DEADLINE_EXCEEDED when the broker does not answer", async () => {
    const client = await clientOf({ put: () => new Promise(() => {}) });
    expect(await errorOf(client.put({ queue: "q" }, { deadlineMs: 100 }))).toMatchObject({ code: "DEADLINE_EXCEEDED" });
  });

  it("repeats no longer than repeatForMs, however long the call itself may take", async () => {
    const client = await clientOf({ retry: () => Promise.reject(unavailable()) });
    const begun = performance.now();
    const error = await errorOf(client.retryAllFailed("q", { deadlineMs: 60_000, repeatForMs: 200 }));
    expect(error).toMatchObject({ reason: "DRAINING" });
    expect(performance.now() - begun).toBeLessThan(2_000);
  });

  it("waits as long as the broker asks for before it repeats", async () => {
    const times: number[] = [];
    const client = await clientOf({
      put: ({ id }) => {
        times.push(performance.now());
        if (times.length === 1) throw new Refusal(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE", { retryAfterMs: 400 }));
        return { jobId: id, created: true, state: JobState.READY };
      },
    });
    await client.put({ queue: "q" });
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThan(380);
  });

  it("turns friendly inputs into the contract's messages", async () => {
    let seen: PutRequest | undefined;
    const client = await clientOf({
      put: (request) => {
        seen = request;
        return { jobId: request.id, created: true, state: JobState.SCHEDULED };
      },
    });
    const runAt = new Date("2027-01-31T08:00:00.250Z");
    await client.put({
      queue: "q",
      payload: { json: { a: 1 } },
      headers: { tenant: "acme" },
      priority: 9,
      runAt,
      leaseMs: 1_500,
      retry: { maxAttempts: 3, initialBackoffMs: 0.5, jitter: 0 },
      retentionMs: 0,
    });
    expect(seen).toMatchObject({
      payload: { content: { case: "text", value: '{"a":1}' }, contentType: "application/json" },
      headers: { tenant: "acme" },
      priority: 9,
      start: { case: "runAt", value: { seconds: 1_801_382_400n, nanos: 250_000_000 } },
      leaseDuration: { seconds: 1n, nanos: 500_000_000 },
      retry: { maxAttempts: 3, initialBackoff: { seconds: 0n, nanos: 1_000_000 }, jitter: 0 },
      retention: { seconds: 0n, nanos: 0 },
    });
    expect(seen?.retry?.multiplier).toBeUndefined();
    expect(seen?.expiresIn).toBeUndefined();
  });

  it.each([
    [{ queue: "q", delayMs: 1, runAt: new Date() }, "a job has either delayMs or runAt, not both"],
    [{ queue: "q", delayMs: Number.NaN }, "delayMs must be a number of milliseconds, but is NaN"],
    [{ queue: "q", runAt: new Date("never") }, "runAt must be a valid Date"],
    [{ queue: "q", payload: { json: undefined } }, "this value has no form in JSON"],
  ])("refuses what no message can hold before anything is sent (%#)", async (input, message) => {
    const client = await clientOf({});
    await expect(client.put(input)).rejects.toThrow(new TypeError(message));
  });
});

describe("BatonClient.putMany()", () => {
  it("repeats only the jobs that did not get in and can be repeated", async () => {
    const calls: string[][] = [];
    const busy = statusOf(UNAVAILABLE, "STORE_UNAVAILABLE");
    const client = await clientOf({
      putMany: ({ jobs }) => {
        calls.push(jobs.map(({ id }) => id));
        return {
          results: jobs.map(({ id }) =>
            calls.length === 1 && id !== "good"
              ? { result: { case: "error", value: busy } }
              : { result: { case: "job", value: { jobId: id, created: true, state: JobState.READY } } },
          ),
        };
      },
    });
    const results = await client.putMany([
      { queue: "q", id: "good" },
      { queue: "q", id: "once" },
      { queue: "q", id: "kept", onConflict: "KEEP" },
      { queue: "q" },
    ]);
    expect(calls).toHaveLength(2);
    expect(calls[1]).toEqual(["kept", calls[0]?.[3]]);
    expect(results.map((result) => (result.ok ? "ok" : result.error.reason))).toEqual([
      "ok",
      "STORE_UNAVAILABLE",
      "ok",
      "ok",
    ]);
  });

  it("throws when the whole batch is refused, with the violations", async () => {
    const violations = [{ field: "jobs", description: "must hold 1 to 1000 jobs" }];
    const client = await clientOf({
      putMany: () => Promise.reject(new Refusal(statusOf(INVALID_ARGUMENT, "BAD_REQUEST", { violations }))),
    });
    expect(await errorOf(client.putMany([{ queue: "q" }]))).toMatchObject({ code: "INVALID_ARGUMENT", violations });
  });

  it("throws when no broker answered before the deadline", async () => {
    const client = await clientOf({ putMany: () => Promise.reject(unavailable()) });
    expect(await errorOf(client.putMany([{ queue: "q" }], { deadlineMs: 200 }))).toMatchObject({ code: "UNAVAILABLE" });
  });
});

describe("BatonClient errors", () => {
  it("carry code, reason, message, metadata and the wait that helps", async () => {
    const status = statusOf(ALREADY_EXISTS, "JOB_EXISTS", {
      message: "queue q already has a job ä, which is READY",
      metadata: { state: "READY" },
      retryAfterMs: 1_500,
    });
    const client = await clientOf({ put: () => Promise.reject(new Refusal(status)) });
    expect(await errorOf(client.put({ queue: "q", id: "ä" }))).toMatchObject({
      code: "ALREADY_EXISTS",
      reason: "JOB_EXISTS",
      message: "queue q already has a job ä, which is READY",
      metadata: { state: "READY" },
      retryAfterMs: 1_500,
      violations: [],
    });
  });

  it("have no reason when no broker was there to say it", async () => {
    const client = await clientOf({});
    broker?.stop();
    const error = await errorOf(client.get("q", "1", { deadlineMs: 200 }));
    expect(["UNAVAILABLE", "DEADLINE_EXCEEDED"]).toContain(error.code);
    expect(error.reason).toBeUndefined();
  });

  it("stand in the results of a batch, item by item", async () => {
    const lost = statusOf(FAILED_PRECONDITION, "LEASE_LOST", { metadata: { queue: "q", id: "2" } });
    const client = await clientOf({
      releaseMany: () => ({
        results: [
          { result: { case: "released", value: { state: JobState.COMPLETED } } },
          { result: { case: "error", value: lost } },
        ],
      }),
    });
    const [first, second] = await client.releaseMany([
      { leaseToken: "1", outcome: "completed" },
      { leaseToken: "2", outcome: "completed" },
    ]);
    expect(first).toMatchObject({ ok: true, value: { state: "COMPLETED", runAt: undefined } });
    expect(second).toMatchObject({ ok: false, error: { reason: "LEASE_LOST", metadata: { id: "2" } } });
  });
});

describe("BatonClient calls", () => {
  it("end with the signal's reason, also while they wait to be repeated", async () => {
    let calls = 0;
    const client = await clientOf({
      release: () => {
        calls++;
        throw new Refusal(statusOf(UNAVAILABLE, "DRAINING", { retryAfterMs: 60_000 }));
      },
      reserve: () => new Promise(() => {}),
    });
    const abort = new AbortController();
    const limits = { signal: abort.signal, deadlineMs: 120_000 };
    const release = client.release("t", { outcome: "completed" }, limits);
    const reserve = client.reserve({ queues: ["q"], waitMs: 60_000 }, limits);
    await until(() => calls === 1, { what: "the first attempt" });
    abort.abort(new Error("enough"));
    await expect(release).rejects.toThrow("enough");
    await expect(reserve).rejects.toThrow("enough");
  });

  it("end when the client is closed, and cannot be made afterwards", async () => {
    let called = false;
    const client = await clientOf({
      reserve: () => {
        called = true;
        return new Promise(() => {});
      },
    });
    const reserve = errorOf(client.reserve({ queues: ["q"], waitMs: 60_000 }));
    await until(() => called, { what: "the call to arrive" });
    client.close();
    client.close();
    expect(await reserve).toMatchObject({ code: "CANCELLED", reason: "CLIENT_CLOSED" });
    expect(await errorOf(client.get("q", "1"))).toMatchObject({ reason: "CLIENT_CLOSED" });
  });

  it("accept deadlines longer than a timer can be", async () => {
    const client = await clientOf({ delete: () => ({ deleted: false }) }, 100 * 365 * 86_400_000);
    expect(await client.delete("q", "1")).toMatchObject({ deleted: false, previousState: "UNSPECIFIED" });
  });
});

describe("BatonClient.await()", () => {
  it("asks again where its wait is longer than one call may be, and for what is left only", async () => {
    const asked: number[] = [];
    const client = await clientOf({
      await: ({ queue, id, timeout }) => {
        asked.push(Number(timeout?.seconds));
        if (asked.length === 1) throw new Refusal(statusOf(DEADLINE_EXCEEDED, "AWAIT_TIMEOUT"));
        if (asked.length === 2) throw unavailable();
        return { job: { queue, id, state: JobState.COMPLETED } };
      },
    });
    expect(await client.await("q", "1", { timeoutMs: 7_200_000 })).toMatchObject({ id: "1", state: "COMPLETED" });
    expect(asked).toEqual([3_600, 3_600, 3_600]);
    await client.await("q", "1", { timeoutMs: 5_000 });
    expect(asked.at(-1)).toBeLessThanOrEqual(5);
  });
});

describe("BatonClient.subscribe()", () => {
  it("hands out what came before the stream broke, and then throws", async () => {
    const client = await clientOf({});
    const events = client.subscribe({ queues: ["q"], maxOutstanding: 5 });
    const first = events.next();
    const stream = await broker?.stream(0);
    stream?.start({ graceMs: 500 });
    expect((await first).value).toEqual({ type: "started", workerId: "w", leaseMs: 30_000, disconnectGraceMs: 500 });
    stream?.jobs("1", "2");
    stream?.break(statusOf(UNAVAILABLE, "STORE_UNAVAILABLE"));
    const { value } = await events.next();
    expect(value?.type === "jobs" && value.jobs.map(({ id }) => id)).toEqual(["1", "2"]);
    expect(await errorOf(events.next())).toMatchObject({ reason: "STORE_UNAVAILABLE" });
  });

  it("cancels the call when its reader leaves the loop", async () => {
    const client = await clientOf({});
    const reading = (async () => {
      for await (const event of client.subscribe({ queues: ["q"] })) return event.type;
      return "nothing";
    })();
    const stream = await broker?.stream(0);
    stream?.start();
    expect(await reading).toBe("started");
    await until(() => stream?.cancelled, { what: "the broker to see the cancellation" });
  });

  it("throws the signal's reason", async () => {
    const client = await clientOf({});
    const abort = new AbortController();
    const events = client.subscribe({ queues: ["q"] }, { signal: abort.signal });
    const next = events.next();
    await broker?.stream(0);
    abort.abort(new Error("enough"));
    await expect(next).rejects.toThrow("enough");
  });

  it("gives every message to a reader that is slower than the broker", async () => {
    const client = await clientOf({});
    const events = client.subscribe({ queues: ["q"] });
    const first = events.next();
    const stream = await broker?.stream(0);
    stream?.start();
    await first;
    const count = 500;
    for (let n = 0; n < count; n++) stream?.jobs(String(n));
    stream?.end();
    const ids: string[] = [];
    for await (const event of events) {
      if (event.type === "jobs") ids.push(...event.jobs.map(({ id }) => id));
      await new Promise(setImmediate);
    }
    expect(ids).toEqual(Array.from({ length: count }, (_, n) => String(n)));
  });
});

describe("answers", () => {
  it("become the contract's own JSON with JSON.stringify", async () => {
    const client = await clientOf({ reserve: () => ({ jobs: [job("1")] }) });
    const [reserved] = await client.reserve({ queues: ["q"] });
    expect(reserved?.payload.text()).toBe("payload of 1");
    expect(reserved?.putAt).toEqual(new Date(1_790_000_000_000));
    expect(JSON.parse(JSON.stringify(reserved))).toMatchObject({
      queue: "q",
      id: "1",
      payload: { text: "payload of 1", contentType: "" },
      leaseToken: "token-1",
      attempt: 1,
      priority: 0,
      putAt: new Date(1_790_000_000_000).toISOString().replace(".000Z", "Z"),
    });
  });
});
