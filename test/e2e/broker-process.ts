/** A broker as users run one: a process of its own, started by the launcher, ended by signals. */
import { fileURLToPath } from "node:url";
import { until, within } from "../support/wait.ts";
import { type Ended, type Program, startProgram } from "./program.ts";

const LAUNCHER = fileURLToPath(new URL("../../src/cli/baton.js", import.meta.url));
const START_WITHIN_MS = 20_000;

export type BrokerProcess = Program & {
  readonly address: string;
  /** Of its private Redis; undefined when it has none. */
  readonly redisPid: number | undefined;
  /** Sends SIGTERM. */
  terminate(): void;
  /** Until it has ended by itself, which takes its drain. */
  waitForEnd(): Promise<Ended>;
};

/** `settings` as on the command line, such as "--data-dir", "/tmp/x". */
export async function startBrokerProcess(...settings: readonly string[]): Promise<BrokerProcess> {
  const program = startProgram(process.execPath, [LAUNCHER, "serve", "--grpc-addr", "127.0.0.1:0", ...settings]);
  try {
    const ready = await until(
      () => {
        if (program.child.exitCode !== null) return "ended" as const;
        return /^baton ready: grpc (\S+)$/m.exec(program.output())?.[1];
      },
      { what: "the broker to be ready", withinMs: START_WITHIN_MS },
    );
    if (ready === "ended") throw new Error("the broker ended while it started");
    const redisPid = /the embedded Redis runs pid=(\d+)/.exec(program.output())?.[1];
    return {
      ...program,
      address: ready,
      redisPid: redisPid === undefined ? undefined : Number(redisPid),
      terminate: () => void program.child.kill("SIGTERM"),
      waitForEnd: () => within(program.ended, { what: "the broker to end", withinMs: START_WITHIN_MS }),
    };
  } catch (error) {
    await program.kill();
    throw new Error(`${(error as Error).message}; it said:\n${program.output()}`, { cause: error });
  }
}

/** What a crash of the machine does to a process; resolves when the process is gone. */
export async function killHard(pid: number): Promise<void> {
  process.kill(pid, "SIGKILL");
  await until(() => !isAlive(pid), { what: `process ${pid} to be gone` });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
