/** `baton serve`: runs a broker until it is told to stop. */
import { setFlagsFromString } from "node:v8";
import { createLogger } from "../log.ts";
import { helpText, readSettings, SettingsError } from "../settings.ts";
import { type Command, type Io, print } from "./command.ts";
import { UsageError } from "./options.ts";

/** What draining may take beyond its grace: the streams are closed by then, and only files and sockets are left. */
const STOP_LIMIT_MS = 5_000;

const EXIT_CODES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

/** Ctrl-C under npm arrives twice: from the terminal, and from npm, which passes it on. */
const SAME_KEYPRESS_MS = 200;

/**
 * After 8 s with nothing to do V8 makes the heap small, and lets it grow hardly at all when there is work again: a
 * mark-compact every 90 ms instead of every 700, and 20 µs of CPU for a job's life instead of 12. With this the heap may
 * always grow to four times what is alive, and it is 13 µs. `--no-memory-reducer` does
 * better still (11), but works only where Node is started.
 */
const GROW_AS_WHEN_BUSY = "--heap-growing-percent=300";

type Signal = keyof typeof EXIT_CODES;

export const serve: Command = {
  name: "serve",
  usage: "[settings]",
  summary: "Runs a broker, with a Redis of its own unless --redis-url names one.",
  help() {
    const notes = [
      "Each setting has a flag and a variable; the flag wins. SIGTERM, SIGINT or SIGHUP lets workers finish for up",
      "to --drain-grace, then exits with 0; a second one ends the broker at once.",
    ];
    return [`baton serve ${this.usage}`, this.summary, `Settings:\n${helpText()}`, notes.join("\n")].join("\n\n");
  },
  async run(argv, io) {
    const settings = settingsFrom(argv, io.env);
    setFlagsFromString(GROW_AS_WHEN_BUSY);
    const log = createLogger({ format: settings.logFormat, stream: io.stderr });
    const signals = listenForSignals();
    try {
      // Loaded here, so that the other commands start without the broker's libraries.
      const { startServer } = await import("../server.ts");
      const starting = new AbortController();
      void signals.first.then(() => starting.abort());
      const server = await startServer(settings, log, starting.signal).catch((error: unknown) => {
        if (!starting.signal.aborted) throw error;
      });
      if (server === undefined) {
        log.info("stopped before it was ready");
        return 0;
      }
      print(io, `baton ready: grpc ${server.grpcAddress}`);
      const asked = await Promise.race([signals.first, server.closed]);
      if (asked === undefined) throw new Error("the broker has stopped by itself");
      log.info("draining", { signal: asked, graceMs: settings.drainGraceMs });
      const guard = setTimeout(() => {
        log.error("the broker did not stop in time");
        process.exit(1);
      }, settings.drainGraceMs + STOP_LIMIT_MS);
      await server.drain();
      clearTimeout(guard);
      log.info("stopped");
      return 0;
    } finally {
      signals.stop();
    }
  },
};

function settingsFrom(argv: readonly string[], env: Io["env"]) {
  try {
    return readSettings(argv, env);
  } catch (error) {
    if (error instanceof SettingsError) throw new UsageError(error.message);
    throw error;
  }
}

/** The first signal is a wish to stop, which also ends a start that is under way; the second ends the process. */
function listenForSignals(): { readonly first: Promise<Signal>; stop(): void } {
  const { promise, resolve } = Promise.withResolvers<Signal>();
  let askedAt: number | undefined;
  const onSignal = (signal: Signal) => {
    const isEcho = signal === "SIGINT" && askedAt !== undefined && performance.now() - askedAt < SAME_KEYPRESS_MS;
    if (askedAt !== undefined && !isEcho) process.exit(EXIT_CODES[signal]);
    askedAt ??= performance.now();
    resolve(signal);
  };
  const names = Object.keys(EXIT_CODES) as Signal[];
  for (const name of names) process.on(name, onSignal);
  return {
    first: promise,
    stop: () => {
      for (const name of names) process.off(name, onSignal);
    },
  };
}
