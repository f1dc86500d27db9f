import { describe, expect, it } from "vitest";
import { nearest, parseBytes, parseDuration, showBytes, showDuration } from "../src/setting-values.ts";
import { type Environment, helpText, readSettings, SettingsError } from "../src/settings.ts";

const HOME = { HOME: "/home/ann" };

function errorOf(argv: readonly string[], env: Environment = {}): string {
  try {
    readSettings(argv, { ...HOME, ...env });
  } catch (error) {
    expect(error).toBeInstanceOf(SettingsError);
    return (error as SettingsError).message;
  }
  throw new Error("the settings were accepted");
}

describe("readSettings()", () => {
  it("gives every setting its documented default", () => {
    expect(readSettings([], HOME)).toEqual({
      grpcAddr: "127.0.0.1:7711",
      redisUrl: undefined,
      namespace: "baton",
      dataDir: "/home/ann/.local/share/baton",
      appendfsync: "always",
      drainGraceMs: 10_000,
      maxMessageBytes: 16 * 1024 * 1024,
      maxPayloadBytes: 3 * 1024 * 1024,
      maxHeaders: 64,
      maxHeaderBytes: 64 * 1024,
      maxBatch: 1_000,
      maxQueues: 64,
      maxSchedules: 10_000,
      maxWaitMs: 600_000,
      maxAwaitMs: 3_600_000,
      maxStreams: 20_000,
      maxOutstanding: 10_000,
      defaultRetentionMs: 300_000,
      defaultLeaseDurationMs: 30_000,
      defaultMaxAttempts: 25,
      defaultInitialBackoffMs: 1_000,
      defaultMaxBackoffMs: 3_600_000,
      historyMaxEvents: 10_000,
      deadLetterMax: 10_000,
      deadLetterAgeMs: 180 * 86_400_000,
      keepaliveIntervalMs: 20_000,
      keepaliveTimeoutMs: 10_000,
      maxStreamAgeMs: 0,
      fallbackIntervalMs: 1_000,
      sweepIntervalMs: 2_000,
      redisTimeoutMs: 5_000,
      redisConnectTimeoutMs: 10_000,
      logFormat: "text",
    });
  });

  it("reads flags in both spellings, and the last of several", () => {
    const settings = readSettings(["--drain-grace", "5s", "--max-batch=10", "--max-batch", "20"], HOME);
    expect(settings).toMatchObject({ drainGraceMs: 5_000, maxBatch: 20 });
  });

  it("prefers a flag to a variable, and a variable to the default", () => {
    const env = { ...HOME, BATON_NAMESPACE: "from-env", BATON_MAX_WAIT: "2m" };
    expect(readSettings(["--namespace", "from-flag"], env)).toMatchObject({
      namespace: "from-flag",
      maxWaitMs: 120_000,
    });
  });

  it("takes an empty variable as not set", () => {
    expect(readSettings([], { ...HOME, BATON_MAX_BATCH: "" }).maxBatch).toBe(1_000);
  });

  it("puts the data where XDG_DATA_HOME says, and makes a relative folder absolute", () => {
    expect(readSettings([], { ...HOME, XDG_DATA_HOME: "/data" }).dataDir).toBe("/data/baton");
    expect(readSettings(["--data-dir", "here"], HOME).dataDir).toBe(`${process.cwd()}/here`);
  });

  it("ignores the variables of the other commands", () => {
    const env = {
      ...HOME,
      BATON_ADDR: "x",
      BATON_JOB_ID: "1",
      BATON_QUEUE: "q",
      BATON_HEADERS: "{}",
      BATON_HEADER_A: "1",
    };
    expect(readSettings([], env).grpcAddr).toBe("127.0.0.1:7711");
  });

  it.each([
    [["--drain-grace", "5"], "--drain-grace 5: write a duration such as 500ms, 10s or 2m, from 0 to 1h"],
    [["--drain-grace", "-5s"], "--drain-grace -5s: write a duration"],
    [["--drain-grace", "2h"], "--drain-grace 2h: write a duration"],
    [
      ["--fallback-interval", "99ms"],
      "--fallback-interval 99ms: write a duration such as 500ms, 10s or 2m, from 100ms to 1m",
    ],
    [["--default-lease-duration", "99ms"], "--default-lease-duration 99ms: write a duration such as"],
    [["--default-lease-duration", "8d"], "from 100ms to 7d"],
    [["--default-max-attempts", "0"], "--default-max-attempts 0: write a whole number from 1 to 1000"],
    [["--default-initial-backoff", "366d"], "from 0 to 365d"],
    [["--default-max-backoff", "1"], "--default-max-backoff 1: write a duration"],
    [["--history-max-events", "99"], "--history-max-events 99: write a whole number from 100 to 1000000"],
    [["--max-batch", "1001"], "--max-batch 1001: write a whole number from 1 to 1000"],
    [["--max-batch", "0"], "--max-batch 0: write a whole number"],
    [["--max-batch", "1e2"], "--max-batch 1e2: write a whole number"],
    [["--max-batch", ""], "--max-batch : write a whole number"],
    [["--max-batch"], "--max-batch: write a whole number from 1 to 1000"],
    [["--max-payload-bytes", "4 MiB"], "--max-payload-bytes 4 MiB: write a size such as 64KiB or 16MiB"],
    [["--max-payload-bytes", "4MB"], "--max-payload-bytes 4MB: write a size"],
    [["--appendfsync", "sometimes"], "--appendfsync sometimes: write always, everysec or no"],
    [["--log-format", "xml"], "--log-format xml: write text or json"],
    [["--namespace", "a:b"], "--namespace a:b: write 1 to 64 of the characters"],
    [["--namespace", "{a}"], "--namespace {a}: write 1 to 64"],
    [["--namespace", "x".repeat(65)], "write 1 to 64"],
    [["--grpc-addr", "7711"], "--grpc-addr 7711: write host:port, such as 127.0.0.1:7711"],
    [["--grpc-addr", "localhost:70000"], "--grpc-addr localhost:70000: write host:port"],
    [["--grpc-addr", "::1:7711"], "--grpc-addr ::1:7711: write host:port"],
    [["--data-dir", ""], "--data-dir : write the path of a folder"],
    [["--max-bach", "5"], "--max-bach: there is no such setting; did you mean --max-batch?"],
    [["--colour"], "--colour: there is no such setting; baton serve --help lists them all"],
    [["serve"], "serve: write settings as --name value"],
  ])("refuses %j with a sentence that says what to write", (argv, message) => {
    expect(errorOf(argv)).toContain(message);
  });

  it("names the variable when that is where the mistake is", () => {
    expect(errorOf([], { BATON_MAX_BATCH: "lots" })).toBe("BATON_MAX_BATCH=lots: write a whole number from 1 to 1000");
    expect(errorOf([], { BATON_REDIS_URI: "redis://x" })).toBe(
      "BATON_REDIS_URI: there is no such variable; did you mean BATON_REDIS_URL?",
    );
  });

  it("does not repeat a malformed Redis URL, which may hold a password", () => {
    const message = errorOf(["--redis-url", "http://:hunter2@redis"]);
    expect(message).toContain("--redis-url: write a URL such as redis://127.0.0.1:6379");
    expect(message).not.toContain("hunter2");
  });

  it.each(["redis://localhost", "rediss://user:secret@host:6380/1", "unix:/run/redis.sock", "/run/redis.sock"])(
    "takes %s as a Redis",
    (url) => {
      expect(readSettings(["--redis-url", url], HOME).redisUrl).toBe(url);
    },
  );

  it.each(["0.0.0.0:0", "localhost:1", "[::1]:7711", "broker.example.com:65535", "unix:/run/baton.sock"])(
    "takes %s as an address",
    (address) => {
      expect(readSettings(["--grpc-addr", address], HOME).grpcAddr).toBe(address);
    },
  );

  it("refuses a longest wait between attempts that is shorter than the first", () => {
    expect(errorOf(["--default-initial-backoff", "2h"])).toBe(
      "--default-max-backoff (1h) must be at least --default-initial-backoff (2h): write a longer one or a shorter one",
    );
    const waits = ["--default-initial-backoff", "2h", "--default-max-backoff", "2h"];
    expect(readSettings(waits, HOME)).toMatchObject({ defaultInitialBackoffMs: 7_200_000 });
  });

  it("refuses a payload limit that no message could carry", () => {
    expect(errorOf(["--max-message-bytes", "1MiB"])).toBe(
      "--max-payload-bytes (3MiB) must be less than --max-message-bytes (1MiB): " +
        "write a smaller payload or a larger message",
    );
  });
});

describe("helpText()", () => {
  it("lists every setting with its flag, its variable and its default", () => {
    const help = helpText();
    for (const key of Object.keys(readSettings([], HOME))) {
      const words = key.replace(/Ms$/, "").replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      expect(help).toContain(`--${words} `);
      expect(help).toContain(`[BATON_${words.replaceAll("-", "_").toUpperCase()}, default `);
    }
    expect(help).toContain("[BATON_DEAD_LETTER_AGE, default 180d]");
    expect(help).toContain("[BATON_MAX_HEADER_BYTES, default 64KiB]");
  });
});

describe("durations and sizes", () => {
  it.each([
    ["0", 0],
    ["250ms", 250],
    ["1.5s", 1_500],
    ["1h30m", 5_400_000],
    ["7d", 604_800_000],
    ["0.1ms", 1],
  ])("reads %s as %i ms, a fraction rounded up", (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  it.each(["", "5", "s", "-1s", "1 s", "1S", "1e3ms", "9".repeat(30), `${"9".repeat(30)}d`])("refuses %j", (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });

  it.each([
    ["4096", 4096],
    ["1B", 1],
    ["1.5KiB", 1536],
    ["16MiB", 16_777_216],
    ["2GiB", 2_147_483_648],
  ])("reads %s as %i bytes", (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  it.each(["", "MiB", "1.3B", "-1", "1kb"])("refuses %j as a size", (text) => {
    expect(parseBytes(text)).toBeUndefined();
  });

  it("shows what it reads", () => {
    for (const text of ["0", "1ms", "90s", "10m", "5h", "180d"])
      expect(showDuration(parseDuration(text) ?? -1)).toBe(text);
    for (const text of ["0", "1", "64KiB", "16MiB", "1GiB"]) expect(showBytes(parseBytes(text) ?? -1)).toBe(text);
  });
});

describe("nearest()", () => {
  it("finds what was meant, and nothing for what is far off", () => {
    expect(nearest("--max-bathc", ["--max-batch", "--max-wait"])).toBe("--max-batch");
    expect(nearest("--zzz", ["--max-batch", "--max-wait"])).toBeUndefined();
    expect(nearest("x".repeat(10_000), ["--max-batch"])).toBeUndefined();
  });
});
