/** `baton work`: a worker in any language: runs a command for each job. */
import {
  type HandlerResult,
  type Outcome,
  type ReleaseResult,
  type ReservedJob,
  Worker,
  type WorkerErrorContext,
} from "../client/index.ts";
import { duration, integer, text } from "../setting-values.ts";
import { command, type Io, print } from "./command.ts";
import { exec } from "./exec.ts";
import { failureJson, failureText } from "./failure.ts";
import { flag, UsageError, value } from "./options.ts";
import { asText } from "./show.ts";
import { clientOptions, withClient } from "./with-client.ts";

const DAY_MS = 86_400_000;

const NOTES = `The command is run by /bin/sh, once for each job. It gets
  the payload                 on stdin
  BATON_JOB_ID, BATON_QUEUE   the job
  BATON_ATTEMPT               how often the job has been handed to a worker, 1 on the first
  BATON_HEADER_<NAME>         each header: in capitals, and _ for what is no letter or digit
  BATON_HEADERS               all headers, as a JSON object
and decides what becomes of the job by how it exits:
  0            completed; what it wrote to stdout is the result, at most 3 MiB
  100          failed for good: trying again is of no use
  other        failed, to be tried again; the end of stderr is the message, EXIT_<status> or SIGNAL_<name> the type

stderr passes through. When a job is taken away (deleted, or its lease is lost), the command and all that it has
started get SIGTERM, and SIGKILL 5 s later. SIGTERM or SIGINT to the worker lets the commands at work finish for up to
--stop-timeout, and gives back what is left; a second one gives all back at once.`;

export const work = command({
  name: "work",
  usage: "QUEUE... --exec COMMAND [options]",
  summary: "Runs a command for each job of some queues, those named first first.",
  options: {
    exec: value(text(/./s, "a command for /bin/sh, in quotes", "COMMAND"), "What to run for each job. Required."),
    concurrency: value(integer(1, 10_000), "How many jobs to run at once. [default 1]"),
    once: flag("Exit after one job: 0 when it was completed, else 1."),
    lease: value(
      duration(1_000, 7 * DAY_MS),
      "After a broker's sudden death, so long until its jobs return. [default 30s]",
    ),
    workerId: value(text(/./, "a name", "NAME"), "Who takes the jobs, for people. [default host:pid]"),
    stopTimeout: value(
      duration(0, DAY_MS),
      "How long commands may go on when the worker is told to stop. [default 30s]",
    ),
    ...clientOptions,
  },
  notes: NOTES,
  async run(values, queues, io) {
    const { exec: line } = values;
    if (queues.length === 0) throw new UsageError("write at least one queue: baton work QUEUE... --exec COMMAND");
    if (line === undefined) throw new UsageError("write what to run: --exec COMMAND");
    return await withClient(values, io, async (client) => {
      let completed = false;
      const worker = new Worker(client, {
        queues,
        concurrency: values.once ? 1 : values.concurrency,
        maxJobs: values.once ? 1 : undefined,
        leaseMs: values.lease,
        workerId: values.workerId,
        stopTimeoutMs: values.stopTimeout,
        handler: async (job, { signal }) => resultOf(await exec(line, job, { signal, stderr: io.stderr })),
        onError: errorReporter(values.json, io),
        onReleased: (job, outcome, result) => {
          completed = outcome.outcome === "completed";
          reportReleased(job, outcome, result, values.json, io);
        },
      });
      await untilStopped(worker);
      return values.once && !completed ? 1 : 0;
    });
  },
});

/** Text where it is UTF-8, so that people can read it; nothing where the command wrote nothing. */
function resultOf(stdout: Buffer): HandlerResult {
  return stdout.length === 0 ? undefined : (asText(stdout) ?? stdout);
}

/** The first signal stops gracefully, the second gives all back at once. */
async function untilStopped(worker: Worker): Promise<void> {
  let asked = false;
  const onSignal = () => {
    void worker.stop(asked ? { timeoutMs: 0 } : {});
    asked = true;
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  process.on("SIGHUP", onSignal);
  try {
    // A refusal for good comes out of `closed`.
    worker.start().catch(() => {});
    await worker.closed;
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
    process.off("SIGHUP", onSignal);
  }
}

function reportReleased(job: ReservedJob, outcome: Outcome, result: ReleaseResult, json: boolean, io: Io): void {
  const { queue, id, attempt } = job;
  if (json) {
    const released = result.toJSON() as object;
    print(io, JSON.stringify({ queue, id, attempt, outcome: outcome.outcome, ...released }));
    return;
  }
  const why = outcome.outcome === "failed" ? `: ${outcome.type ?? ""}` : "";
  const next = result.runAt === undefined ? result.state : `${result.state} at ${result.runAt.toISOString()}`;
  print(io, `${queue} ${id} attempt ${attempt} ${outcome.outcome}${why}, now ${next}`);
}

/** A stream that cannot be opened is tried again every few seconds: the same trouble is told once. */
function errorReporter(json: boolean, io: Io): (error: unknown, context: WorkerErrorContext) => void {
  let told = "";
  return (error, { during, job }) => {
    // A command that failed is no error of the worker: the release says so.
    if (during === "handler") return;
    const what = job === undefined ? during : `${during} of ${job.queue} ${job.id}`;
    const text = json ? `${failureJson(error)}\n` : `baton: ${what}: ${failureText(error)}\n`;
    if (during === "stream" && text === told) return;
    told = text;
    io.stderr.write(text);
  };
}
