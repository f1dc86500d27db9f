/** `baton retry`: lets finished jobs run again. */
import type { BatchResult, JobStateName } from "../client/index.ts";
import { command, type Io, print } from "./command.ts";
import { failureJson, failureText } from "./failure.ts";
import { flag, UsageError } from "./options.ts";
import { slowCall, slowClientOptions, withClient } from "./with-client.ts";

export const retry = command({
  name: "retry",
  usage: "QUEUE (ID... | --all) [options]",
  summary: "Lets jobs run again that are FAILED or COMPLETED, or all that are FAILED.",
  options: { all: flag("All jobs of the queue that are FAILED."), ...slowClientOptions },
  notes: "Exits with 1 when a job that was named cannot run again: it is not there, or has not finished.",
  examples: ["baton retry mail welcome-1", "baton retry mail --all"],
  async run(values, args, io) {
    const [queue, ...ids] = args;
    if (queue === undefined || ids.length > 0 === values.all) {
      throw new UsageError("write a queue, and ids or --all: baton retry QUEUE ID..., baton retry QUEUE --all");
    }
    return await withClient(values, io, async (client) => {
      if (values.all) {
        const retried = await client.retryAllFailed(queue, slowCall(values));
        const text = `${retried} ${retried === 1 ? "job" : "jobs"} READY again`;
        print(io, values.json ? JSON.stringify({ retried }) : text);
        return 0;
      }
      const results = await client.retry(queue, ids, slowCall(values));
      for (const [index, result] of results.entries()) report(ids[index] ?? "", result, values.json, io);
      return results.length === ids.length && results.every(({ ok }) => ok) ? 0 : 1;
    });
  },
});

function report(id: string, result: BatchResult<JobStateName>, json: boolean, io: Io): void {
  if (json) {
    const answer = result.ok ? { state: `JOB_STATE_${result.value}` } : JSON.parse(failureJson(result.error));
    print(io, JSON.stringify({ id, ...answer }));
  } else if (result.ok) print(io, `${id}: ${result.value}`);
  else io.stderr.write(`baton: ${id}: ${failureText(result.error)}\n`);
}
