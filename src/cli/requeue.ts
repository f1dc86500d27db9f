/** `baton requeue`: gives back jobs whose lease has ended. */
import { integer } from "../setting-values.ts";
import { command, print } from "./command.ts";
import { UsageError, value } from "./options.ts";
import { slowCall, slowClientOptions, withClient } from "./with-client.ts";

export const requeue = command({
  name: "requeue",
  usage: "QUEUE [options]",
  summary: "Gives back jobs whose lease has ended, those first whose lease ended first.",
  options: {
    limit: value(integer(1, 1_000_000), "At most so many. [default 1000]"),
    ...slowClientOptions,
  },
  notes: "Brokers do it by themselves, but not in a queue of mode RECOVERABLE, for which this is made.",
  examples: ["baton requeue imports --limit 10000"],
  async run(values, [queue, ...rest], io) {
    if (queue === undefined || rest.length > 0) throw new UsageError("write one queue: baton requeue QUEUE");
    return await withClient(values, io, async (client) => {
      const requeued = await client.queues.requeue(queue, { limit: values.limit, ...slowCall(values) });
      const text = `${requeued} ${requeued === 1 ? "job" : "jobs"} given back`;
      print(io, values.json ? JSON.stringify({ requeued }) : text);
      return 0;
    });
  },
});
