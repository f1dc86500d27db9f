/**
 * A process as the broker is one, for the tests that kill it: starts the embedded Redis on the folder in its first
 * argument, says so in one line of JSON, and runs until SIGTERM.
 */
import { once } from "node:events";
import { startEmbeddedRedis } from "../../src/store/embedded.ts";

// Before the report, because the test may signal as soon as it has read that.
const told = once(process, "SIGTERM");
const keepRunning = setInterval(() => {}, 60_000);
const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);
const log = { info: () => {}, warn: () => {}, error: () => {} };
try {
  const redis = await startEmbeddedRedis({
    dataDir: process.argv[2] ?? "",
    appendfsync: "always",
    log,
    install: process.argv.includes("--install"),
  });
  say({ pid: process.pid, redisPid: redis.pid, socketPath: redis.socketPath });
  if (process.argv.includes("--exit")) process.exit(3);
  await told;
  await redis.stop();
} catch (error) {
  say({ pid: process.pid, error: (error as Error).message });
}
clearInterval(keepRunning);
