/** What the contract promises of ScheduleService, sentence by sentence, over real gRPC and on Redis's own clock. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { CatchUp, Overlap, ScheduleService } from "../../gen/baton/v1/schedule_service_pb.js";
import { until } from "../support/wait.ts";
import { BAD_SCHEDULES } from "./bad-schedules.ts";
import { changingNothing } from "./changing-nothing.ts";
import { at, expectBadRequest, type Fixture, hours, ms, putOneInEveryState, startFixture } from "./fixture.ts";
import { RawClient } from "./raw-client.ts";
import { type RequestOf, ServiceClient } from "./service-client.ts";

type ScheduleInit = NonNullable<RequestOf<typeof ScheduleService, "putSchedule">["schedule"]>;

const LATER: NonNullable<ScheduleInit["timing"]> = { case: "every", value: hours(1) };
const EACH_SECOND: NonNullable<ScheduleInit["timing"]> = { case: "every", value: ms(1_000) };

let fixture: Fixture;
let schedules: ServiceClient<typeof ScheduleService>;
let queue: string;
let count = 0;

beforeAll(async () => {
  fixture = await startFixture({ maxSchedules: 300 });
  schedules = new ServiceClient(fixture.client, ScheduleService);
  await putOneInEveryState(fixture.client, "kept");
});

afterAll(() => fixture?.stop());

beforeEach(() => {
  count += 1;
  queue = `queue-${count}`;
});

const put = (schedule: ScheduleInit) =>
  schedules.good("putSchedule", {
    schedule: { queue, id: "s", timing: LATER, template: {}, ...schedule } as ScheduleInit,
  });

describe("PutSchedule", () => {
  it("answers with the schedule as it was put, when it was put, and when it runs next", async () => {
    const before = await fixture.nowMs();
    const asked: ScheduleInit = {
      timing: LATER,
      timeZone: "Europe/Berlin",
      catchUp: CatchUp.ALL,
      overlap: Overlap.SKIP,
      template: { payload: { content: { case: "text", value: "hello" } }, headers: { a: "b" }, priority: 3 },
    };
    const { created, schedule: view } = await put(asked);
    expect(created).toBe(true);
    expect(view?.schedule).toMatchObject({ queue, id: "s", ...asked, timing: { case: "every" }, paused: false });
    expect(at(view?.createdAt)).toBeGreaterThanOrEqual(before);
    expect(view?.updatedAt).toEqual(view?.createdAt);
    expect(Math.abs(at(view?.nextRunAt) - at(view?.createdAt) - 3_600_000)).toBeLessThan(500);
    expect(view).toMatchObject({ runs: 0n, skipped: 0n, lastJobId: "" });
    expect((await put(asked)).created).toBe(false);
    expect((await schedules.good("getSchedule", { queue, id: "s" })).schedule?.nextRunAt).toEqual(view?.nextRunAt);
  });

  it("takes ids of 200 bytes, and names its jobs after them", async () => {
    const id = "ä".repeat(100);
    await put({ id });
    const { jobId } = await schedules.good("triggerSchedule", { queue, id });
    expect(jobId.startsWith(`${id}@`)).toBe(true);
    expect((await fixture.client.good("get", { queue, id: jobId })).job?.state).toBe(JobState.READY);
  });

  it("refuses one more schedule than a queue may have, and still changes those that there are", async () => {
    await Promise.all(Array.from({ length: 300 }, (_, i) => put({ id: `s-${i}` })));
    expect(
      await schedules.bad("putSchedule", { schedule: { queue, id: "more", timing: LATER, template: {} } }),
    ).toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      reason: "TOO_MANY_SCHEDULES",
      metadata: { queue },
    });
    expect((await put({ id: "s-7", paused: true })).created).toBe(false);
    await schedules.good("deleteSchedule", { queue, id: "s-7" });
    expect((await put({ id: "more" })).created).toBe(true);
  });

  it.each(BAD_SCHEDULES)("refuses $name, names the field and changes nothing", async ({ schedule, fields }) => {
    const error = await changingNothing(fixture, () => schedules.bad("putSchedule", { schedule }));
    expectBadRequest(error, ...fields);
  });

  it("refuses a request without a schedule, and a schedule without a template", async () => {
    expectBadRequest(await schedules.bad("putSchedule", {}), "schedule");
    const schedule = { queue, id: "s", timing: LATER };
    expectBadRequest(await schedules.bad("putSchedule", { schedule }), "schedule.template");
  });
});

describe("a schedule of every second", () => {
  it("puts its jobs within 200 ms of their ticks, at the broker that took it", async () => {
    await put({ timing: EACH_SECOND });
    const jobs = [];
    for (let i = 0; i < 4; i++) jobs.push(await fixture.client.reserveOne(queue));
    const ticks = jobs.map(({ id }) => Date.parse(id.replace("s@", "")));
    expect(ticks.slice(1).map((tick, i) => tick - (ticks[i] ?? 0))).toEqual([1_000, 1_000, 1_000]);
    for (const [i, { putAt }] of jobs.entries()) {
      expect(at(putAt) - (ticks[i] ?? 0)).toBeGreaterThanOrEqual(0);
      expect(at(putAt) - (ticks[i] ?? 0)).toBeLessThan(200);
    }
    const { schedule: view } = await schedules.good("getSchedule", { queue, id: "s" });
    expect(Number(view?.runs)).toBeGreaterThanOrEqual(4);
    expect(view?.lastJobId).toMatch(/^s@/);
    await schedules.good("deleteSchedule", { queue, id: "s" });
  });

  it("puts its jobs where nobody waits for them", async () => {
    await put({ timing: EACH_SECOND });
    const runs = async () => (await schedules.good("getSchedule", { queue, id: "s" })).schedule?.runs ?? 0n;
    await until(async () => (await runs()) >= 2n, { what: "two runs" });
    await schedules.good("deleteSchedule", { queue, id: "s" });
  });
});

describe("a schedule whose record cannot be read", () => {
  it("is set aside with a logged error, and the queue's others run on", async () => {
    await put({ id: "bad", timing: EACH_SECOND });
    await fixture.redis.hset(`baton:{${queue}}:schedules`, "bad", "no MessagePack at all");
    await put({ id: "good", timing: EACH_SECOND });
    expect((await fixture.client.reserveOne(queue)).id).toMatch(/^good@/);
    const told = fixture.broker.log.filter(({ fields }) => (fields as { queue?: string }).queue === queue);
    expect(told).toEqual([
      { level: "error", message: "a record that cannot be read was set aside", fields: { queue, id: "schedule bad" } },
    ]);
    await schedules.good("deleteSchedule", { queue, id: "good" });
  });
});

describe("TriggerSchedule, PauseSchedule, ResumeSchedule, GetSchedule and DeleteSchedule", () => {
  it("do what they say, and can be repeated", async () => {
    await put({});
    const [one, other] = await Promise.all([1, 2].map(() => schedules.good("triggerSchedule", { queue, id: "s" })));
    expect(one?.jobId).not.toBe(other?.jobId);
    expect(await fixture.client.reserveMany(queue, 2)).toHaveLength(2);
    expect(await schedules.good("pauseSchedule", { queue, id: "s" })).toMatchObject({ changed: true });
    expect(await schedules.good("pauseSchedule", { queue, id: "s" })).toMatchObject({ changed: false });
    const { schedule: paused } = await schedules.good("getSchedule", { queue, id: "s" });
    expect(paused?.schedule?.paused).toBe(true);
    expect(paused?.nextRunAt).toBeUndefined();
    expect(await schedules.good("resumeSchedule", { queue, id: "s" })).toMatchObject({ changed: true });
    expect(await schedules.good("resumeSchedule", { queue, id: "s" })).toMatchObject({ changed: false });
    expect((await schedules.good("getSchedule", { queue, id: "s" })).schedule?.nextRunAt).toBeDefined();
    expect(await schedules.good("deleteSchedule", { queue, id: "s" })).toMatchObject({ deleted: true });
    expect(await schedules.good("deleteSchedule", { queue, id: "s" })).toMatchObject({ deleted: false });
  });

  const verbs = ["getSchedule", "triggerSchedule", "pauseSchedule", "resumeSchedule"] as const;
  it.each(verbs)("%s answers SCHEDULE_NOT_FOUND for one that there is not, and makes none", async (method) => {
    const error = await changingNothing(fixture, () => schedules.bad(method, { queue: "kept", id: "nobody's" }));
    expect(error).toMatchObject({
      code: "NOT_FOUND",
      reason: "SCHEDULE_NOT_FOUND",
      domain: "baton",
      metadata: { queue: "kept", id: "nobody's" },
    });
  });

  it.each([...verbs, "deleteSchedule"] as const)("%s refuses names that are none", async (method) => {
    expectBadRequest(await schedules.bad(method, { queue: "{}", id: "i".repeat(201) }), "queue", "id");
    expectBadRequest(await schedules.bad(method, {}), "queue", "id");
    expectBadRequest(await schedules.bad(method, { queue, id: "a\u0000" }), "id");
  });
});

describe("ListSchedules", () => {
  async function pages(pageSize: number): Promise<string[][]> {
    const all: string[][] = [];
    let pageToken = "";
    do {
      const page = await schedules.good("listSchedules", { queue, pageSize, pageToken });
      all.push(page.schedules.map(({ schedule }) => schedule?.id ?? ""));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return all;
  }

  it("shows every schedule once, in the order of their ids' bytes, page by page", async () => {
    const ids = ["", "Z", "a", "a ", "aa", "z", "ß", "ü", "🎽"].map((id) => `s${id}`);
    for (const id of [...ids].reverse()) await put({ id });
    expect(await pages(0)).toEqual([ids]);
    expect(await pages(4)).toEqual([ids.slice(0, 4), ids.slice(4, 8), ids.slice(8)]);
    expect(await pages(3)).toEqual([ids.slice(0, 3), ids.slice(3, 6), ids.slice(6)]);
  });

  it("shows nothing of a queue without schedules", async () => {
    expect(await pages(0)).toEqual([[]]);
  });

  it("is stable while schedules come and go", async () => {
    const ids = Array.from({ length: 50 }, (_, i) => `s-${String(i).padStart(2, "0")}`);
    await Promise.all(ids.map((id) => put({ id })));
    const first = await schedules.good("listSchedules", { queue, pageSize: 20 });
    await put({ id: "a-new-one-before" });
    await schedules.good("deleteSchedule", { queue, id: "s-19" });
    const second = await schedules.good("listSchedules", { queue, pageSize: 100, pageToken: first.nextPageToken });
    const seen = [...first.schedules, ...second.schedules].map(({ schedule }) => schedule?.id);
    expect(seen).toEqual(ids);
  });

  it("keeps a page within what a gRPC client accepts by default", async () => {
    const template = { payload: { content: { case: "data" as const, value: new Uint8Array(1_000_000) } } };
    for (const id of ["a", "b", "c", "d", "e"]) await put({ id, template });
    const client = new RawClient(fixture.broker.address, { "grpc.max_receive_message_length": 4 * 1024 * 1024 });
    try {
      const page = await new ServiceClient(client, ScheduleService).good("listSchedules", { queue });
      expect(page.schedules).toHaveLength(3);
    } finally {
      client.close();
    }
    expect(await pages(0)).toEqual([
      ["a", "b", "c"],
      ["d", "e"],
    ]);
  });

  it("refuses page tokens that are forged, cut, or of another query, and sizes that are none", async () => {
    for (const id of ["a", "b", "c"]) await put({ id });
    const { nextPageToken } = await schedules.good("listSchedules", { queue, pageSize: 1 });
    for (const pageToken of ["x", "AAAA", nextPageToken.slice(1), nextPageToken.slice(0, -1), `${nextPageToken}A`]) {
      expectBadRequest(await schedules.bad("listSchedules", { queue, pageToken }), "page_token");
    }
    expectBadRequest(await schedules.bad("listSchedules", { queue: "kept", pageToken: nextPageToken }), "page_token");
    for (const pageSize of [-1, 1_001]) {
      expectBadRequest(await schedules.bad("listSchedules", { queue, pageSize }), "page_size");
    }
    expectBadRequest(await schedules.bad("listSchedules", { queue: "" }), "queue");
  });
});
