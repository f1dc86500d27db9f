/** A worker as a process of its own, which can be killed (worker-program.ts), and what it says. */
import { fileURLToPath } from "node:url";
import { until } from "../support/wait.ts";
import { type Program, startProgram } from "./program.ts";

type Task = { readonly address: string; readonly queue: string; readonly concurrency: number };

export type WorkerTask =
  /** The TypeScript client's Worker. `runMs` undefined: its jobs run until finish(). */
  | (Task & { readonly kind: "Worker"; readonly leaseMs?: number; readonly runMs?: number })
  /** A bare stream, which takes as many jobs as it may, and never releases them. */
  | (Task & { readonly kind: "Work" | "Subscribe" });

type OfJob = { readonly id: string; readonly attempt: number };

export type WorkerLine =
  | ({ readonly event: "run" | "aborted" } & OfJob)
  | ({ readonly event: "released"; readonly state: string } & OfJob)
  | { readonly event: "error"; readonly during: string; readonly message: string; readonly id: string | undefined };

export type WorkerProcess = Program & {
  lines<E extends WorkerLine["event"]>(event: E): Extract<WorkerLine, { event: E }>[];
  /** Until it has said so often that a job runs. */
  ran(count: number): Promise<void>;
  /** The jobs that run end, and those that come do at once. */
  finish(): void;
};

const PROGRAM = fileURLToPath(new URL("worker-program.ts", import.meta.url));
const WITHIN_MS = 20_000;

export function startWorkerProcess(task: WorkerTask): WorkerProcess {
  const program = startProgram(process.execPath, [PROGRAM, JSON.stringify(task)], { keepStdin: true });
  // The last piece has no end yet.
  const all = () =>
    program
      .stdout()
      .split("\n")
      .slice(0, -1)
      .map((line): WorkerLine => JSON.parse(line));
  const lines: WorkerProcess["lines"] = (event) =>
    all().filter((line): line is Extract<WorkerLine, { event: typeof event }> => line.event === event);
  return {
    ...program,
    lines,
    async ran(count) {
      await until(
        () => {
          if (program.child.exitCode !== null) throw new Error(`the worker ended: ${program.output()}`);
          return lines("run").length >= count;
        },
        { what: `a worker to run ${count} jobs`, withinMs: WITHIN_MS },
      );
    },
    finish: () => void program.child.stdin?.write("finish"),
  };
}
