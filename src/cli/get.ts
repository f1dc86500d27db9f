/** `baton get`: shows one job. */
import { command, print } from "./command.ts";
import { flag, UsageError } from "./options.ts";
import { showJob } from "./show.ts";
import { clientOptions, withClient } from "./with-client.ts";

export const get = command({
  name: "get",
  usage: "QUEUE ID [options]",
  summary: "Shows a job, in any state, with its payload, and its result or last error.",
  options: {
    omitResult: flag("Without the result: for a large payload, which is left out beside a large result."),
    ...clientOptions,
  },
  examples: ["baton get mail welcome-1", "baton get mail welcome-1 --json | jq .state"],
  async run(values, args, io) {
    const [queue, id, ...rest] = args;
    if (queue === undefined || id === undefined || rest.length > 0) {
      throw new UsageError("write one queue and one id: baton get QUEUE ID");
    }
    return await withClient(values, io, async (client) => {
      const job = await client.get(queue, id, { omitResult: values.omitResult });
      print(io, values.json ? JSON.stringify(job) : showJob(job));
      return 0;
    });
  },
});
