/** Schedules that no PutSchedule may accept: what is wrong with each, and the fields that the answer must name. */
import { OnConflict } from "../../gen/baton/v1/job_service_pb.js";
import type { CatchUp, Overlap, ScheduleService } from "../../gen/baton/v1/schedule_service_pb.js";
import { type DurationInit, days, hours, ms } from "./fixture.ts";
import type { RequestOf } from "./service-client.ts";

type ScheduleInit = NonNullable<RequestOf<typeof ScheduleService, "putSchedule">["schedule"]>;
type BadSchedule = { readonly name: string; readonly schedule: ScheduleInit; readonly fields: readonly string[] };

const HOURLY: ScheduleInit = { queue: "bad", id: "bad", timing: { case: "cron", value: "0 * * * *" }, template: {} };

/** `schedule`: what differs from one that is right. `fields` without the "schedule." before them. */
function bad(name: string, schedule: ScheduleInit, ...fields: readonly string[]): BadSchedule {
  return { name, schedule: { ...HOURLY, ...schedule } as ScheduleInit, fields: fields.map((it) => `schedule.${it}`) };
}

const CRONS: readonly (readonly [string, string])[] = [
  ["an empty one", ""],
  ["four fields", "* * * *"],
  ["seven fields", "0 0 0 1 1 * 2030"],
  ["a nickname", "@daily"],
  ["a date", "2030-01-01T00:00:00Z"],
  ["words", "every day at noon"],
  ["a line break", "0 0 * * *\n"],
  ["a NUL", "0 0 * * *\0"],
  ["minute 60", "60 * * * *"],
  ["second 60", "60 * * * * *"],
  ["hour 24", "0 24 * * *"],
  ["day 0", "0 0 0 * *"],
  ["day 32", "0 0 32 * *"],
  ["month 13", "0 0 1 13 *"],
  ["weekday 8", "0 0 * * 8"],
  ["an unknown name", "0 0 * * fry"],
  ["a step of 0", "*/0 * * * *"],
  ["a negative number", "-5 * * * *"],
  ["a range that is none", "5- * * * *"],
  ["a sixth Friday", "0 0 * * fri#6"],
  ["30 February, which never comes", "0 0 30 2 *"],
  ["31 April, which never comes", "0 0 31 4 *"],
  ["257 bytes", `0 0 1${",1".repeat(124)} * *`],
  ["a megabyte", "*,".repeat(500_000)],
];

const ZONES: readonly (readonly [string, string])[] = [
  ["one that there is not", "Mars/Olympus_Mons"],
  ["an offset", "+01:00"],
  ["a path", "../../etc/passwd"],
  ["one with a space", "Europe/Berlin "],
  ["one with a NUL", "Europe/Berlin\0"],
  ["a long one", "A".repeat(100_000)],
];

const INTERVALS: readonly (readonly [string, DurationInit])[] = [
  ["of 0", {}],
  ["of 999 ms", ms(999)],
  ["of −1 s", { seconds: -1n }],
  ["of 365 days and 1 ms", { seconds: BigInt(365 * 86_400), nanos: 1_000_000 }],
  ["of 400 days", days(400)],
  ["of the most seconds that fit", { seconds: 2n ** 63n - 1n }],
  ["with a second in its nanos", { seconds: 1n, nanos: 1_000_000_000 }],
];

export const BAD_SCHEDULES: readonly BadSchedule[] = [
  ...CRONS.map(([name, value]) => bad(`a cron expression: ${name}`, { timing: { case: "cron", value } }, "cron")),
  ...ZONES.map(([name, timeZone]) => bad(`a time zone: ${name}`, { timeZone }, "time_zone")),
  ...INTERVALS.map(([name, value]) => bad(`an interval ${name}`, { timing: { case: "every", value } }, "every")),
  bad("no timing", { timing: { case: undefined } }, "timing"),
  bad(
    "an unknown zone and a bad expression",
    { timeZone: "X/Y", timing: { case: "cron", value: "x" } },
    "time_zone",
    "cron",
  ),
  bad(
    "an unknown zone and a bad interval",
    { timeZone: "X/Y", timing: { case: "every", value: {} } },
    "time_zone",
    "every",
  ),
  bad("an unknown catch-up", { catchUp: 9 as CatchUp }, "catch_up"),
  bad("an unknown overlap", { overlap: -1 as Overlap }, "overlap"),
  bad("no queue", { queue: "" }, "queue"),
  bad("a queue in braces", { queue: "{bad}" }, "queue"),
  bad("no id", { id: "" }, "id"),
  bad("an id of 201 bytes", { id: "i".repeat(201) }, "id"),
  bad("an id of 101 characters and 202 bytes", { id: "ä".repeat(101) }, "id"),
  bad("an id with a line break", { id: "a\nb" }, "id"),
  bad("a template with a queue", { template: { queue: "bad" } }, "template.queue"),
  bad("a template with an id", { template: { id: "x" } }, "template.id"),
  bad("a template with a delay", { template: { start: { case: "delay", value: ms(1) } } }, "template.delay"),
  bad(
    "a template with a run_at",
    { template: { start: { case: "runAt", value: { seconds: 1n } } } },
    "template.run_at",
  ),
  bad("a template with on_conflict", { template: { onConflict: OnConflict.REJECT } }, "template.on_conflict"),
  bad("a template with a priority of 10", { template: { priority: 10 } }, "template.priority"),
  bad("a template with a lease of 8 days", { template: { leaseDuration: days(8) } }, "template.lease_duration"),
  bad("a template with a limit of 0", { template: { concurrency: { key: "k" } } }, "template.concurrency.limit"),
  bad(
    "a template with a unique key of 256 bytes",
    { template: { unique: { key: "k".repeat(256) } } },
    "template.unique.key",
  ),
  bad("a template with 1,001 attempts", { template: { retry: { maxAttempts: 1_001 } } }, "template.retry.max_attempts"),
  bad(
    "all of it wrong",
    { queue: "", id: "", timeZone: "X/Y", catchUp: 7 as CatchUp, template: { id: "x", expiresIn: hours(-1) } },
    ...["queue", "id", "time_zone", "catch_up", "template.id", "template.expires_in"],
  ),
];
