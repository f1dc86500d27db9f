/** `baton await`: waits for one job, and prints its result. */
import type { Job } from "../client/index.ts";
import { duration } from "../setting-values.ts";
import { command, type Io, print } from "./command.ts";
import { untilInterrupted } from "./interrupted.ts";
import { flag, UsageError, value } from "./options.ts";
import { asText, showError } from "./show.ts";
import { clientOptions, withClient } from "./with-client.ts";

const YEAR_MS = 365 * 86_400_000;

// `await` alone is a keyword.
export const awaitCommand = command({
  name: "await",
  usage: "QUEUE ID [options]",
  summary: "Waits until a job has finished, and prints its result; also when it finished before.",
  options: {
    wait: value(duration(0, YEAR_MS), "How long to wait. [default 1m]"),
    expect: flag("Wait also for a job that is not there: one that is put only now, or was pulled."),
    ...clientOptions,
  },
  notes: `The result is written to stdout byte for byte. Exits with 0 when the job was completed; with 1 when it failed (stderr
says why), has not finished in time, or is not there.`,
  examples: [
    "baton await reports r-17 --wait 10m >report.pdf",
    "id=$(baton put reports 'May 2027') && baton await reports $id",
  ],
  async run(values, args, io) {
    const [queue, id, ...rest] = args;
    if (queue === undefined || id === undefined || rest.length > 0) {
      throw new UsageError("write one queue and one id: baton await QUEUE ID");
    }
    return await withClient(values, io, async (client) => {
      const { wait: timeoutMs, expect } = values;
      const job = await untilInterrupted((signal) => client.await(queue, id, { timeoutMs, expect, signal }));
      if (values.json) print(io, JSON.stringify(job));
      else printOutcome(job, io);
      return job.state === "COMPLETED" ? 0 : 1;
    });
  },
});

function printOutcome(job: Job, io: Io): void {
  if (job.state !== "COMPLETED") {
    const why = job.error === undefined ? "" : `: ${showError(job.error)}`;
    io.stderr.write(`baton: the job ${job.id} is ${job.state}${why}\n`);
    return;
  }
  const bytes = job.result?.bytes() ?? new Uint8Array();
  io.stdout.write(bytes);
  // On a terminal the prompt should stand on a line of its own.
  const isTerminal = "isTTY" in io.stdout && io.stdout.isTTY === true;
  if (isTerminal && bytes.length > 0 && !asText(bytes)?.endsWith("\n")) io.stdout.write("\n");
}
