/**
 * Every setting of the broker, once: its flag, its variable, its default, its range and its sentence of help all come
 * from the table below. A key that ends in `Ms` is a duration: `drainGraceMs` is `--drain-grace` and
 * `BATON_DRAIN_GRACE`. A flag wins over a variable, a variable over the default; an empty variable is not set.
 */
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import {
  address,
  bytes,
  choice,
  duration,
  integer,
  type Kind,
  nearest,
  showBytes,
  showDuration,
  text,
} from "./setting-values.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

type Setting<T> = {
  readonly kind: Kind<T>;
  readonly help: string;
  readonly fallback: (env: Environment) => T;
  /** How help shows a default that is no value of its own, or that differs from machine to machine. */
  readonly fallbackShown: string;
  /** May hold a password: errors don't repeat it. */
  readonly secret: boolean;
};

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const KIB = 1024;
const MIB = 1024 * KIB;

const TABLE = {
  grpcAddr: setting(address("127.0.0.1:7711"), "127.0.0.1:7711", "Where gRPC listens; port 0 takes a free one."),
  redisUrl: optional(
    text(/^(rediss?:\/\/.|unix:\/?\/?.|\/.)/, "a URL such as redis://127.0.0.1:6379 or unix:/run/redis.sock", "URL"),
    "none: a private Redis",
    "The Redis that holds everything. Without it the broker runs a private one in its data folder.",
  ),
  namespace: setting(
    text(/^[A-Za-z0-9._-]{1,64}$/, "1 to 64 of the characters A-Z a-z 0-9 . _ -", "NAME"),
    "baton",
    "What the names of all keys in Redis begin with.",
  ),
  dataDir: {
    kind: {
      ...text(/./, "the path of a folder", "FOLDER"),
      parse: (path) => (path === "" ? undefined : resolve(path)),
    },
    help: "Where the private Redis keeps its data.",
    fallback: defaultDataDir,
    fallbackShown: "$XDG_DATA_HOME/baton, else ~/.local/share/baton",
    secret: false,
  },
  appendfsync: setting(
    choice("always", "everysec", "no"),
    "always",
    "When the private Redis flushes to disk: before it answers, every second, or when the system likes.",
  ),
  drainGraceMs: setting(duration(0, HOUR), 10 * SECOND, "How long a broker that shuts down waits for its workers."),
  maxMessageBytes: setting(bytes(64 * KIB, 1024 * MIB), 16 * MIB, "The largest message that is taken."),
  // With the job's headers and lease it still fits into the 4 MiB that gRPC clients accept by default.
  maxPayloadBytes: setting(bytes(1, 512 * MIB), 3 * MIB, "The largest payload or result of one job."),
  maxHeaders: setting(integer(0, 10_000), 64, "How many headers a job may have."),
  maxHeaderBytes: setting(bytes(0, 16 * MIB), 64 * KIB, "How large a job's headers may be, keys and values together."),
  maxBatch: setting(integer(1, 1_000), 1_000, "How many jobs, releases or tokens one call may carry."),
  maxQueues: setting(integer(1, 10_000), 64, "How many queues one worker may name."),
  maxSchedules: setting(integer(1, 100_000), 10_000, "How many schedules a queue may have."),
  maxWaitMs: setting(duration(0, DAY), 10 * MINUTE, "How long a Reserve may wait for a job."),
  maxAwaitMs: setting(duration(0, DAY), HOUR, "How long an Await may wait for a job to finish."),
  maxStreams: setting(
    integer(1, 1_000_000),
    20_000,
    "How many streams, of Subscribe, Work and Watch, may be open on this broker.",
  ),
  maxOutstanding: setting(integer(1, 1_000_000), 10_000, "How many unreleased jobs one stream may hold."),
  defaultRetentionMs: setting(
    duration(0, 365 * DAY),
    5 * MINUTE,
    "How long a completed job is kept whose producer did not say.",
  ),
  defaultLeaseDurationMs: setting(
    duration(100, 7 * DAY),
    30 * SECOND,
    "How long a lease of Reserve lasts when neither worker, job nor queue says.",
  ),
  defaultMaxAttempts: setting(
    integer(1, 1_000),
    25,
    "How many failed attempts a job may have when neither it nor its queue says.",
  ),
  defaultInitialBackoffMs: setting(
    duration(0, 365 * DAY),
    SECOND,
    "How long the first retry waits when neither job nor queue says.",
  ),
  defaultMaxBackoffMs: setting(
    duration(0, 365 * DAY),
    HOUR,
    "How long a retry waits at most when neither job nor queue says.",
  ),
  historyMaxEvents: setting(
    integer(100, 1_000_000),
    10_000,
    "How many events the history of a queue holds for those who watch.",
  ),
  deadLetterMax: setting(integer(0, 1_000_000_000), 10_000, "How many failed jobs a queue keeps; the oldest go first."),
  deadLetterAgeMs: setting(duration(SECOND, 36_525 * DAY), 180 * DAY, "How long a failed job is kept."),
  keepaliveIntervalMs: setting(
    duration(100, HOUR),
    20 * SECOND,
    "How often a stream says that it lives, so that proxies don't cut it, and a connection is asked whether it does.",
  ),
  keepaliveTimeoutMs: setting(
    duration(100, HOUR),
    10 * SECOND,
    "How long a connection may take to answer that; then it is broken, and its streams end.",
  ),
  // With its tenth more it must fit into a timer, which counts 24.8 days.
  maxStreamAgeMs: setting(
    duration(0, 22 * DAY),
    0,
    "How old a stream becomes, give or take a tenth, until its worker is asked to open another, so that workers spread " +
      "anew over all brokers; 0: as old as it likes.",
  ),
  fallbackIntervalMs: setting(
    duration(100, MINUTE),
    SECOND,
    "How often a broker with idle workers looks for work although no bell rang.",
  ),
  sweepIntervalMs: setting(
    duration(100, MINUTE),
    2 * SECOND,
    "How often a broker looks for what is due in queues without workers, at the latest.",
  ),
  redisTimeoutMs: setting(duration(100, 10 * MINUTE), 5 * SECOND, "How long a command of Redis may take."),
  redisConnectTimeoutMs: setting(
    duration(100, HOUR),
    10 * SECOND,
    "How long the start waits for a Redis that cannot be reached.",
  ),
  logFormat: setting(choice("text", "json"), "text", "How the log on stderr is written."),
} satisfies Record<string, Setting<unknown>>;

type Table = typeof TABLE;

/** Every setting by its name, read and checked. */
export type Settings = { readonly [K in keyof Table]: Table[K] extends Setting<infer T> ? T : never };

/** Variables that begin with BATON_ and belong to the other commands: a broker started beside them ignores them. */
const VARIABLES_OF_OTHER_COMMANDS = /^BATON_(ADDR|JOB_ID|QUEUE|ATTEMPT|HEADERS|HEADER_.*)$/;

/** What is wrong with a flag or a variable, as a sentence that says what to write. */
export class SettingsError extends Error {
  override readonly name = "SettingsError";
}

export function readSettings(argv: readonly string[], env: Environment): Settings {
  const written = new Map([...fromEnvironment(env), ...fromFlags(argv)]);
  const settings: Record<string, unknown> = {};
  for (const [key, setting] of entries()) {
    const source = written.get(key);
    settings[key] = source === undefined ? setting.fallback(env) : read(setting, source);
  }
  // The loop above has set every key of the table to a value of its kind.
  const checked = settings as Settings;
  checkTogether(checked);
  return checked;
}

/** All settings, each with its flag, its variable and its default. */
export function helpText(): string {
  const rows = entries().map(([key, setting]) => ({
    flag: `${flagOf(key)} ${setting.kind.placeholder}`,
    help: setting.help,
    origin: `${variableOf(key)}, default ${setting.fallbackShown}`,
  }));
  const width = Math.max(...rows.map((row) => row.flag.length));
  return rows
    .map((row) => `  ${row.flag.padEnd(width)}  ${row.help}\n  ${" ".repeat(width)}  [${row.origin}]`)
    .join("\n");
}

/** Where a value was written, for error messages: `--max-batch 5` or `BATON_MAX_BATCH=5`. */
type Written = { readonly name: string; readonly separator: string; readonly value: string };

function fromFlags(argv: readonly string[]): Map<string, Written> {
  const keys = new Map(entries().map(([key]) => [flagOf(key), key]));
  const found = new Map<string, Written>();
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index] ?? "";
    if (!argument.startsWith("--")) {
      throw new SettingsError(`${argument}: write settings as --name value; baton serve --help lists them`);
    }
    const equals = argument.indexOf("=");
    const name = equals === -1 ? argument : argument.slice(0, equals);
    const key = keys.get(name);
    if (key === undefined) throw unknown(name, keys.keys());
    const value = equals === -1 ? argv[++index] : argument.slice(equals + 1);
    if (value === undefined) throw new SettingsError(`${name}: write ${kindOf(key).ask}`);
    found.set(key, { name, separator: " ", value });
  }
  return found;
}

function fromEnvironment(env: Environment): Map<string, Written> {
  const keys = new Map(entries().map(([key]) => [variableOf(key), key]));
  const found = new Map<string, Written>();
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith("BATON_") || value === undefined || value === "") continue;
    if (VARIABLES_OF_OTHER_COMMANDS.test(name)) continue;
    const key = keys.get(name);
    if (key === undefined) throw unknown(name, keys.keys());
    found.set(key, { name, separator: "=", value });
  }
  return found;
}

function read(setting: Setting<unknown>, { name, separator, value }: Written): unknown {
  const parsed = setting.kind.parse(value);
  if (parsed !== undefined) return parsed;
  throw new SettingsError(`${setting.secret ? name : `${name}${separator}${value}`}: write ${setting.kind.ask}`);
}

function checkTogether(settings: Settings): void {
  if (settings.maxPayloadBytes >= settings.maxMessageBytes) {
    const { maxPayloadBytes, maxMessageBytes } = settings;
    throw new SettingsError(
      `--max-payload-bytes (${showBytes(maxPayloadBytes)}) must be less than ` +
        `--max-message-bytes (${showBytes(maxMessageBytes)}): write a smaller payload or a larger message`,
    );
  }
  if (settings.defaultMaxBackoffMs < settings.defaultInitialBackoffMs) {
    const { defaultMaxBackoffMs, defaultInitialBackoffMs } = settings;
    throw new SettingsError(
      `--default-max-backoff (${showDuration(defaultMaxBackoffMs)}) must be at least ` +
        `--default-initial-backoff (${showDuration(defaultInitialBackoffMs)}): write a longer one or a shorter one`,
    );
  }
}

function unknown(name: string, names: Iterable<string>): SettingsError {
  const meant = nearest(name, names);
  const kind = name.startsWith("--") ? "setting" : "variable";
  const advice = meant === undefined ? "baton serve --help lists them all" : `did you mean ${meant}?`;
  return new SettingsError(`${name}: there is no such ${kind}; ${advice}`);
}

function entries(): [string, Setting<unknown>][] {
  // Each entry is read and shown with its own kind only, so that its type does not matter here.
  return Object.entries(TABLE) as [string, Setting<unknown>][];
}

function kindOf(key: string): Kind<unknown> {
  return (TABLE[key as keyof Table] as Setting<unknown>).kind;
}

function flagOf(key: string): string {
  return `--${words(key).join("-")}`;
}

function variableOf(key: string): string {
  return `BATON_${words(key).join("_").toUpperCase()}`;
}

function words(key: string): string[] {
  const name = key.replace(/Ms$/, "");
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).split(" ");
}

function defaultDataDir(env: Environment): string {
  return join(env.XDG_DATA_HOME || join(env.HOME || homedir(), ".local", "share"), "baton");
}

function setting<T>(kind: Kind<T>, fallback: NoInfer<T>, help: string): Setting<T> {
  return { kind, help, fallback: () => fallback, fallbackShown: kind.show(fallback), secret: false };
}

function optional(kind: Kind<string>, fallbackShown: string, help: string): Setting<string | undefined> {
  return {
    kind: { ...kind, show: (value) => value ?? "" },
    help,
    fallback: () => undefined,
    fallbackShown,
    secret: true,
  };
}
