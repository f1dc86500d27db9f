/**
 * What a crash leaves. The broker is killed with -9, once alone and once with its Redis, and started again on the same
 * data folder: nothing that was acknowledged may be gone, and nothing that was finished may come back.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BatonClient, type Job, type ReservedJob } from "../../src/client/index.ts";
import { until } from "../support/wait.ts";
import { type BrokerProcess, killHard, startBrokerProcess } from "./broker-process.ts";

const QUEUE = "crash";
/** Long enough to release in, short enough to wait for. */
const LEASE_MS = 3_000;

describe.each([
  { victims: "the broker", withRedis: false },
  { victims: "the broker and its Redis", withRedis: true },
])("kill -9 of $victims", { timeout: 90_000 }, ({ withRedis }) => {
  let dataDir: string;
  let broker: BrokerProcess;
  let client: BatonClient;

  beforeEach(async () => {
    dataDir = await mkdtemp(join(tmpdir(), "baton-crash-"));
    await start();
  });

  afterEach(async () => {
    client.close();
    broker.terminate();
    await broker.waitForEnd();
    await rm(dataDir, { recursive: true, force: true });
  });

  async function start(): Promise<void> {
    broker = await startBrokerProcess("--data-dir", dataDir, "--appendfsync", "always");
    client = new BatonClient({ address: broker.address });
  }

  async function crash(): Promise<void> {
    const { redisPid } = broker;
    if (redisPid === undefined) throw new Error("the broker does not say which Redis it runs");
    await broker.kill();
    if (withRedis) await killHard(redisPid);
    client.close();
  }

  const get = (ids: readonly string[]): Promise<Job[]> => Promise.all(ids.map((id) => client.get(QUEUE, id)));
  const idsOf = (jobs: readonly { readonly id: string }[]) => jobs.map(({ id }) => id).sort();

  it("keeps every job, gives back those that were reserved, and brings back none that was completed", async () => {
    const ids = Array.from({ length: 1_000 }, (_, index) => `job-${index}`);
    const put = await client.putMany(ids.map((id) => ({ queue: QUEUE, id, payload: id })));
    expect(put.every(({ ok }) => ok)).toBe(true);
    const reserved = await client.reserve({ queues: [QUEUE], maxJobs: 100, leaseMs: LEASE_MS });
    expect(reserved).toHaveLength(100);
    const [completed, open] = [reserved.slice(0, 50), reserved.slice(50)];
    const released = await release(completed);
    expect(released.every((result) => result.ok && result.value.state === "COMPLETED")).toBe(true);

    await crash();
    await start();

    const done = new Set(idsOf(completed));
    const waiting = ids.filter((id) => !done.has(id));
    for (const job of await get(waiting)) {
      expect(["READY", "RESERVED"]).toContain(job.state);
      expect(job.payload.text()).toBe(job.id);
    }
    // The producers' ids and the winners' releases can be repeated, as if nothing had happened.
    await expect(client.put({ queue: QUEUE, id: "job-999" })).rejects.toMatchObject({ reason: "JOB_EXISTS" });
    expect(await release(completed)).toMatchObject(completed.map(() => ({ ok: true, value: { state: "COMPLETED" } })));

    // Nobody asks for jobs meanwhile: the leases end all the same.
    const isBack = ({ state, attempt, failures }: Job) => state === "READY" && attempt === 1 && failures === 1;
    await until(async () => (await get(idsOf(open))).every(isBack), { what: "the leases to end", withinMs: 15_000 });
    await expectLost(open);

    const again = await client.reserve({ queues: [QUEUE], maxJobs: 1_000 });
    expect(idsOf(again)).toEqual([...waiting].sort());
    expect(idsOf(again.filter(({ attempt }) => attempt === 2))).toEqual(idsOf(open));
    await expectLost(open);
    expect(await client.reserve({ queues: [QUEUE], maxJobs: 1_000 })).toEqual([]);
    for (const job of await get([...done])) expect(job).toMatchObject({ state: "COMPLETED", attempt: 1 });
  });

  it("keeps every job whose put was answered, also those of the last moment", async () => {
    const answered: string[] = [];
    let crashed = false;
    const producers = Array.from({ length: 16 }, async (_, producer) => {
      for (let n = 0; !crashed; n += 1) {
        const id = `${producer}-${n}`;
        const { jobId } = await client.put({ queue: QUEUE, id, payload: id });
        answered.push(jobId);
      }
    });
    const ended = Promise.allSettled(producers);
    await until(() => answered.length >= 500, { what: "500 puts", withinMs: 20_000 });
    await crash();
    crashed = true;
    await ended;
    expect(answered.length).toBeGreaterThanOrEqual(500);

    await start();
    for (const job of await get(answered)) expect(job).toMatchObject({ state: "READY", attempt: 0 });
  });

  function release(jobs: readonly ReservedJob[]) {
    return client.releaseMany(jobs.map(({ leaseToken }) => ({ leaseToken, outcome: "completed" as const })));
  }

  async function expectLost(jobs: readonly ReservedJob[]): Promise<void> {
    const lost = { ok: false, error: { code: "FAILED_PRECONDITION", reason: "LEASE_LOST" } };
    expect(await release(jobs)).toMatchObject(jobs.map(() => lost));
  }
});
