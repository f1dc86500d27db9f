/** Bytes, paths and sizes that are wrong before any field is: what a broken client or a stranger may send. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { JobService } from "../../gen/baton/v1/job_service_pb.js";
import { QueueService } from "../../gen/baton/v1/queue_service_pb.js";
import { ScheduleService } from "../../gen/baton/v1/schedule_service_pb.js";
import { changingNothing as callChangingNothing } from "./changing-nothing.ts";
import { type Fixture, putOneInEveryState, startFixture } from "./fixture.ts";

const KIB = 1024;
const MAX_MESSAGE_BYTES = 256 * KIB;

let fixture: Fixture;

beforeAll(async () => {
  fixture = await startFixture({ maxMessageBytes: MAX_MESSAGE_BYTES, maxPayloadBytes: 64 * KIB });
  await putOneInEveryState(fixture.client, "kept");
});

afterAll(() => fixture?.stop());

const changingNothing = <T>(call: () => Promise<T>) => callChangingNothing(fixture, call);

/** Sends bytes to any path; what the call failed with. */
async function send(path: string, bytes: Uint8Array) {
  const answer = await fixture.client.startPath(path, bytes).answer;
  if ("error" in answer) return answer.error;
  throw new Error(`${path} took ${Buffer.from(bytes).toString("hex").slice(0, 80)}`);
}

const MALFORMED: readonly { readonly name: string; readonly bytes: Uint8Array }[] = [
  { name: "nothing but ones", bytes: Buffer.alloc(16, 0xff) },
  { name: "a tag without a value", bytes: Buffer.from([0x0a]) },
  { name: "a length beyond the end", bytes: Buffer.from([0x0a, 0x7f, 0x61]) },
  { name: "a length beyond 32 bits", bytes: Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x61]) },
  { name: "field number zero", bytes: Buffer.from([0x02, 0x01, 0x61]) },
  { name: "a wire type that there is not", bytes: Buffer.from([0x0f, 0x01]) },
  { name: "a group without an end", bytes: Buffer.from([0x7b, 0x08, 0x01]) },
  { name: "JSON", bytes: Buffer.from('{"queue":"kept","id":"ready"}') },
];

const METHODS = [JobService, QueueService, ScheduleService].flatMap(({ typeName, methods }) =>
  methods.map(({ name }) => ({ name, path: `/${typeName}/${name}` })),
);
/** Their requests have no required field. */
const ASK_FOR_NOTHING = ["ListQueues", "ListWorkers"];

describe.each(METHODS)("$name", ({ name, path }) => {
  it.each(MALFORMED)("refuses $name as malformed, and changes nothing", async ({ bytes }) => {
    expect(await changingNothing(() => send(path, bytes))).toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "MALFORMED_MESSAGE",
      domain: "baton",
      message: expect.stringContaining(`baton.v1.${name}Request`),
    });
  });

  it("refuses a message over --max-message-bytes, says so, and changes nothing", async () => {
    expect(await changingNothing(() => send(path, Buffer.alloc(MAX_MESSAGE_BYTES + 1)))).toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      reason: "MESSAGE_TOO_LARGE",
      domain: "baton",
      message: expect.stringMatching(/262144.*--max-message-bytes/),
    });
  });

  it.skipIf(ASK_FOR_NOTHING.includes(name))("names the required fields when the message is empty", async () => {
    const error = await changingNothing(() => send(path, Buffer.alloc(0)));
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "BAD_REQUEST" });
    expect(error.violations.length).toBeGreaterThan(0);
  });
});

describe("text that is not UTF-8", () => {
  const BROKEN = [0xc3, 0x28];

  it.each([
    { name: "a queue", path: "Put", bytes: Buffer.from([0x0a, 2, ...BROKEN]) },
    { name: "an id", path: "Put", bytes: Buffer.from([0x0a, 1, 0x61, 0x12, 2, ...BROKEN]) },
    { name: "a payload's text", path: "Put", bytes: Buffer.from([0x0a, 1, 0x61, 0x1a, 4, 0x12, 2, ...BROKEN]) },
    { name: "a header's key", path: "Put", bytes: Buffer.from([0x0a, 1, 0x61, 0x22, 4, 0x0a, 2, ...BROKEN]) },
    { name: "a header's value", path: "Put", bytes: Buffer.from([0x0a, 1, 0x61, 0x22, 4, 0x12, 2, ...BROKEN]) },
    { name: "a lease token", path: "Release", bytes: Buffer.from([0x0a, 2, ...BROKEN]) },
    { name: "an id to delete", path: "Delete", bytes: Buffer.from([0x0a, 1, 0x61, 0x12, 2, ...BROKEN]) },
  ])("is refused as $name, and not mended: two ids must not become one", async ({ path, bytes }) => {
    const error = await changingNothing(() => send(`/${JobService.typeName}/${path}`, bytes));
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "MALFORMED_MESSAGE" });
  });
});

describe("a path that there is not", () => {
  it.each([
    { name: "an unknown method", path: "/baton.v1.JobService/Reprieve" },
    { name: "a method in another case", path: "/baton.v1.JobService/put" },
    { name: "an unknown service", path: "/baton.v1.TaskService/Put" },
    { name: "another version", path: "/baton.v2.JobService/Put" },
    { name: "a service alone", path: "/baton.v1.JobService" },
    { name: "nothing", path: "/" },
  ])("$name is UNIMPLEMENTED, and changes nothing", async ({ path }) => {
    const error = await changingNothing(() => send(path, Buffer.alloc(0)));
    expect(error.code).toBe("UNIMPLEMENTED");
  });
});

describe("a client of a later version", () => {
  it("may send fields that this broker does not know", async () => {
    const later = Buffer.from([0xfa, 0x3e, 3, 0x61, 0x62, 0x63]);
    const put = Buffer.concat([Buffer.from([0x0a, 5]), Buffer.from("later"), later]);
    expect(await fixture.client.call("put", put)).toMatchObject({ response: { created: true } });
  });
});

describe("a batch that is smaller than --max-message-bytes but has too many parts", () => {
  it("is refused, and names the field", async () => {
    const empty = Buffer.from([0x0a, 0x00]);
    const parts = Buffer.concat(Array<Buffer>(50_000).fill(empty));
    for (const [path, field] of [
      ["PutMany", "jobs"],
      ["ReleaseMany", "releases"],
      ["Extend", "lease_tokens"],
      ["Reserve", "queues"],
      ["Subscribe", "queues"],
    ] as const) {
      const error = await changingNothing(() => send(`/${JobService.typeName}/${path}`, parts));
      expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "BAD_REQUEST" });
      expect(error.violations[0]?.field).toBe(field);
    }
  });
});
