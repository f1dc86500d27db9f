/** What redisched's users had: Lua primitives over jobs with ids of the client's. */
import { readFile } from "node:fs/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { DeliveryMode, OnConflict, RevokedReason } from "../../gen/baton/v1/job_service_pb.js";
import { QueueMode } from "../../gen/baton/v1/queue_service_pb.js";
import { type HookRequest, type HookServer, startHook } from "../cli/hook-server.ts";
import { startCli } from "../cli/run-cli.ts";
import { at, type DurationInit, days, expectLeaseLost, hours, ms, untilState } from "../rpc/fixture.ts";
import { until, within } from "../support/wait.ts";
import { BURIED, COMPLETED, idsOf, numbered, Room, runAt, text } from "./support.ts";

const room = new Room();

type Unfinished = "SCHEDULED" | "READY" | "HELD" | "RESERVED" | "RETRYING";
const UNFINISHED: readonly Unfinished[] = ["SCHEDULED", "READY", "HELD", "RESERVED", "RETRYING"];

/** A job "job" that stays in this state while the test runs; its lease token, if it has one. */
async function jobThatIs(
  state: keyof typeof JobState,
  more: { readonly retention?: DurationInit } = {},
): Promise<string> {
  const first = { payload: text("first"), ...more };
  if (state === "HELD") {
    const concurrency = { key: "one at a time", limit: 1 };
    await room.put("runs", { concurrency, leaseDuration: hours(1) });
    await room.take(1);
    await room.put("job", { ...first, concurrency });
    await room.take(1);
  } else if (state === "SCHEDULED") {
    await room.put("job", { ...first, start: { case: "delay", value: hours(1) } });
  } else {
    await room.put("job", { ...first, leaseDuration: hours(1) });
  }
  const [reserved] = state === "READY" || state === "HELD" || state === "SCHEDULED" ? [] : await room.take(1);
  if (reserved && state === "COMPLETED") await room.release(reserved);
  if (reserved && state === "FAILED") await room.release(reserved, BURIED);
  if (reserved && state === "RETRYING") {
    await room.release(reserved, { case: "failed", value: { retryAfter: hours(1) } });
  }
  expect(JobState[(await room.job("job")).state]).toBe(state);
  return reserved?.leaseToken ?? "";
}

describe("Client ids", () => {
  describe.each(UNFINISHED)("a second Put while the id is %s", (state) => {
    const second = { payload: text("second"), priority: 7 };

    it("is ALREADY_EXISTS and changes nothing: REJECT, which is the default", async () => {
      await jobThatIs(state);
      const before = await room.fixture.dump();
      for (const onConflict of [OnConflict.UNSPECIFIED, OnConflict.REJECT]) {
        const error = await room.client.bad("put", { queue: room.queue, id: "job", ...second, onConflict });
        expect(error).toMatchObject({ code: "ALREADY_EXISTS", reason: "JOB_EXISTS", metadata: { id: "job", state } });
      }
      expect(await room.fixture.dump()).toEqual(before);
    });

    it("or KEEP: answers with the job that is there, and changes nothing", async () => {
      await jobThatIs(state);
      const before = await room.fixture.dump();
      const answer = await room.put("job", { ...second, onConflict: OnConflict.KEEP });
      expect(answer).toMatchObject({ jobId: "job", created: false, state: JobState[state] });
      expect(await room.fixture.dump()).toEqual(before);
    });

    it(`or REPLACE: ${state === "RESERVED" ? "not allowed" : "the new job takes its place"}`, async () => {
      const leaseToken = await jobThatIs(state);
      const request = { queue: room.queue, id: "job", ...second, onConflict: OnConflict.REPLACE };
      if (state === "RESERVED") {
        expect(await room.client.bad("put", request)).toMatchObject({ reason: "JOB_EXISTS", metadata: { state } });
        await room.client.good("release", { leaseToken, outcome: COMPLETED });
        return;
      }
      expect(await room.client.good("put", request)).toMatchObject({ created: true, state: JobState.READY });
      const [job] = await room.take(1);
      expect(job).toMatchObject({ id: "job", payload: text("second"), priority: 7, attempt: 1, failures: 0 });
      expect(await room.take()).toEqual([]);
    });
  });

  it.each(["COMPLETED", "FAILED"] as const)("are reusable once the job has finished (%s)", async (state) => {
    await jobThatIs(state);
    expect(await room.put("job", { payload: text("again") })).toMatchObject({ created: true });
    expect((await room.take()).map(({ payload, attempt }) => [payload?.content.value, attempt])).toEqual([
      ["again", 1],
    ]);
  });

  it.each<[string, () => Promise<unknown>]>([
    ["deleted", () => room.client.good("delete", { queue: room.queue, id: "job" })],
    ["pulled", () => room.take(1, { mode: DeliveryMode.PULL })],
    ["completed with a retention of zero", async () => room.release((await room.take(1))[0] ?? expect.fail("no job"))],
  ])("are reusable once the job is gone (%s)", async (_how, end) => {
    await jobThatIs("READY", { retention: {} });
    await end();
    expect(await room.client.bad("get", { queue: room.queue, id: "job" })).toMatchObject({ reason: "JOB_NOT_FOUND" });
    expect(await room.put("job")).toMatchObject({ created: true, state: JobState.READY });
  });

  it("are chosen by the broker for who gives none", async () => {
    const { jobId } = await room.put("");
    expect(idsOf(await room.take())).toEqual([jobId]);
  });
});

describe("Reserve with `available_by`", () => {
  it("gets also jobs due up to that time (the future allowed), inclusive, earliest due first", async () => {
    const later = (await room.fixture.nowMs()) + 3_600_000;
    for (const [id, time] of [
      ["after", later + 1],
      ["at", later],
      ["long before", later - 60_000],
      ["before", later - 1],
    ] as const) {
      await room.put(id, { start: runAt(time) });
    }
    expect(await room.take()).toEqual([]);
    const jobs = await room.take(100, { availableBy: timestampFromMs(later) });
    expect(idsOf(jobs)).toEqual(["long before", "before", "at"]);
    for (const job of jobs) expect((await room.release(job)).state).toBe(JobState.COMPLETED);
    expect((await room.job("after")).state).toBe(JobState.SCHEDULED);
  });

  it("Ordering by due time, then insertion, within a priority", async () => {
    const soon = (await room.fixture.nowMs()) + 300;
    await room.put("third", { start: runAt(soon + 1) });
    await room.put("urgent, second", { start: runAt(soon + 2), priority: 1 });
    await room.put("first", { start: runAt(soon) });
    await room.put("second", { start: runAt(soon) });
    await room.put("urgent, first", { start: runAt(soon + 1), priority: 1 });
    await until(async () => (await room.fixture.nowMs()) > soon + 2, { what: "all to be due" });
    await room.put("fourth");
    expect(idsOf(await room.take())).toEqual(["urgent, first", "urgent, second", "first", "second", "third", "fourth"]);
  });

  it.each([
    ["spaces and line ends", Buffer.from("  a  b \r\n\t ")],
    ["NUL", Buffer.from([0, 65, 0, 0])],
    ["invalid UTF-8", Buffer.from([0xff, 0xfe, 0xc0, 0xaf, 0xed, 0xa0, 0x80])],
    ["every byte there is", Buffer.from(Uint8Array.from({ length: 256 }, (_, i) => i))],
    ["nothing", Buffer.alloc(0)],
  ])("Bodies are byte-exact: %s", async (_what, data) => {
    const bytes = { content: { case: "data", value: data } } as const;
    await room.put("job", { payload: bytes });
    const [job] = await room.take(1);
    expect(Buffer.from(job?.payload?.content.value as Uint8Array)).toEqual(data);
    await room.release(job ?? expect.fail("no job"), { case: "completed", value: { result: bytes } });
    const { payload, result } = await room.job("job");
    for (const body of [payload, result]) expect(Buffer.from(body?.content.value ?? "")).toEqual(data);
  });
});

describe("Pull (mode PULL, Reserve and Subscribe)", () => {
  it("handed out once and gone, never requeued: Reserve", async () => {
    await room.putMany(numbered(10), { leaseDuration: ms(100) });
    const jobs = await room.take(100, { mode: DeliveryMode.PULL });
    expect(idsOf(jobs)).toEqual(numbered(10));
    // Long after the leases that others would have had: nothing comes back, and nothing is to be given back.
    expect(await room.take(100, { wait: ms(400) })).toEqual([]);
    expect((await room.queues.good("requeue", { queue: room.queue })).requeued).toBe(0);
    expect(await room.client.bad("get", { queue: room.queue, id: "3" })).toMatchObject({ reason: "JOB_NOT_FOUND" });
    const { counts, totals } = await room.shown();
    expect(Object.values(counts).filter((count) => typeof count === "bigint" && count > 0n)).toEqual([]);
    expect(totals).toMatchObject({ put: 10n, pulled: 10n, completed: 0n, failed: 0n });
  });

  it("handed out once and gone, never requeued: Subscribe, also when two workers take and one goes away", async () => {
    const request = { mode: DeliveryMode.PULL, maxOutstanding: 7, disconnectGrace: {} };
    const [one, two] = [await room.opened(request), await room.opened(request)];
    await room.putMany(numbered(50));
    const got = () => [...one.jobs(), ...two.jobs()];
    await until(() => got().length >= 50, { what: "all jobs" });
    one.cancel();
    expect(await room.take(100, { wait: ms(300) })).toEqual([]);
    expect(new Set(idsOf(got())).size).toBe(50);
    expect((await room.queues.good("requeue", { queue: room.queue })).requeued).toBe(0);
  });
});

describe("Delete by id in every state, before and while it runs", () => {
  it.each([...UNFINISHED, "COMPLETED", "FAILED"] as const)("%s", async (state) => {
    const leaseToken = await jobThatIs(state);
    const request = { queue: room.queue, id: "job" };
    expect(await room.client.good("delete", request)).toMatchObject({ deleted: true, previousState: JobState[state] });
    expect(await room.client.bad("get", request)).toMatchObject({ reason: "JOB_NOT_FOUND" });
    expect(await room.client.good("delete", request)).toMatchObject({ deleted: false, previousState: 0 });
    if (state !== "RESERVED") return;
    expectLeaseLost(await room.client.bad("release", { leaseToken, outcome: COMPLETED }), room.queue, "job");
  });

  it("while it runs: its worker is told on its stream, and its outcome is not accepted", async () => {
    const stream = await room.opened({ maxOutstanding: 2 });
    await room.put("job");
    const [{ leaseToken } = expect.fail("no job")] = await stream.got(1);
    await room.client.good("delete", { queue: room.queue, id: "job" });
    const revoked = await stream.saw("revoked");
    expect(revoked).toMatchObject({ leaseTokens: [leaseToken], reason: RevokedReason.DELETED });
    expectLeaseLost(await room.client.bad("release", { leaseToken, outcome: COMPLETED }), room.queue, "job");
  });

  it('"cancel the reminder mail if the user has acted" is README\'s example, and does what README says', async () => {
    const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
    const [, example = ""] = readme.split("**Cancel the reminder mail if the user has acted.**");
    expect(example.slice(0, 700)).toMatch(
      /reminder-42[\s\S]*JobService\/Put[\s\S]*reminder-42[\s\S]*JobService\/Delete/,
    );
    await room.put("reminder-42", { start: { case: "delay", value: days(1) } });
    const deleted = await room.client.good("delete", { queue: room.queue, id: "reminder-42" });
    expect(deleted).toMatchObject({ deleted: true, previousState: JobState.SCHEDULED });
    // Whoever has not acted gets it, and then it is too late, which the answer says, too.
    await room.put("reminder-43", { start: { case: "delay", value: ms(50) } });
    await room.release((await room.take(1, { wait: ms(5_000) }))[0] ?? expect.fail("no job"));
    const late = await room.client.good("delete", { queue: room.queue, id: "reminder-43" });
    expect(late).toMatchObject({ deleted: true, previousState: JobState.COMPLETED });
  });
});

describe("Requeue (QueueService)", () => {
  it("up to `limit` (default 1,000) reservations whose lease has ended go back, the number is returned", async () => {
    const queue = room.queue;
    // Where nothing returns by itself, it is Requeue that does it.
    await room.queues.good("updateQueue", { queue, settings: { mode: QueueMode.RECOVERABLE } });
    const ids = numbered(1_005);
    await room.putMany(ids);
    await room.take(1_000, { leaseDuration: ms(100) });
    const last = await room.take(10, { leaseDuration: ms(150) });
    await room.put("still running");
    await room.take(1, { leaseDuration: hours(1) });
    const over = Math.max(...last.map(({ leaseExpiresAt }) => at(leaseExpiresAt)));
    await until(async () => (await room.fixture.nowMs()) > over, { what: "the leases to end" });
    expect((await room.shown()).counts).toMatchObject({ reserved: 1_006n, ready: 0n });
    const requeue = async (limit = 0) => (await room.queues.good("requeue", { queue, limit })).requeued;
    expect([await requeue(), await requeue(3), await requeue(3), await requeue()]).toEqual([1_000, 3, 2, 0]);
    expect((await room.shown()).counts).toMatchObject({ reserved: 1n, ready: 1_005n });
    const again = [...(await room.take(1_000)), ...(await room.take(1_000))];
    expect(idsOf(again)).toEqual(ids);
    expect(again.every(({ attempt, failures }) => attempt === 2 && failures === 1)).toBe(true);
  });

  it("it also happens by itself, whether anybody waits for a job or not", async () => {
    await room.put("job");
    const [{ leaseToken } = expect.fail("no job")] = await room.take(1, { leaseDuration: ms(100) });
    await untilState(room.client, room.queue, "job", JobState.READY);
    expect((await room.queues.good("requeue", { queue: room.queue })).requeued).toBe(0);
    expectLeaseLost(await room.client.bad("release", { leaseToken, outcome: COMPLETED }), room.queue, "job");
    expect(await room.take()).toMatchObject([{ id: "job", attempt: 2, failures: 1 }]);
  });
});

describe("Push: `baton work --url`", () => {
  const hooks: HookServer[] = [];
  afterEach(async () => {
    await Promise.all(hooks.splice(0).map((hook) => hook.stop()));
  });

  async function hookThat(answer: (request: HookRequest) => void): Promise<HookServer> {
    const hook = await startHook(answer);
    hooks.push(hook);
    return hook;
  }

  const idOf = ({ message }: HookRequest) => String(message.headers["baton-job-id"]);

  /** Runs the command until `done`, and ends it as a user does. */
  async function pushing(url: string, options: readonly string[], done: () => Promise<unknown>): Promise<void> {
    const env = { BATON_ADDR: room.fixture.broker.address };
    const worker = startCli(["work", room.queue, "--url", url, ...options], { env });
    try {
      await done();
    } finally {
      worker.child.kill("SIGTERM");
    }
    expect(await within(worker.finished, { what: "the worker to exit" })).toMatchObject({ code: 0 });
  }

  it("posts each job to a web hook and releases it by the answer; with a timeout; no redirect to another host", async () => {
    const other = await hookThat(({ response }) => response.end());
    const answers: Readonly<Record<string, (request: HookRequest) => unknown>> = {
      "200": ({ response }) => response.end("done"),
      "204": ({ response }) => response.writeHead(204).end(),
      "429": ({ response }) => response.writeHead(429, { "retry-after": "7200" }).end("slow down"),
      "503": ({ response }) => response.writeHead(503, { "retry-after": "3600" }).end(),
      "500": ({ response }) => response.writeHead(500).end("oh no"),
      "404": ({ response }) => response.writeHead(404).end("no such user"),
      timeout: () => undefined,
      redirect: ({ response }) => response.writeHead(307, { location: `${other.origin}/` }).end(),
    };
    const hook = await hookThat((request) => answers[idOf(request)]?.(request));
    const ids = Object.keys(answers);
    await room.putMany(ids, { payload: text("the body"), retry: { initialBackoff: hours(10), maxBackoff: hours(10) } });
    const began = await room.fixture.nowMs();
    await pushing(hook.origin, ["--concurrency", "8", "--post-timeout", "500ms"], async () => {
      const isDone = async () =>
        (await Promise.all(ids.map(room.job.bind(room)))).every(
          ({ attempt, state }) => attempt === 1 && state !== JobState.RESERVED,
        );
      await until(isDone, { what: "every job to be posted once", withinMs: 15_000 });
    });

    expect(hook.requests.map(idOf).sort()).toEqual([...ids].sort());
    for (const { message, body } of hook.requests)
      expect([message.method, body.toString()]).toEqual(["POST", "the body"]);
    expect(await room.job("200")).toMatchObject({ state: JobState.COMPLETED, result: text("done") });
    expect((await room.job("204")).state).toBe(JobState.COMPLETED);
    const hoursUntil = async (id: string) => (at((await room.job(id)).runAt) - began) / 3_600_000;
    for (const [id, from, to] of [
      ["429", 2, 2.1],
      ["503", 1, 1.1],
      ["500", 7.9, 10.1],
      ["timeout", 7.9, 10.1],
    ] as const) {
      expect((await room.job(id)).state, id).toBe(JobState.RETRYING);
      expect(await hoursUntil(id), id).toBeGreaterThanOrEqual(from);
      expect(await hoursUntil(id), id).toBeLessThan(to);
    }
    expect((await room.job("timeout")).error).toMatchObject({ type: "TIMEOUT", permanent: false });
    for (const id of ["404", "redirect"]) {
      expect(await room.job(id), id).toMatchObject({ state: JobState.FAILED, error: { permanent: true } });
    }
    expect((await room.job("404")).error).toMatchObject({ type: "HTTP_404", message: "no such user" });
    expect(other.connections()).toBe(0);
  });

  it("with bounded concurrency", async () => {
    const open: HookRequest[] = [];
    let most = 0;
    const hook = await hookThat((request) => {
      open.push(request);
      most = Math.max(most, open.length);
    });
    await room.putMany(numbered(9));
    await pushing(hook.origin, ["--concurrency", "3"], async () => {
      for (let left = 9; left > 0; left--) {
        const expected = Math.min(3, left);
        await until(() => open.length === expected, { what: `${expected} posts at once`, withinMs: 10_000 });
        open.shift()?.response.end();
      }
      await until(async () => (await room.shown()).counts.completed === 9n, { what: "all to be completed" });
    });
    expect(most).toBe(3);
  });
});
