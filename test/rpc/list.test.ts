/** What the contract promises of List, sentence by sentence, over real gRPC. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Job, JobState, type Payload } from "../../gen/baton/v1/job_pb.js";
import { changingNothing } from "./changing-nothing.ts";
import { at, days, type Fixture, hours, ms, putOneInEveryState, startFixture } from "./fixture.ts";
import { RawClient, type Request } from "./raw-client.ts";

type Outcome = NonNullable<Request<"release">["outcome"]>;

const COMPLETED: Outcome = { case: "completed", value: {} };
const BURIED: Outcome = { case: "failed", value: { permanent: true } };
const RETURNED: Outcome = { case: "returned", value: {} };
const LATER: Outcome = { case: "failed", value: { retryAfter: hours(1) } };

let fixture: Fixture;
let queue: string;
let count = 0;

beforeAll(async () => {
  fixture = await startFixture();
  await putOneInEveryState(fixture.client, "kept");
});

afterAll(() => fixture?.stop());

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

/** A matcher that has to show 3 MiB takes its time. */
function isContent(payload: Payload | undefined, value: Uint8Array): boolean {
  return payload?.content.case === "data" && Buffer.compare(payload.content.value, value) === 0;
}

/** All pages, one after the other; `between` runs after each. */
async function paged(
  state: JobState,
  pageSize: number,
  between: () => Promise<unknown> = async () => {},
  client = fixture.client,
) {
  const all: Job[] = [];
  let pageToken = "";
  do {
    const page: { jobs: Job[]; nextPageToken: string } = await client.good("list", {
      queue,
      state,
      pageSize,
      pageToken,
    });
    expect(page.jobs.length).toBeLessThanOrEqual(pageSize);
    all.push(...page.jobs);
    pageToken = page.nextPageToken;
    await between();
  } while (pageToken !== "");
  return all;
}

const idsOf = (jobs: readonly { readonly id: string }[]) => jobs.map(({ id }) => id);

async function putMany(ids: readonly string[], more: Request<"put"> = {}): Promise<void> {
  for (let i = 0; i < ids.length; i += 1_000) {
    const jobs = ids.slice(i, i + 1_000).map((id) => ({ queue, id, ...more }));
    await fixture.client.good("putMany", { jobs });
  }
}

const numbered = (howMany: number, prefix = "") => Array.from({ length: howMany }, (_, i) => `${prefix}${i}`);

/** Takes so many jobs and ends all of them alike; in the order in which they came. */
async function takeAndRelease(howMany: number, outcome: Outcome | undefined): Promise<string[]> {
  const jobs = await fixture.client.reserveMany(queue, howMany);
  if (outcome) {
    for (let i = 0; i < jobs.length; i += 1_000) {
      const releases = jobs.slice(i, i + 1_000).map(({ leaseToken }) => ({ leaseToken, outcome }));
      await fixture.client.good("releaseMany", { releases });
    }
  }
  return idsOf(jobs);
}

describe("List", () => {
  it("shows of READY first what the next workers will get, and touches nothing", async () => {
    const { client } = fixture;
    await putMany(["low 1", "low 2"]);
    await putMany(["high 1", "high 2"], { priority: 9 });
    await putMany(["middle"], { priority: 5 });
    const { jobs, nextPageToken } = await changingNothing(fixture, () =>
      client.good("list", { queue, state: JobState.READY, pageSize: 3 }),
    );
    expect(idsOf(jobs)).toEqual(["high 1", "high 2", "middle"]);
    expect(nextPageToken).not.toBe("");
    expect(idsOf(await client.reserveMany(queue, 5))).toEqual(["high 1", "high 2", "middle", "low 1", "low 2"]);
  });

  it("shows each job as Get does, with worker, times and error", async () => {
    const { client } = fixture;
    for (const state of [1, 2, 4, 5, 6, 7]) {
      const { jobs, nextPageToken } = await client.good("list", { queue: "kept", state });
      expect(jobs).toHaveLength(1);
      expect(nextPageToken).toBe("");
      const { job } = await client.good("get", { queue: "kept", id: jobs[0]?.id ?? "" });
      expect(jobs[0]).toEqual(job);
      expect(job?.state).toBe(state);
    }
  });

  it("answers none for a queue that there is not, and makes none", async () => {
    const answer = await fixture.client.good("list", { queue, state: JobState.READY });
    expect(answer).toMatchObject({ jobs: [], nextPageToken: "" });
    expect(await fixture.redis.keys(`*${queue}*`)).toEqual([]);
  });

  it("has pages of 100 unless told otherwise", async () => {
    await putMany(numbered(150));
    expect((await fixture.client.good("list", { queue, state: JobState.READY })).jobs).toHaveLength(100);
  });

  it("shows jobs that became due as READY, not as SCHEDULED", async () => {
    await putMany(["soon"], { start: { case: "delay", value: ms(50) } });
    const { job } = await fixture.client.good("get", { queue, id: "soon" });
    await expect.poll(() => fixture.nowMs()).toBeGreaterThan(at(job?.runAt ?? job?.putAt));
    expect((await fixture.client.good("list", { queue, state: JobState.SCHEDULED })).jobs).toEqual([]);
    expect(idsOf((await fixture.client.good("list", { queue, state: JobState.READY })).jobs)).toEqual(["soon"]);
  });

  it("fits a page into the 4 MiB that gRPC clients accept, and still shows every job", async () => {
    const payload = { content: { case: "data", value: new Uint8Array(900 * 1024) } } as const;
    for (const id of numbered(10)) await fixture.client.good("put", { queue, id, payload });
    const { jobs } = await fixture.client.good("list", { queue, state: JobState.READY, pageSize: 10 });
    expect(jobs.length).toBeGreaterThan(1);
    expect(jobs.length).toBeLessThan(5);
    expect(idsOf(await paged(JobState.READY, 10))).toEqual(numbered(10));
  });

  it("leaves out a payload that would not fit beside its result, as Get and Await do, and Get has each by itself", async () => {
    const value = new Uint8Array(3 * 1024 * 1024).fill(7);
    const headers = { large: "h".repeat(60_000) };
    const payload = { content: { case: "data", value } } as const;
    const client = new RawClient(fixture.broker.address, { "grpc.max_receive_message_length": 4 * 1024 * 1024 });
    for (const id of ["both", "small"]) await client.good("put", { queue, id, payload, headers });
    for (const result of [payload, { content: { case: "text", value: "done" } } as const]) {
      const { leaseToken } = await client.reserveOne(queue);
      await client.good("release", { leaseToken, outcome: { case: "completed", value: { result } } });
    }
    const [both, small] = await paged(JobState.COMPLETED, 10, undefined, client);
    const { job: awaited } = await client.good("await", { queue, id: "both" });
    const { job: got } = await client.good("get", { queue, id: "both" });
    for (const job of [both, awaited, got]) {
      expect(job).toMatchObject({ payloadOmitted: true, headers });
      expect(job?.payload).toBeUndefined();
      expect(isContent(job?.result, value)).toBe(true);
    }
    const { job: without } = await client.good("get", { queue, id: "both", omitResult: true });
    expect(without).toMatchObject({ payloadOmitted: false, state: JobState.COMPLETED });
    expect(without?.result).toBeUndefined();
    expect(isContent(without?.payload, value)).toBe(true);
    expect(small?.payloadOmitted).toBe(false);
    expect(isContent(small?.payload, value)).toBe(true);
    client.close();
  });

  it("does so also where the keys and worker ids of 1,000 small jobs are long", async () => {
    const key = (i: number) => `${i}`.padEnd(255, "k");
    const { client } = fixture;
    const payload = { content: { case: "data", value: new Uint8Array(3_500) } } as const;
    await client.good("putMany", {
      jobs: numbered(1_000).map((id, i) => ({
        queue,
        id,
        payload,
        concurrency: { key: key(i), limit: 1 },
        unique: { key: key(i) },
      })),
    });
    const workerId = "w".repeat(255);
    let taken = 0;
    while (taken < 1_000) {
      taken += (await client.reserve({ queues: [{ name: queue }], maxJobs: 1_000, workerId, leaseDuration: hours(1) }))
        .length;
    }
    const { jobs, nextPageToken } = await client.good("list", { queue, state: JobState.RESERVED, pageSize: 1_000 });
    const bytes = jobs.reduce((sum, job) => sum + 3_500 + 3 * 258 + job.id.length + 2 * queue.length, 0);
    expect(bytes).toBeLessThan(4 * 1024 * 1024);
    expect(nextPageToken).not.toBe("");
    expect(await paged(JobState.RESERVED, 1_000)).toHaveLength(1_000);
  });
});

describe("paging through thousands of jobs while others move", () => {
  const STAY = 1_500;
  const MOVE = 1_500;

  /** Of each state: how jobs get there, and how those called "move…" leave it while the pages are read. */
  const CASES: readonly {
    readonly name: string;
    readonly state: JobState;
    readonly arrange: () => Promise<unknown>;
    readonly move: () => Promise<unknown>;
  }[] = [
    {
      name: "READY, where workers take and return from the head",
      state: JobState.READY,
      arrange: async () => {
        await putMany(numbered(MOVE, "move"), { priority: 1 });
        await putMany(numbered(STAY, "stay"));
      },
      move: async () => {
        await takeAndRelease(40, COMPLETED);
        await takeAndRelease(40, RETURNED);
        await putMany([`new ${Math.random()}`], { priority: 9 });
      },
    },
    {
      name: "SCHEDULED at one time, where some are deleted and others come",
      state: JobState.SCHEDULED,
      arrange: async () => {
        const runAt = { case: "runAt", value: { seconds: BigInt(Math.floor(Date.now() / 1_000) + 3_600) } } as const;
        const both = numbered(STAY, "stay").flatMap((id, i) => [id, `move${i}`]);
        await putMany(both, { start: runAt });
      },
      move: deleter(),
    },
    {
      name: "RESERVED, where some are released",
      state: JobState.RESERVED,
      arrange: async () => {
        await fixture.client.good("put", { queue, id: "first" });
        await putMany(
          numbered(STAY, "stay").flatMap((id, i) => [id, `move${i}`]),
          { leaseDuration: hours(1) },
        );
        await takeAndRelease(2 * STAY + 1, undefined);
      },
      move: deleter(),
    },
    {
      name: "RETRYING, where some are deleted",
      state: JobState.RETRYING,
      arrange: async () => {
        await putMany(numbered(STAY, "stay").flatMap((id, i) => [id, `move${i}`]));
        await takeAndRelease(2 * STAY, LATER);
      },
      move: deleter(),
    },
    {
      name: "COMPLETED, where more become completed",
      state: JobState.COMPLETED,
      arrange: async () => {
        await putMany(
          numbered(STAY, "stay").flatMap((id, i) => [id, `move${i}`]),
          { retention: hours(1) },
        );
        await takeAndRelease(2 * STAY, COMPLETED);
      },
      move: async () => {
        await putMany([`new ${Math.random()}`], { retention: days(1) });
        await takeAndRelease(1, COMPLETED);
      },
    },
    {
      name: "FAILED, where some are retried",
      state: JobState.FAILED,
      arrange: async () => {
        await putMany(numbered(STAY, "stay").flatMap((id, i) => [id, `move${i}`]));
        await takeAndRelease(2 * STAY, BURIED);
      },
      move: retrier(),
    },
    {
      name: "HELD, where slots are freed",
      state: JobState.HELD,
      arrange: async () => {
        await putMany(["holder"], { concurrency: { key: "a", limit: 1 }, priority: 9 });
        await putMany(numbered(MOVE, "move"), { concurrency: { key: "a", limit: 1 } });
        await putMany(["other holder"], { concurrency: { key: "b", limit: 1 }, priority: 9 });
        await putMany(numbered(STAY, "stay"), { concurrency: { key: "b", limit: 1 } });
        for (let held = 0; held < MOVE + STAY; ) {
          await fixture.client.reserve({ queues: [{ name: queue }], maxJobs: 1_000, leaseDuration: hours(1) });
          held = await fixture.redis.zcard(`baton:{${queue}}:held`);
        }
      },
      move: async () => {
        const { jobs } = await fixture.client.good("list", { queue, state: JobState.RESERVED });
        for (const { id } of jobs) if (id !== "other holder") await fixture.client.good("delete", { queue, id });
        await fixture.client.reserve({ queues: [{ name: queue }], maxJobs: 1, leaseDuration: hours(1) });
      },
    },
  ];

  /** Deletes some of those that move, from both ends. */
  function deleter(): () => Promise<unknown> {
    let next = 0;
    return async () => {
      for (let i = 0; i < 30; i++) {
        await fixture.client.good("delete", { queue, id: `move${next}` });
        await fixture.client.good("delete", { queue, id: `move${MOVE - 1 - next}` });
        next += 1;
      }
    };
  }

  function retrier(): () => Promise<unknown> {
    let next = 0;
    return async () => {
      const ids = Array.from({ length: 60 }, () => `move${next++}`);
      await fixture.client.good("retry", { queue, ids });
    };
  }

  it.each(CASES)("of $name: none that stays is missed or shown twice", async ({ state, arrange, move }) => {
    await arrange();
    const seen = idsOf(await paged(state, 149, move));
    const stayed = seen.filter((id) => id.startsWith("stay"));
    expect(stayed).toHaveLength(STAY);
    expect(new Set(stayed).size).toBe(STAY);
    if (state === JobState.READY || state === JobState.SCHEDULED) expect(stayed).toEqual(numbered(STAY, "stay"));
    expect(new Set(seen).size).toBe(seen.length);
  });
});
