/** What operators may send that is wrong: List, Retry, Cancel and the verbs on queues, over real gRPC. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { changingNothing as callChangingNothing } from "./changing-nothing.ts";
import {
  type DurationInit,
  days,
  expectBadRequest,
  type Fixture,
  ms,
  putOneInEveryState,
  startFixture,
} from "./fixture.ts";
import { QueueClient, type QueueRequest } from "./queue-client.ts";
import type { Request } from "./raw-client.ts";

let fixture: Fixture;
let queues: QueueClient;

beforeAll(async () => {
  fixture = await startFixture();
  queues = new QueueClient(fixture.client);
  await putOneInEveryState(fixture.client, "kept");
});

afterAll(() => fixture?.stop());

const changingNothing = <T>(call: () => Promise<T>) => callChangingNothing(fixture, call);
const numbered = (howMany: number) => Array.from({ length: howMany }, (_, i) => `${i}`);

type Bad<R> = { readonly name: string; readonly request: R; readonly fields: readonly string[] };

const bad = <R>(name: string, request: R, ...fields: readonly string[]): Bad<R> => ({ name, request, fields });

const BAD_QUEUES: readonly (readonly [string, string])[] = [
  ["no queue", ""],
  ["a queue in braces", "{kept}"],
  ["a queue with a NUL", "kept\0"],
  ["a queue of 129 characters", "k".repeat(129)],
];

const BAD_DURATIONS: readonly (readonly [string, DurationInit])[] = [
  ["of −1 s", { seconds: -1n }],
  ["of −1 ns", { nanos: -1 }],
  ["of 300 years", days(300 * 365)],
  ["with a second in its nanos", { seconds: 1n, nanos: 1_000_000_000 }],
  ["with nanos of the other sign", { seconds: 1n, nanos: -1 }],
];

describe("every verb on a queue", () => {
  const METHODS = ["getQueue", "updateQueue", "pauseQueue", "resumeQueue", "purgeQueue", "requeue"] as const;
  const CASES = METHODS.flatMap((method) => BAD_QUEUES.map(([name, queue]) => ({ method, name, queue })));

  it.each(CASES)("$method refuses $name and changes nothing", async ({ method, queue }) => {
    const request = { queue, states: [JobState.READY], settings: { paused: true } };
    expectBadRequest(await changingNothing(() => queues.bad(method, request)), "queue");
  });
});

describe("UpdateQueue", () => {
  type UpdateInit = QueueRequest<"updateQueue">;
  type BadUpdate = Bad<UpdateInit>;
  const masked = (paths: string[], settings?: NonNullable<UpdateInit["settings"]>): UpdateInit => ({
    updateMask: { paths },
    ...(settings && { settings }),
  });
  const setting = (name: string, settings: NonNullable<UpdateInit["settings"]>, field: string): BadUpdate =>
    bad(name, { settings }, `settings.${field}`);

  it.each<BadUpdate>([
    bad("nothing to change", {}, "update_mask.paths"),
    bad("a paused=false that no mask names", { settings: { paused: false } }, "update_mask.paths"),
    bad("a path that is no setting", masked(["paused", "pausd"]), "update_mask.paths[1]"),
    bad("an empty path", masked([""]), "update_mask.paths[0]"),
    bad("a path of the message around it", masked(["settings.paused"]), "update_mask.paths[0]"),
    bad("a path in camel case", masked(["leaseDuration"]), "update_mask.paths[0]"),
    bad("a path below a value", masked(["retention.seconds"]), "update_mask.paths[0]"),
    bad("a path into retry that is none", masked(["retry.max"]), "update_mask.paths[0]"),
    bad("an asterisk", masked(["*"]), "update_mask.paths[0]"),
    bad(
      "a path that every object has",
      masked(["constructor", "__proto__"]),
      "update_mask.paths[0]",
      "update_mask.paths[1]",
    ),
    bad("101 paths", masked(new Array(101).fill("paused")), "update_mask.paths"),
    setting("mode 4", { mode: Number(4) }, "mode"),
    setting("mode −1", { mode: Number(-1) }, "mode"),
    setting("a lease of 99 ms", { leaseDuration: ms(99) }, "lease_duration"),
    setting("a lease of 8 days", { leaseDuration: days(8) }, "lease_duration"),
    setting("a retention of 366 days", { retention: days(366) }, "retention"),
    setting("a dead letter of −1 jobs", { deadLetterMax: -1 }, "dead_letter_max"),
    setting("a dead letter of 1,000,000,001 jobs", { deadLetterMax: 1_000_000_001 }, "dead_letter_max"),
    setting("a dead letter's age of 999 ms", { deadLetterAge: ms(999) }, "dead_letter_age"),
    setting("a history of 99 events", { historyMaxEvents: 99 }, "history_max_events"),
    setting("a history of 1,000,001 events", { historyMaxEvents: 1_000_001 }, "history_max_events"),
    setting("−1 attempts", { retry: { maxAttempts: -1 } }, "retry.max_attempts"),
    setting("1,001 attempts", { retry: { maxAttempts: 1_001 } }, "retry.max_attempts"),
    setting("a multiplier below 1", { retry: { multiplier: 0.9 } }, "retry.multiplier"),
    setting("a multiplier that is no number", { retry: { multiplier: Number.NaN } }, "retry.multiplier"),
    setting("a jitter above 1", { retry: { jitter: 1.1 } }, "retry.jitter"),
    setting("curve 3", { retry: { curve: Number(3) } }, "retry.curve"),
    setting("a max below initial", { retry: { initialBackoff: ms(2), maxBackoff: ms(1) } }, "retry.max_backoff"),
    ...BAD_DURATIONS.flatMap(([name, value]) => [
      setting(`a lease ${name}`, { leaseDuration: value }, "lease_duration"),
      setting(`a retention ${name}`, { retention: value }, "retention"),
      setting(`a dead letter's age ${name}`, { deadLetterAge: value }, "dead_letter_age"),
      setting(`an initial backoff ${name}`, { retry: { initialBackoff: value } }, "retry.initial_backoff"),
    ]),
    bad(
      "a bad setting beside a mask that does not name it",
      masked(["paused"], { deadLetterMax: -1 }),
      "settings.dead_letter_max",
    ),
  ])("refuses $name, names the field and changes nothing", async ({ request, fields }) => {
    const call = () => queues.bad("updateQueue", { queue: "kept", ...request });
    expectBadRequest(await changingNothing(call), ...fields);
  });

  it("says of a path that is none which there are", async () => {
    const error = await queues.bad("updateQueue", { queue: "kept", updateMask: { paths: ["lease"] } });
    expect(error.violations[0]?.description).toContain("lease_duration");
    expect(error.violations[0]?.description).toContain("retry.max_attempts");
  });
});

describe("PurgeQueue", () => {
  it.each<Bad<QueueRequest<"purgeQueue">>>([
    bad("no state", {}, "states"),
    bad("UNSPECIFIED", { states: [JobState.READY, JobState.UNSPECIFIED] }, "states[1]"),
    bad("state 8", { states: [Number(8)] }, "states[0]"),
    bad("101 states", { states: new Array(101).fill(JobState.READY) }, "states"),
  ])("refuses $name, names the field and changes nothing", async ({ request, fields }) => {
    const call = () => queues.bad("purgeQueue", { queue: "kept", ...request });
    expectBadRequest(await changingNothing(call), ...fields);
  });
});

describe("Requeue", () => {
  it.each([-1, 1_000_001, -(2 ** 31)])("refuses limit %i, names the field and changes nothing", async (limit) => {
    expectBadRequest(await changingNothing(() => queues.bad("requeue", { queue: "kept", limit })), "limit");
  });
});

describe("ListQueues", () => {
  it.each<Bad<QueueRequest<"listQueues">>>([
    bad("a page size of −1", { pageSize: -1 }, "page_size"),
    bad("a page size of 1,001", { pageSize: 1_001 }, "page_size"),
    bad("a page token that is none", { pageToken: "kept" }, "page_token"),
    bad("both", { pageSize: -1, pageToken: "kept" }, "page_size", "page_token"),
  ])("refuses $name, names the field and changes nothing", async ({ request, fields }) => {
    expectBadRequest(await changingNothing(() => queues.bad("listQueues", request)), ...fields);
  });

  it("refuses a page token of List, and List refuses one of its own", async () => {
    const { client } = fixture;
    await client.good("putMany", { jobs: numbered(3).map((id) => ({ queue: "tokens", id })) });
    const request = { queue: "tokens", state: JobState.READY };
    const { nextPageToken: ofList } = await client.good("list", { ...request, pageSize: 1 });
    const { nextPageToken: ofQueues } = await queues.good("listQueues", { pageSize: 1 });
    expect(ofList.length * ofQueues.length).toBeGreaterThan(0);
    expectBadRequest(await changingNothing(() => queues.bad("listQueues", { pageToken: ofList })), "page_token");
    expectBadRequest(
      await changingNothing(() => client.bad("list", { ...request, pageToken: ofQueues })),
      "page_token",
    );
  });
});

describe("Retry", () => {
  it.each<Bad<Request<"retry">>>([
    bad("no ids", {}, "ids"),
    bad("ids beside all_failed", { allFailed: true, ids: ["failed"] }, "ids"),
    bad("1,001 ids", { ids: numbered(1_001) }, "ids"),
    bad("an empty id among good ones", { ids: ["failed", "", "completed"] }, "ids[1]"),
    bad("an id with a NUL", { ids: ["failed\0"] }, "ids[0]"),
    bad("an id of 256 bytes", { ids: ["ä".repeat(128)] }, "ids[0]"),
    bad("no queue", { queue: "", ids: ["failed"] }, "queue"),
    bad("a queue in braces with all_failed", { queue: "{kept}", allFailed: true }, "queue"),
  ])("refuses $name, names the field and changes nothing", async ({ request, fields }) => {
    const call = () => fixture.client.bad("retry", { queue: "kept", ...request });
    expectBadRequest(await changingNothing(call), ...fields);
  });
});

describe("Cancel", () => {
  it.each<Bad<Request<"cancel">>>([
    bad("no queue and no id", {}, "queue", "id"),
    bad("an id with a line break", { queue: "kept", id: "ready\n" }, "id"),
    bad("an id of 256 bytes", { queue: "kept", id: "i".repeat(256) }, "id"),
    bad("a message of more than 1 KiB", { queue: "kept", id: "ready", message: "ä".repeat(513) }, "message"),
  ])("refuses $name, names the field and changes nothing", async ({ request, fields }) => {
    expectBadRequest(await changingNothing(() => fixture.client.bad("cancel", request)), ...fields);
  });
});

describe("a page token", () => {
  const list = (request: Request<"list">) => ({ queue: "kept", state: JobState.READY, ...request });
  let token: string;

  beforeAll(async () => {
    await fixture.client.good("putMany", { jobs: numbered(3).map((id) => ({ queue: "tokens", id })) });
    token = (await fixture.client.good("list", { queue: "tokens", state: JobState.READY, pageSize: 1 })).nextPageToken;
    expect(token).not.toBe("");
  });

  it("may be used again, and with another page size", async () => {
    const request = { queue: "tokens", state: JobState.READY, pageToken: token };
    for (const pageSize of [1, 2, 1]) {
      const { jobs } = await fixture.client.good("list", { ...request, pageSize });
      expect(jobs.map(({ id }) => id)).toEqual(numbered(3).slice(1, 1 + pageSize));
    }
  });

  it.each<readonly [string, () => Request<"list">]>([
    ["of another queue", () => list({ pageToken: token })],
    ["of another state", () => list({ queue: "tokens", state: JobState.FAILED, pageToken: token })],
    ["that is one word", () => list({ pageToken: "garbage" })],
    ["that is a NUL", () => list({ pageToken: "\0" })],
    ["with its end cut off", () => list({ queue: "tokens", pageToken: token.slice(0, -1) })],
    ["with more at its end", () => list({ queue: "tokens", pageToken: `${token}A` })],
    ["in padded base64", () => list({ queue: "tokens", pageToken: `${token}=` })],
    ["in plain base64", () => list({ queue: "tokens", pageToken: `${token.slice(0, -1)}+` })],
    ["with one letter changed", () => list({ queue: "tokens", pageToken: flipped(token) })],
    ["of a million characters", () => list({ pageToken: "A".repeat(1_000_000) })],
    ["made up from a position", () => list({ pageToken: Buffer.from('["0","ready"]').toString("base64url") })],
  ])("%s is refused, and nothing changes", async (_, request) => {
    const error = await changingNothing(() => fixture.client.bad("list", request()));
    expectBadRequest(error, "page_token");
  });

  function flipped(text: string): string {
    const middle = Math.floor(text.length / 2);
    return text.slice(0, middle) + (text[middle] === "A" ? "B" : "A") + text.slice(middle + 1);
  }
});

describe("List", () => {
  it.each<Bad<Request<"list">>>([
    bad("no queue and no state", {}, "queue", "state"),
    bad("a queue in braces", { queue: "{kept}", state: JobState.READY }, "queue"),
    bad("no state", { queue: "kept" }, "state"),
    bad("state 8", { queue: "kept", state: Number(8) }, "state"),
    bad("state −1", { queue: "kept", state: Number(-1) }, "state"),
    bad("a page size of −1", { queue: "kept", state: JobState.READY, pageSize: -1 }, "page_size"),
    bad("a page size of 1,001", { queue: "kept", state: JobState.READY, pageSize: 1_001 }, "page_size"),
  ])("refuses $name, names the field and changes nothing", async ({ request, fields }) => {
    expectBadRequest(await changingNothing(() => fixture.client.bad("list", request)), ...fields);
  });
});
