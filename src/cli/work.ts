/** `baton work`: a worker in any language: runs a command for each job, or posts it to a web hook. */
import {
  type Handler,
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
import { flag, list, UsageError, value } from "./options.ts";
import { asText, oneLine } from "./show.ts";
import { WebHook } from "./web-hook.ts";
import { hookTarget } from "./web-hook-target.ts";
import { clientOptions, withClient } from "./with-client.ts";

const DAY_MS = 86_400_000;

const DEFAULT_POST_TIMEOUT_MS = 30_000;

const NOTES = `With --exec, the command is run by /bin/sh, once for each job. It gets
  the payload                 on stdin
  BATON_JOB_ID, BATON_QUEUE   the job
  BATON_ATTEMPT               how often the job has been handed to a worker, 1 on the first
  BATON_HEADER_<NAME>         each header: in capitals, and _ for what is no letter or digit
  BATON_HEADERS               all headers, as a JSON object
and decides what becomes of the job by how it exits:
  0            completed; what it wrote to stdout is the result, at most 3 MiB
  100          failed for good: trying again is of no use
  other        failed, to be tried again; the end of stderr is the message, EXIT_<status> or SIGNAL_<name> the type

stderr passes through. While it runs, the command may say how far it has come, for baton get and baton watch: by lines of
a percentage, and a note if it likes, on file descriptor 3:
  echo "40 page 4 of 10" >&3
When a job is taken away (deleted, or its lease is lost), the command and all that it has
started get SIGTERM, and SIGKILL 5 s later.

With --url, the hook gets one POST for each job, whose body is the payload, byte for byte, with these headers:
  content-type                the payload's, else text/plain; charset=utf-8 where it is UTF-8, application/octet-stream
                              where it is not
  baton-job-id, baton-queue   the job; what is no visible ASCII, and %, in percent-encoding
  baton-attempt               how often the job has been handed to a worker, 1 on the first
  idempotency-key             the same in every attempt at this job, and in no other job: a hook that has done the work
                              of a key can answer 2xx at once
  baton-header-<name>         each header of the job that HTTP carries unchanged
  baton-headers               the others (no ASCII, line breaks, names that differ only in case), as a JSON object
and decides what becomes of the job by how it answers:
  2xx                         completed; the body, with its content-type, is the result. Without result, and with a
                              warning on stderr, when the body is longer than 3 MiB
  429, 408, 425, 5xx          failed, to be tried again: when Retry-After (seconds or a date) says, at most 365 days on,
                              else by the job's retry policy
  other 4xx                   failed for good
  307, 308                    posted again where it says, at most 5 times, when scheme, host and port are the same; also
                              from http to https at their own ports
  any 3xx to another host     failed for good: REDIRECT_TO_OTHER_HOST
  other 3xx                   failed, to be tried again
The start of the answer is the message, HTTP_<status> the type. Failed, to be tried again, are also TIMEOUT, CONNECT,
CONNECTION_LOST (no whole answer) and BAD_ANSWER (no HTTP). A user and password in the address are sent as Basic
authorization. When a job is taken away, its post is broken off.

SIGTERM or SIGINT to the worker lets the commands and posts at work finish for up to --stop-timeout, and gives back what
is left; a second one gives all back at once.`;

export const work = command({
  name: "work",
  usage: "QUEUE... (--exec COMMAND | --url ADDRESS) [options]",
  summary: "Runs a command, or posts to a web hook, for each job of some queues, those named first first.",
  options: {
    exec: value(text(/./s, "a command for /bin/sh, in quotes", "COMMAND"), "What to run for each job."),
    url: value(text(/^/, "the address of a web hook", "ADDRESS"), "Where to post each job, by http or https."),
    header: list(text(/^/, "'NAME: VALUE'", "'NAME: VALUE'"), "With --url: sent with every post; can be repeated."),
    concurrency: value(integer(1, 10_000), "How many jobs to run at once. [default 1]"),
    once: flag("Exit after one job: 0 when it was completed, else 1."),
    lease: value(
      duration(1_000, 7 * DAY_MS),
      "After a broker's sudden death, so long until its jobs return. [default 30s]",
    ),
    workerId: value(text(/./, "a name", "NAME"), "Who takes the jobs, for people. [default host:pid]"),
    stopTimeout: value(
      duration(0, DAY_MS),
      "How long commands and posts may go on when the worker is told to stop. [default 30s]",
    ),
    postTimeout: value(duration(100, 3_600_000), "With --url: how long one post may take, 100ms to 1h. [default 30s]"),
    ...clientOptions,
  },
  notes: NOTES,
  examples: [
    "baton work thumbnails --exec 'convert - -resize 200x200 -' --concurrency 2",
    "baton work mail --url https://hooks.example.com/mail --header 'Authorization: Bearer …'",
  ],
  async run(values, queues, io) {
    if (queues.length === 0) throw new UsageError("write at least one queue: baton work QUEUE... --exec COMMAND");
    const { handler, close } = runnerOf(values, io);
    try {
      return await withClient(values, io, async (client) => {
        let completed = false;
        const worker = new Worker(client, {
          queues,
          concurrency: values.once ? 1 : values.concurrency,
          maxJobs: values.once ? 1 : undefined,
          leaseMs: values.lease,
          workerId: values.workerId,
          stopTimeoutMs: values.stopTimeout,
          handler,
          onError: errorReporter(values.json, io),
          onReleased: (job, outcome, result) => {
            completed = outcome.outcome === "completed";
            reportReleased(job, outcome, result, values.json, io);
          },
        });
        await untilStopped(worker);
        return values.once && !completed ? 1 : 0;
      });
    } finally {
      close();
    }
  },
});

type RunnerValues = {
  readonly exec: string | undefined;
  readonly url: string | undefined;
  readonly header: readonly string[];
  readonly postTimeout: number | undefined;
  readonly json: boolean;
};

/** What runs each job. */
type Runner = { readonly handler: Handler; close(): void };

function runnerOf(values: RunnerValues, io: Io): Runner {
  const { exec: line, url, header, postTimeout, json } = values;
  if ((line === undefined) === (url === undefined)) {
    throw new UsageError("write what to do with each job, one of the two: --exec COMMAND or --url ADDRESS");
  }
  const warn = (text: string) => io.stderr.write(json ? `${failureJson(new Error(text))}\n` : `baton: ${text}\n`);
  if (url === undefined) {
    if (header.length > 0) throw new UsageError("--header: write it with --url ADDRESS only");
    if (postTimeout !== undefined) throw new UsageError("--post-timeout: write it with --url ADDRESS only");
    return {
      handler: async (job, { signal, progress: onProgress }) => {
        const onMalformed = (said: string) =>
          warn(`progress of ${job.queue} ${job.id}: write lines such as "40 page 4 of 10", not "${oneLine(said, 60)}"`);
        const options = { signal, stderr: io.stderr, progress: { onProgress, onMalformed } };
        return resultOf(await exec(line ?? "", job, options));
      },
      close: () => {},
    };
  }
  const timeoutMs = postTimeout ?? DEFAULT_POST_TIMEOUT_MS;
  const hook = new WebHook({ target: hookTarget(url, header), timeoutMs, warn });
  return {
    handler: async (job, { signal }) => {
      const { body, contentType } = await hook.post(job, signal);
      return resultOf(body, contentType);
    },
    close: () => hook.close(),
  };
}

/** Text where it is UTF-8, so that people can read it; nothing where nothing was written or answered. */
function resultOf(bytes: Buffer, contentType = ""): HandlerResult {
  if (bytes.length === 0) return undefined;
  const text = asText(bytes);
  return text === undefined ? { data: bytes, contentType } : { text, contentType };
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
