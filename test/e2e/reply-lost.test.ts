/**
 * Answers that are lost after the broker has done what it was asked for. The caller sees a broken connection, and asks
 * again, on a new one or at another broker: it gets the answer that it missed, and nothing has happened twice.
 */
import { describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { OnConflict } from "../../gen/baton/v1/job_service_pb.js";
import { at, hours, ms } from "../rpc/fixture.ts";
import { type Method, RawClient, type Request, type Response } from "../rpc/raw-client.ts";
import { WatchClient, type Watched } from "../rpc/watch-client.ts";
import { until } from "../support/wait.ts";
import { WorkStream } from "../support/work-stream.ts";
import { type Scene, twoBrokers } from "./brokers.ts";
import { outcomeOf } from "./worker-of-a-kind.ts";

const KEEP = OnConflict.KEEP;
const RESULT = { content: { case: "text", value: "done" } } as const;
const COMPLETED = { case: "completed", value: { result: RESULT } } as const;
const FAILED = { case: "failed", value: { message: "broken", type: "Bad", retryAfter: hours(1) } } as const;
const RETURNED = { case: "returned", value: { delay: hours(1) } } as const;

describe.concurrent("a call whose answer is lost, and that is made again", { timeout: 40_000 }, () => {
  const brokers = twoBrokers();

  /** Makes a call whose answer is lost, as soon as it has `happened`, and then makes it again. */
  async function twice<M extends Method>(
    scene: Scene,
    method: M,
    request: Request<M>,
    happened: () => Promise<boolean>,
  ): Promise<Response<M>> {
    const proxy = await scene.proxy();
    const client = new RawClient(proxy.address);
    try {
      await client.bad("get", { queue: scene.queue, id: "no such job" });
      proxy.lose("replies");
      const unanswered = client.call(method, request);
      await until(happened, { what: `${method} to take effect` });
      proxy.cut();
      expect(await unanswered).toMatchObject({ error: { code: "UNAVAILABLE" } });
      return await client.good(method, request);
    } finally {
      client.close();
    }
  }

  /** The transitions that a queue's jobs make from now on. */
  async function watched(
    scene: Scene,
    body: (transitions: (end: string) => Promise<string[]>, stream: Watched) => Promise<void>,
  ): Promise<void> {
    const watcher = new WatchClient(brokers.addresses[1]);
    try {
      const stream = await watcher.started({ queues: [scene.queue] });
      // A job that is deleted afterwards ends what there is to see.
      await body(async (end) => {
        await brokers.clients[1].good("delete", { queue: scene.queue, id: end });
        const isOver = () => stream.events().some(({ id, transition }) => id === end && transition === "delete");
        await until(isOver, { what: `the end of ${end}` });
        return stream.events().map(({ transition }) => transition);
      }, stream);
    } finally {
      watcher.close();
    }
  }

  async function isIn(scene: Scene, id: string, state: JobState): Promise<boolean> {
    return (await scene.job(id)).state === state;
  }

  /** The token of a job that is reserved, and how it got there. */
  async function reserved(scene: Scene, id: string): Promise<string> {
    await scene.put([id]);
    const job = await brokers.clients[1].reserveOne(scene.queue, { leaseDuration: hours(1) });
    expect(job.id).toBe(id);
    return job.leaseToken;
  }

  it("Put with an id and KEEP makes one job", async () => {
    await using scene = brokers.scene();
    await watched(scene, async (transitions) => {
      const request = { queue: scene.queue, id: "1", onConflict: KEEP };
      const answer = await twice(scene, "put", request, () => isIn(scene, "1", JobState.READY));
      expect(answer).toMatchObject({ jobId: "1", created: false, state: JobState.READY });
      expect(await transitions("1")).toEqual(["put", "delete"]);
    });
  });

  it("PutMany with ids and KEEP makes each job once", async () => {
    await using scene = brokers.scene();
    await watched(scene, async (transitions) => {
      const jobs = ["1", "2", "3"].map((id) => ({ queue: scene.queue, id, onConflict: KEEP }));
      const { results } = await twice(scene, "putMany", { jobs }, () => isIn(scene, "3", JobState.READY));
      expect(results.map(({ result }) => result.case === "job" && result.value.created)).toEqual([false, false, false]);
      expect(await transitions("3")).toEqual(["put", "put", "put", "delete"]);
    });
  });

  const OUTCOMES = [
    { outcome: COMPLETED, state: JobState.COMPLETED, transition: "complete", failures: 0 },
    { outcome: FAILED, state: JobState.RETRYING, transition: "fail", failures: 1 },
    { outcome: RETURNED, state: JobState.SCHEDULED, transition: "return", failures: 0 },
  ] as const;

  it.each(OUTCOMES)("Release: $outcome.case counts once", async ({ outcome, state, transition, failures }) => {
    await using scene = brokers.scene();
    await watched(scene, async (transitions) => {
      const leaseToken = await reserved(scene, "1");
      const answer = await twice(scene, "release", { leaseToken, outcome }, () => isIn(scene, "1", state));
      expect(answer.state).toBe(state);
      const job = await scene.job("1");
      expect(job).toMatchObject({ state, attempt: 1, failures });
      if (job.runAt) expect(at(answer.runAt)).toBe(at(job.runAt));
      expect(await transitions("1")).toEqual(["put", "reserve", transition, "delete"]);
    });
  });

  it.each(OUTCOMES)("ReleaseMany: $outcome.case counts once", async ({ outcome, state, transition, failures }) => {
    await using scene = brokers.scene();
    await watched(scene, async (transitions) => {
      const releases = [{ leaseToken: await reserved(scene, "1"), outcome }];
      const { results } = await twice(scene, "releaseMany", { releases }, () => isIn(scene, "1", state));
      expect(results.map(({ result }) => outcomeOf(result))).toEqual([JobState[state]]);
      expect(await scene.job("1")).toMatchObject({ state, attempt: 1, failures });
      expect(await transitions("1")).toEqual(["put", "reserve", transition, "delete"]);
    });
  });

  it.each(OUTCOMES)("a release on Work: $outcome.case counts once, repeated on another stream", async (it) => {
    await using scene = brokers.scene();
    await watched(scene, async (transitions) => {
      const proxy = await scene.proxy();
      const start = { queues: [{ name: scene.queue }], disconnectGrace: ms(0) };
      const first = await WorkStream.open(proxy.address, start);
      try {
        await scene.put(["1"]);
        const [job] = await first.got(1);
        const leaseToken = job?.leaseToken ?? "";
        const releases = [{ leaseToken, sequence: 1, outcome: it.outcome }];
        proxy.lose("replies");
        first.send({ releases });
        await until(() => isIn(scene, "1", it.state), { what: "the release to take effect" });
        proxy.cut();
        expect(await first.ended).toMatchObject({ code: "UNAVAILABLE" });

        // As a worker does that does not know which of its jobs it still has.
        const next = await WorkStream.open(brokers.addresses[1], { ...start, resumeLeaseTokens: [leaseToken] });
        next.send({ releases });
        try {
          const [answer] = await next.answered([1]);
          expect(outcomeOf(answer)).toBe(JobState[it.state]);
        } finally {
          next.close();
        }
        expect(await scene.job("1")).toMatchObject({ state: it.state, attempt: 1, failures: it.failures });
        expect(await transitions("1")).toEqual(["put", "reserve", it.transition, "delete"]);
      } finally {
        first.close();
      }
    });
  });

  it("an extend and a report on Work, repeated on another stream, leave the job with the same worker", async () => {
    await using scene = brokers.scene();
    await watched(scene, async (transitions, stream) => {
      const proxy = await scene.proxy();
      const start = { queues: [{ name: scene.queue }], disconnectGrace: ms(30_000) };
      const first = await WorkStream.open(proxy.address, start);
      let next: WorkStream | undefined;
      try {
        await scene.put(["1"]);
        const [job] = await first.got(1);
        const leaseToken = job?.leaseToken ?? "";
        const request = {
          extends: [{ leaseTokens: [leaseToken], leaseDuration: hours(2), sequence: 1 }],
          progress: [{ leaseToken, percent: 40 }],
        };
        const leaseEnd = async () => at((await scene.job("1")).leaseExpiresAt);
        const before = await leaseEnd();
        proxy.lose("replies");
        first.send(request);
        const hasHappened = async () =>
          (await leaseEnd()) > before + 3_600_000 && (await scene.job("1")).progress?.percent === 40;
        await until(hasHappened, { what: "the extend and the report to take effect" });
        proxy.cut();

        next = await WorkStream.open(brokers.addresses[1], { ...start, resumeLeaseTokens: [leaseToken] });
        next.send(request);
        const { results } = await next.saw(({ extended }) => extended[0], "extended");
        expect(results.map(({ result }) => result.case === "leaseExpiresAt" && at(result.value) > before)).toEqual([
          true,
        ]);
        await stream.got(4);
        expect(await scene.job("1")).toMatchObject({ state: JobState.RESERVED, attempt: 1, progress: { percent: 40 } });
        expect(next.revoked()).toEqual([]);
        expect(await transitions("1")).toEqual(["put", "reserve", "report", "report", "delete"]);
      } finally {
        first.close();
        next?.close();
      }
    });
  });

  it("Extend leaves the job as it is, and its lease ends as long after the last one", async () => {
    await using scene = brokers.scene();
    await watched(scene, async (transitions) => {
      const leaseToken = await reserved(scene, "1");
      const lease = async () => at((await scene.job("1")).leaseExpiresAt);
      const before = await lease();
      const request = { leaseTokens: [leaseToken], leaseDuration: hours(2) };
      const { results } = await twice(scene, "extend", request, async () => (await lease()) > before);
      const after = await lease();
      expect(results.map(({ result }) => result.case === "leaseExpiresAt" && at(result.value))).toEqual([after]);
      expect(after - before).toBeLessThan(3_600_000 + 60_000);
      expect(await scene.job("1")).toMatchObject({ state: JobState.RESERVED, attempt: 1 });
      expect(await transitions("1")).toEqual(["put", "reserve", "delete"]);
    });
  });

  it("ReportProgress says the same again, and does no more", async () => {
    await using scene = brokers.scene();
    await watched(scene, async (transitions) => {
      const leaseToken = await reserved(scene, "1");
      const before = await scene.job("1");
      const request = { leaseToken, percent: 40, note: "on its way" };
      await twice(scene, "reportProgress", request, async () => (await scene.job("1")).progress?.percent === 40);
      expect(await scene.job("1")).toMatchObject({
        progress: { percent: 40, note: "on its way" },
        attempt: 1,
        leaseExpiresAt: before.leaseExpiresAt,
      });
      expect(await transitions("1")).toEqual(["put", "reserve", "report", "report", "delete"]);
    });
  });

  it("Delete, Cancel and Retry take effect once, and say what they found the second time", async () => {
    await using scene = brokers.scene();
    await watched(scene, async (transitions) => {
      const { queue } = scene;
      await scene.put(["1", "2"]);
      const isGone = async () => "error" in (await brokers.clients[1].call("get", { queue, id: "1" }));
      expect(await twice(scene, "delete", { queue, id: "1" }, isGone)).toMatchObject({ deleted: false });
      const cancelled = await twice(scene, "cancel", { queue, id: "2" }, () => isIn(scene, "2", JobState.FAILED));
      expect(cancelled).toMatchObject({ cancelled: false, previousState: JobState.FAILED });
      const retried = await twice(scene, "retry", { queue, ids: ["2"] }, () => isIn(scene, "2", JobState.READY));
      expect(retried.retried).toBe(0);
      expect(await transitions("2")).toEqual(["put", "put", "delete", "cancel", "retry", "delete"]);
    });
  });
});
