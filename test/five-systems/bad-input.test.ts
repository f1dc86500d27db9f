/** Each bad input that Baton was promised to withstand: a clear status that names the field, and nothing changed. */
import { readFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { QueuePolicy } from "../../gen/baton/v1/job_service_pb.js";
import { ScheduleService } from "../../gen/baton/v1/schedule_service_pb.js";
import { type HookRequest, type HookServer, startHook, writeWithoutEnd } from "../cli/hook-server.ts";
import { cli } from "../cli/run-cli.ts";
import { changingNothing as callChangingNothing } from "../rpc/changing-nothing.ts";
import { expectBadRequest, type Fixture, hours, ms, putOneInEveryState, startFixture } from "../rpc/fixture.ts";
import { QueueClient } from "../rpc/queue-client.ts";
import { type CallError, errorIn, type RawStream, type Request } from "../rpc/raw-client.ts";
import { type RequestOf, ServiceClient } from "../rpc/service-client.ts";
import { WatchClient, type WatchRequest } from "../rpc/watch-client.ts";
import { until } from "../support/wait.ts";
import { idsOf, numbered, text } from "./support.ts";

let fixture: Fixture;
let queues: QueueClient;
let schedules: ServiceClient<typeof ScheduleService>;

/** In it is a job in every state; nothing that is refused may change them, or anything else in Redis. */
const KEPT = "kept";

beforeAll(async () => {
  fixture = await startFixture();
  queues = new QueueClient(fixture.client);
  schedules = new ServiceClient(fixture.client, ScheduleService);
  await putOneInEveryState(fixture.client, KEPT);
});

afterAll(() => fixture?.stop());

async function refused(call: () => Promise<CallError>, ...fields: readonly string[]): Promise<void> {
  expectBadRequest(await callChangingNothing(fixture, call), ...fields);
}

describe("Cron lines", () => {
  const putCron = (value: string, timeZone = "") => {
    const timing = { case: "cron", value } as const;
    return schedules.bad("putSchedule", { schedule: { queue: KEPT, id: "s", timing, timeZone, template: {} } });
  };

  it.each([
    ["malformed: no fields", "nonsense"],
    ["malformed: four fields", "0 0 * *"],
    ["malformed: an open range", "0 9- * * *"],
    ["malformed: empty", ""],
    ["out of range: minute 60", "60 * * * *"],
    ["out of range: hour 24", "0 24 * * *"],
    ["out of range: month 13", "0 0 1 13 *"],
    ["out of range: weekday 8", "0 0 * * 8"],
    ["out of range: a sixth Friday", "0 0 * * fri#6"],
    ["never due: 30 February", "0 0 30 2 *"],
    ["never due: 31 April", "0 0 31 4 *"],
  ])("%s", (_, line) => refused(() => putCron(line), "schedule.cron"));

  it.each(["Europe/Atlantis", "Mars", "+25:00", "../etc/passwd"])("unknown time zones: %s", (zone) =>
    refused(() => putCron("0 0 * * *", zone), "schedule.time_zone"),
  );

  it("what is refused does not take the place of a schedule that is there", async () => {
    const request = { queue: KEPT, id: "there" };
    const timing = { case: "every", value: hours(1) } as const;
    await schedules.good("putSchedule", { schedule: { ...request, timing, template: {} } });
    const bad = { case: "cron", value: "0 0 30 2 *" } as const;
    const call = () => schedules.bad("putSchedule", { schedule: { ...request, timing: bad, template: {} } });
    await refused(call, "schedule.cron");
    await schedules.good("deleteSchedule", request);
  });
});

describe("Keys", () => {
  type PutSchedule = RequestOf<typeof ScheduleService, "putSchedule">;
  const LONG = "ä".repeat(128);
  const ROWS: readonly (readonly [string, Request<"put">, string])[] = [
    ["a concurrency key without a limit", { concurrency: { key: "k" } }, "concurrency.limit"],
    ["a limit below 1", { concurrency: { key: "k", limit: -1 } }, "concurrency.limit"],
    ["a limit without a concurrency key", { concurrency: { limit: 1 } }, "concurrency.key"],
    ["a concurrency key of 256 bytes", { concurrency: { key: LONG, limit: 1 } }, "concurrency.key"],
    ["a concurrency key with NUL", { concurrency: { key: "a\0b", limit: 1 } }, "concurrency.key"],
    ["a unique key of 256 bytes", { unique: { key: LONG } }, "unique.key"],
    ["a unique key with NUL", { unique: { key: "a\0b" } }, "unique.key"],
  ];

  it.each(ROWS)("%s", async (_, job, field) => {
    await refused(() => fixture.client.bad("put", { queue: KEPT, id: "new", ...job }), field);
    const inBatch = async () => {
      const { results } = await fixture.client.good("putMany", { jobs: [{ queue: KEPT, id: "new", ...job }] });
      return errorIn(results[0]?.result);
    };
    await refused(inBatch, `jobs[0].${field}`);
    const schedule = { queue: KEPT, id: "s", timing: { case: "every", value: hours(1) }, template: job };
    const inSchedule = () => schedules.bad("putSchedule", { schedule } as PutSchedule);
    await refused(inSchedule, `schedule.template.${field}`);
  });

  it("a limit that changes between jobs of one key: the newest counts, and the contract says so", async () => {
    const queue = "limits";
    const put = (id: string, limit: number) =>
      fixture.client.good("put", { queue, id, concurrency: { key: "k", limit } });
    const take = async () => idsOf(await fixture.client.reserve({ queues: [{ name: queue }], maxJobs: 10 }));
    for (const id of ["1", "2", "3"]) await put(id, 1);
    expect(await take()).toEqual(["1"]);
    await put("4", 2);
    expect(await take()).toEqual(["2"]);
    await put("5", 1);
    await fixture.client.good("delete", { queue, id: "1" });
    expect(await take()).toEqual([]);
    const contract = await readFile(new URL("../../proto/baton/v1/job.proto", import.meta.url), "utf8");
    expect(contract.replace(/\s+(\/\/ )?/g, " ")).toContain(
      "Where jobs of one key name different limits, that of the job put last holds, for all of them.",
    );
  });
});

describe("Page tokens, cursors, masks and weights", () => {
  const watchers: WatchClient[] = [];
  const streams: RawStream[] = [];

  afterEach(() => {
    for (const watcher of watchers.splice(0)) watcher.close();
  });
  afterAll(() => {
    for (const stream of streams) stream.cancel();
  });

  /** For each verb with pages: a token of its own, one call with a token, and one with a token for another query. */
  type Paged = {
    readonly token: () => Promise<string>;
    readonly use: (pageToken: string) => Promise<CallError>;
    readonly otherwise: ((pageToken: string) => Promise<CallError>) | undefined;
  };

  const list = { queue: "pages", state: JobState.READY };
  const VERBS: Readonly<Record<string, Paged>> = {
    List: {
      token: async () => (await fixture.client.good("list", { ...list, pageSize: 1 })).nextPageToken,
      use: (pageToken) => fixture.client.bad("list", { ...list, pageToken }),
      otherwise: (pageToken) => fixture.client.bad("list", { ...list, queue: KEPT, pageToken }),
    },
    "List of another state": {
      token: async () => (await fixture.client.good("list", { ...list, pageSize: 1 })).nextPageToken,
      use: (pageToken) => fixture.client.bad("list", { ...list, pageToken }),
      otherwise: (pageToken) => fixture.client.bad("list", { ...list, state: JobState.FAILED, pageToken }),
    },
    ListQueues: {
      token: async () => (await queues.good("listQueues", { pageSize: 1 })).nextPageToken,
      use: (pageToken) => queues.bad("listQueues", { pageToken }),
      otherwise: undefined,
    },
    ListSchedules: {
      token: async () => (await schedules.good("listSchedules", { queue: "pages", pageSize: 1 })).nextPageToken,
      use: (pageToken) => schedules.bad("listSchedules", { queue: "pages", pageToken }),
      otherwise: (pageToken) => schedules.bad("listSchedules", { queue: KEPT, pageToken }),
    },
    ListWorkers: {
      token: async () => (await queues.good("listWorkers", { queue: "crew", pageSize: 1 })).nextPageToken,
      use: (pageToken) => queues.bad("listWorkers", { queue: "crew", pageToken }),
      otherwise: (pageToken) => queues.bad("listWorkers", { queue: KEPT, pageToken }),
    },
  };
  const NAMES = Object.keys(VERBS);
  const tokens = new Map<string, string>();

  beforeAll(async () => {
    await fixture.client.good("putMany", { jobs: numbered(3).map((id) => ({ queue: "pages", id })) });
    for (const id of ["a", "b"]) {
      const timing = { case: "every", value: hours(1) } as const;
      await schedules.good("putSchedule", { schedule: { queue: "pages", id, timing, template: {} } });
      streams.push(fixture.client.subscribe({ queues: [{ name: "crew" }], workerId: id }));
    }
    for (const [name, { token }] of Object.entries(VERBS)) {
      tokens.set(name, await until(token, { what: `a page token of ${name}` }));
    }
  });

  it.each(NAMES)("page tokens forged: %s", async (name) => {
    const token = tokens.get(name) ?? "";
    const changed = `${token.slice(0, 5)}${token[5] === "A" ? "B" : "A"}${token.slice(6)}`;
    const made = Buffer.from(JSON.stringify({ queue: KEPT, after: 1 })).toString("base64url");
    for (const forged of ["garbage", changed, token.slice(0, -2), `${token}AA`, made, "\0"]) {
      await refused(() => (VERBS[name] as Paged).use(forged), "page_token");
    }
  });

  it.each(NAMES)("page tokens used with another query: %s", async (name) => {
    const { use, otherwise } = VERBS[name] as Paged;
    if (otherwise) await refused(() => otherwise(tokens.get(name) ?? ""), "page_token");
    for (const token of tokens.values()) {
      if (token !== tokens.get(name)) await refused(() => use(token), "page_token");
    }
  });

  it("cursors of another queue, and forged ones", async () => {
    const watcher = new WatchClient(fixture.broker.address);
    watchers.push(watcher);
    const [cursor = ""] = (await (await watcher.started({ queues: ["pages"] })).saw("started")).cursors;
    const open = async (request: WatchRequest) => (await watcher.open(request).ended) ?? expect.fail("it was taken");
    await refused(() => open({ queues: [KEPT], resumeAfter: [cursor] }), "resume_after[0]");
    await refused(() => open({ queues: ["pages"], resumeAfter: [`${cursor}A`] }), "resume_after[0]");
    await refused(() => open({ queues: ["pages"], resumeAfter: ["1-0"] }), "resume_after[0]");
  });

  it.each(["pausd", "settings.paused", "retry.nothing", "counts", "*", ""])(
    "update masks with unknown paths: %j",
    (path) => {
      const request = { queue: KEPT, settings: { paused: true }, updateMask: { paths: ["paused", path] } };
      return refused(() => queues.bad("updateQueue", request), "update_mask.paths[1]");
    },
  );

  it.each([0, -1, -(2 ** 31), 1_001])("weights of 0 and below, and above 1,000: %i", async (weight) => {
    const request = {
      queues: [
        { name: KEPT, weight: 1 },
        { name: "b", weight },
      ],
      policy: QueuePolicy.WEIGHTED,
    };
    await refused(() => fixture.client.bad("reserve", request), "queues[1].weight");
    const ended = async () => (await fixture.client.subscribe(request).ended) ?? expect.fail("it was taken");
    await refused(ended, "queues[1].weight");
  });
});

describe("Hook addresses", () => {
  const hooks: HookServer[] = [];
  let count = 0;

  afterEach(async () => {
    await Promise.all(hooks.splice(0).map((hook) => hook.stop()));
  });

  async function hookThat(answer: (request: HookRequest) => unknown): Promise<HookServer> {
    const hook = await startHook(answer);
    hooks.push(hook);
    return hook;
  }

  /** Lets the hook have one job; what the command said, and what has become of the job. */
  async function work(url: string, ...options: readonly string[]) {
    const queue = `hook-${++count}`;
    await fixture.client.good("put", { queue, id: "job", payload: text("in"), retry: { initialBackoff: hours(1) } });
    const env = { BATON_ADDR: fixture.broker.address };
    const said = await cli(["work", queue, "--url", url, "--once", ...options], { env });
    const { job } = await fixture.client.good("get", { queue, id: "job" });
    return { said, job: job ?? expect.fail("the job is gone") };
  }

  it.each(["ftp://127.0.0.1/", "file:///etc/passwd", "127.0.0.1:80", "http://", "http://a b/"])(
    "that are not http(s): %j",
    async (url) => {
      const { said, job } = await work(url);
      expect(said).toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining("--url") });
      expect(job).toMatchObject({ state: JobState.READY, attempt: 0 });
    },
  );

  it("that never answer", async () => {
    const hook = await hookThat(() => undefined);
    const { said, job } = await work(hook.origin, "--post-timeout", "300ms");
    expect(said.code).toBe(1);
    expect(job).toMatchObject({ state: JobState.RETRYING, failures: 1, error: { type: "TIMEOUT", permanent: false } });
    expect(job.error?.message).toContain(hook.origin);
  });

  it("that answer 10 GB", async () => {
    let written: ReturnType<typeof writeWithoutEnd> | undefined;
    const hook = await hookThat(({ response }) => {
      response.writeHead(200, { "content-length": String(10 * 1024 ** 3) });
      written = writeWithoutEnd(response);
    });
    const { said, job } = await work(hook.origin);
    // The hook has said that it did the work: only the answer cannot be kept, which is told.
    expect(said).toMatchObject({ code: 0, stderr: expect.stringMatching(/without/) });
    expect(job.state).toBe(JobState.COMPLETED);
    expect(job.result).toBeUndefined();
    await until(() => written?.closed(), { what: "the connection to be closed" });
    expect(written?.bytes()).toBeLessThan(64 * 1024 * 1024);
  });

  it("that redirect, to another host or without end", async () => {
    const other = await hookThat(({ response }) => response.end());
    const hook = await hookThat(({ message, response }) => {
      response.writeHead(307, { location: message.url === "/away" ? other.origin : "/again" }).end();
    });
    const { job: away } = await work(`${hook.origin}/away`);
    expect(away).toMatchObject({ state: JobState.FAILED, error: { type: "REDIRECT_TO_OTHER_HOST", permanent: true } });
    expect(other.connections()).toBe(0);
    const { job: again } = await work(`${hook.origin}/again`);
    expect(again).toMatchObject({ state: JobState.RETRYING, error: { type: "TOO_MANY_REDIRECTS" } });
  });
});

describe("An Await of what never existed", () => {
  it.each([
    ["a job", KEPT],
    ["a queue", "never"],
  ])("%s: NOT_FOUND at once", async (_, queue) => {
    const began = performance.now();
    const call = () => fixture.client.bad("await", { queue, id: "never", timeout: ms(9_000) });
    expect(await callChangingNothing(fixture, call)).toMatchObject({
      code: "NOT_FOUND",
      reason: "JOB_NOT_FOUND",
      metadata: { queue, id: "never" },
    });
    expect(performance.now() - began).toBeLessThan(5_000);
  });
});
