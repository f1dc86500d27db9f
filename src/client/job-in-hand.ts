/**
 * A job in hand: waiting (more jobs than handlers, for a moment) ──► running ──► releasing ──► gone. It is gone early
 * when its lease is lost; what its handler then does is nobody's business any more.
 */
import type { HandlerContext } from "./handler.ts";
import type { ReservedJob } from "./output.ts";
import type { WorkStream } from "./work-stream.ts";

export type JobInHand = {
  readonly job: ReservedJob;
  /** The one that brought it, or that has taken it over since. */
  stream: WorkStream;
  phase: "waiting" | "running" | "releasing" | "gone";
  /** Its handler is at work, whatever became of the job. */
  isRunning: boolean;
  readonly abort: AbortController;
  readonly context: HandlerContext;
};

/** What its handler says of how far it has come. */
export type Report = (leaseToken: string, percent: number, note: string) => void;

export function inHand(job: ReservedJob, stream: WorkStream, report: Report): JobInHand {
  const abort = new AbortController();
  const taken: JobInHand = {
    job,
    stream,
    phase: "waiting",
    isRunning: false,
    abort,
    context: {
      signal: abort.signal,
      progress: (percent, note = "") => {
        if (taken.phase === "running" && !isPulled(taken)) report(job.leaseToken, percent, note);
      },
    },
  };
  return taken;
}

/** It has no lease: nobody can take it away, and it cannot be given back. */
export function isPulled({ job }: Pick<JobInHand, "job">): boolean {
  return job.leaseExpiresAt === undefined;
}
