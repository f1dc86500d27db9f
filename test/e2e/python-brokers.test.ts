/** The Python worker of examples/ at two brokers, which are ended in every way: nothing is lost, and nothing runs twice. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient, type Job } from "../../src/client/index.ts";
import { until } from "../support/wait.ts";
import { numbered } from "./brokers.ts";
import { Fleet } from "./fleet.ts";
import type { Program } from "./program.ts";
import { begun, Python, python } from "./python.ts";

describe.skipIf(!python)("the Python worker, whose broker ends,", { timeout: 60_000, concurrent: true }, () => {
  const QUEUE = "moving";
  const ids = numbered(24);
  let programs: Python;

  beforeAll(async () => {
    programs = await Python.withStubs();
  });

  afterAll(async () => {
    await programs?.[Symbol.asyncDispose]();
  });

  async function startFleet(howMany: number): Promise<Fleet> {
    const fleet = await Fleet.of(howMany, "--drain-grace", "20s");
    await fleet.start(...fleet.addresses);
    return fleet;
  }

  /** A worker that runs eight of the jobs at once, and the broker that it has chosen. */
  async function startWorker(fleet: Fleet): Promise<{ worker: Program; address: string; others: readonly string[] }> {
    const client = new BatonClient({ address: fleet.addresses[0] as string });
    const jobs = ids.map((id) => ({ queue: QUEUE, id, payload: "a b", headers: { seconds: "1.2" } }));
    await client.putMany(jobs).finally(() => client.close());
    const worker = await programs.worker(QUEUE, fleet.addresses.join(","), "--concurrency", "8", "--grace", "20");
    // With all its credit used, no job is on its way: one that is lost on it would come back when its lease ends.
    await until(() => Object.keys(begun(worker)).length === 16, { what: "the second round of jobs" });
    const address = connectedTo(worker)[0] as string;
    return { worker, address, others: fleet.addresses.filter((one) => one !== address) };
  }

  /** The brokers it has been at, in their order. */
  const connectedTo = (worker: Program) =>
    [...worker.output().matchAll(/^connected to (\S+) as/gm)].map(([, address]) => address);

  async function jobsAt(address: string, isEnough: (jobs: readonly Job[]) => boolean): Promise<readonly Job[]> {
    const client = new BatonClient({ address });
    const seen = async () => {
      const jobs = await Promise.all(ids.map((id) => client.get(QUEUE, id)));
      return isEnough(jobs) && jobs;
    };
    return await until(seen, { what: "all jobs to be done", withinMs: 30_000 }).finally(() => client.close());
  }

  const allOf = (through = "") => jobsAt(through, (jobs) => jobs.every(({ state }) => state === "COMPLETED"));

  const onceEach = Object.fromEntries(ids.map((id) => [id, 1]));

  it("by SIGTERM, takes its jobs along to the other, and the first does not wait for them", async () => {
    await using fleet = await startFleet(2);
    const { worker, address, others } = await startWorker(fleet);
    const before = Object.keys(begun(worker)).length;
    fleet.broker(address).terminate();
    expect(await fleet.broker(address).waitForEnd()).toMatchObject({ code: 0, signal: null });
    // It ended while the jobs that had been begun there were still running.
    expect(worker.output().split(": completed, now").length - 1).toBeLessThan(before);
    const jobs = await allOf(others[0]);
    expect(jobs.every(({ attempt, failures }) => attempt === 1 && failures === 0)).toBe(true);
    expect(begun(worker)).toEqual(onceEach);
    expect(connectedTo(worker)).toEqual([address, ...others]);
  });

  it("by SIGKILL, resumes its jobs at the other", async () => {
    await using fleet = await startFleet(2);
    const { worker, address, others } = await startWorker(fleet);
    await fleet.broker(address).kill();
    const jobs = await allOf(others[0]);
    expect(jobs.every(({ attempt, failures }) => attempt === 1 && failures === 0)).toBe(true);
    expect(begun(worker)).toEqual(onceEach);
    expect(connectedTo(worker)).toEqual([address, ...others]);
  });

  it("by SIGKILL, resumes its jobs at the same when that is back and there is no other", async () => {
    await using fleet = await startFleet(1);
    const { worker, address } = await startWorker(fleet);
    await fleet.broker(address).kill();
    await fleet.start(address);
    const jobs = await allOf(address);
    expect(jobs.every(({ attempt, failures }) => attempt === 1 && failures === 0)).toBe(true);
    expect(begun(worker)).toEqual(onceEach);
    expect(connectedTo(worker)).toEqual([address, address]);
  });

  it("by SIGTERM, while the worker gets SIGTERM too, finishes its jobs at the other and takes no new ones", async () => {
    await using fleet = await startFleet(2);
    const { worker, address, others } = await startWorker(fleet);
    worker.child.kill("SIGTERM");
    await worker.saw("takes no more jobs");
    fleet.broker(address).terminate();
    expect(await worker.ended).toMatchObject({ code: 0, signal: null });
    const jobs = await jobsAt(others[0] as string, () => true);
    const done = jobs.filter(({ state }) => state === "COMPLETED");
    const rest = jobs.filter(({ state }) => state === "READY");
    expect(done.length + rest.length).toBe(ids.length);
    expect(done.every(({ attempt }) => attempt === 1)).toBe(true);
    expect(rest.every(({ attempt, failures }) => attempt === 0 && failures === 0)).toBe(true);
    expect(begun(worker)).toEqual(Object.fromEntries(done.map(({ id }) => [id, 1])));
  });
});
