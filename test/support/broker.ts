/** A broker of the test's own, in this process, on a private Redis. */
import type { Logger } from "../../src/model/log.ts";
import { type BatonServer, startServer } from "../../src/server.ts";
import { readSettings, type Settings } from "../../src/settings.ts";
import { startRedis, type TestRedis } from "./redis.ts";

export type LogLine = { readonly level: "info" | "warn" | "error"; readonly message: string; readonly fields: object };

export type TestBroker = {
  /** host:port */
  readonly address: string;
  readonly settings: Settings;
  readonly redis: TestRedis;
  readonly redisUrl: string;
  readonly server: BatonServer;
  readonly log: readonly LogLine[];
  /** Ends the broker, and the Redis too when it is this broker's own. */
  stop(): Promise<void>;
};

/** Pass `redis` to let several brokers share one. */
export async function startBroker(options: Partial<Settings> & { redis?: TestRedis } = {}): Promise<TestBroker> {
  const { redis: shared, ...overrides } = options;
  const redis = shared ?? (await startRedis());
  const settings: Settings = {
    ...readSettings([], {}),
    grpcAddr: "127.0.0.1:0",
    redisUrl: redis.url,
    ...overrides,
  };
  const log: LogLine[] = [];
  const server = await startServer(settings, collect(log));
  return {
    address: server.grpcAddress,
    settings,
    redis,
    redisUrl: redis.url,
    server,
    log,
    async stop() {
      await server.stop();
      if (!shared) await redis.stop();
    },
  };
}

export function collect(lines: LogLine[]): Logger {
  const at =
    (level: LogLine["level"]) =>
    (message: string, fields: object = {}) => {
      lines.push({ level, message, fields });
    };
  return { info: at("info"), warn: at("warn"), error: at("error") };
}
