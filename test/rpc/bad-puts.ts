/** Jobs that no Put may accept: what is wrong with each, and the fields that the answer must name. */
import { type DurationInit, days, hours, ms } from "./fixture.ts";
import type { Request } from "./raw-client.ts";

type PutInit = Request<"put">;
type BadPut = { readonly name: string; readonly job: PutInit; readonly fields: readonly string[] };

const MIB = 1024 * 1024;
const LONGEST_INT64 = 2n ** 63n - 1n;

function bad(name: string, job: PutInit, ...fields: readonly string[]): BadPut {
  return { name, job: { queue: "bad", ...job }, fields };
}

/** A bad value of every kind that a Duration field can get, whatever its range. */
function badDurations(field: string, job: (value: DurationInit) => PutInit): BadPut[] {
  const values: readonly (readonly [string, DurationInit])[] = [
    ["of −1 s", { seconds: -1n }],
    ["of −1 ns", { nanos: -1 }],
    ["of 300 years", days(300 * 365)],
    ["of the most seconds that fit", { seconds: LONGEST_INT64 }],
    ["of the fewest seconds that fit", { seconds: -LONGEST_INT64 - 1n }],
    ["with a second in its nanos", { seconds: 1n, nanos: 1_000_000_000 }],
    ["with too few nanos", { seconds: -1n, nanos: -1_000_000_000 }],
    ["with nanos of the other sign", { seconds: 1n, nanos: -1 }],
    ["with seconds of the other sign", { seconds: -1n, nanos: 1 }],
  ];
  return values.map(([name, value]) => bad(`${field} ${name}`, job(value), field));
}

const delay = (value: DurationInit): PutInit => ({ start: { case: "delay", value } });
const runAt = (value: { seconds?: bigint; nanos?: number }): PutInit => ({ start: { case: "runAt", value } });
const yearsAhead = (years: number) => BigInt(Math.ceil(Date.now() / 1_000) + years * 365.25 * 86_400);

const QUEUES: readonly (readonly [string, string])[] = [
  ["no queue", ""],
  ["a queue with a space", "two words"],
  ["a queue in braces", "{mail}"],
  ["a queue with a closing brace", "a}b"],
  ["a queue of 129 characters", "q".repeat(129)],
  ["a queue with a NUL", "a\0b"],
  ["a queue with a line break at its end", "mail\n"],
  ["a queue with a slash", "a/b"],
  ["a queue with an umlaut", "größe"],
  ["a queue with an asterisk", "*"],
];

const IDS: readonly (readonly [string, string])[] = [
  ["an id of 256 bytes", "i".repeat(256)],
  ["an id of 128 characters and 256 bytes", "ä".repeat(128)],
  ["an id of 64 characters outside the BMP and 256 bytes", "🎽".repeat(64)],
  ["an id that is a NUL", "\0"],
  ["an id with a NUL inside", "a\0b"],
  ["an id with a line break", "a\nb"],
  ["an id with an escape", "\u001b[31m"],
  ["an id with a DEL", "a\u007f"],
  ["an id with the first C1 control", "\u0080"],
  ["an id with the last C1 control", "\u009f"],
];

export const BAD_PUTS: readonly BadPut[] = [
  ...QUEUES.map(([name, queue]) => bad(name, { queue }, "queue")),
  ...IDS.map(([name, id]) => bad(name, { id }, "id")),

  bad("text over the limit", { payload: text("x".repeat(4 * MIB + 1)) }, "payload"),
  bad("text over the limit by bytes, not by characters", { payload: text(`${"ä".repeat(2 * MIB)}x`) }, "payload"),
  bad("data over the limit", { payload: { content: { case: "data", value: new Uint8Array(4 * MIB + 1) } } }, "payload"),
  bad("a content type of 256 bytes", { payload: { contentType: "t".repeat(256) } }, "payload.content_type"),
  bad("a content type with a line break", { payload: { contentType: "text/plain\n" } }, "payload.content_type"),

  bad("65 headers", { headers: headers(65) }, "headers"),
  bad("a header without a key", { headers: { "": "value" } }, "headers"),
  bad("a header with a key of 256 bytes", { headers: { ["ä".repeat(128)]: "value" } }, "headers"),
  bad("headers of 64 KiB and a byte", { headers: { key: "v".repeat(64 * 1024 - 2) } }, "headers"),

  bad("priority −1", { priority: -1 }, "priority"),
  bad("priority 10", { priority: 10 }, "priority"),
  bad("the highest int32 as priority", { priority: 2 ** 31 - 1 }, "priority"),
  bad("the lowest int32 as priority", { priority: -(2 ** 31) }, "priority"),

  ...badDurations("delay", delay),
  bad("a delay of 1 ns more than 36,525 days", delay({ seconds: 36_525n * 86_400n, nanos: 1 }), "delay"),
  bad("a run_at 101 years ahead", runAt({ seconds: yearsAhead(101) }), "run_at"),
  bad("a run_at at the end of time", runAt({ seconds: LONGEST_INT64 }), "run_at"),
  bad("a run_at with nanos below zero", runAt({ seconds: 1_800_000_000n, nanos: -1 }), "run_at"),
  bad("a run_at with a second in its nanos", runAt({ seconds: 0n, nanos: 1_000_000_000 }), "run_at"),

  ...badDurations("lease_duration", (leaseDuration) => ({ leaseDuration })),
  bad("a lease of zero", { leaseDuration: {} }, "lease_duration"),
  bad("a lease of 99 ms", { leaseDuration: ms(99) }, "lease_duration"),
  bad("a lease of 7 days and 1 ms", { leaseDuration: ms(7 * 86_400_000 + 1) }, "lease_duration"),

  ...badDurations("run_timeout", (runTimeout) => ({ runTimeout })),
  bad("a run_timeout of zero", { runTimeout: {} }, "run_timeout"),
  bad("a run_timeout of 99 ms", { runTimeout: ms(99) }, "run_timeout"),
  bad("a run_timeout of 366 days", { runTimeout: days(366) }, "run_timeout"),

  bad("max_attempts −1", { retry: { maxAttempts: -1 } }, "retry.max_attempts"),
  bad("max_attempts 1001", { retry: { maxAttempts: 1_001 } }, "retry.max_attempts"),
  ...badDurations("retry.initial_backoff", (initialBackoff) => ({ retry: { initialBackoff } })),
  bad("an initial_backoff of 366 days", { retry: { initialBackoff: days(366) } }, "retry.initial_backoff"),
  ...badDurations("retry.max_backoff", (maxBackoff) => ({ retry: { initialBackoff: {}, maxBackoff } })),
  bad("a max_backoff of 366 days", { retry: { maxBackoff: days(366) } }, "retry.max_backoff"),
  bad(
    "a max_backoff below initial_backoff",
    { retry: { initialBackoff: hours(2), maxBackoff: hours(1) } },
    "retry.max_backoff",
  ),
  ...[0, 0.99, 100.01, -1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY].map((multiplier) =>
    bad(`a multiplier of ${multiplier}`, { retry: { multiplier } }, "retry.multiplier"),
  ),
  ...[-0.01, 1.01, Number.NaN, Number.POSITIVE_INFINITY].map((jitter) =>
    bad(`a jitter of ${jitter}`, { retry: { jitter } }, "retry.jitter"),
  ),

  ...badDurations("retention", (retention) => ({ retention })),
  bad("a retention of 366 days", { retention: days(366) }, "retention"),
  ...badDurations("expires_in", (expiresIn) => ({ expiresIn })),
  bad("an expires_in of zero", { expiresIn: {} }, "expires_in"),

  ...[4, 99, -1].map((onConflict) => bad(`on_conflict ${onConflict}`, { onConflict }, "on_conflict")),

  bad(
    "several bad fields at once",
    { queue: "", id: "\n", priority: 10, retry: { jitter: 2 }, expiresIn: {} },
    "queue",
    "id",
    "priority",
    "retry.jitter",
    "expires_in",
  ),
];

function text(value: string): NonNullable<PutInit["payload"]> {
  return { content: { case: "text", value } };
}

function headers(count: number): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [`key-${i}`, "value"]));
}
