/** `baton jobs`: the jobs of a queue that are in one state. */
import { command } from "./command.ts";
import { jobTable, state } from "./job-table.ts";
import { UsageError, value } from "./options.ts";
import { limitOption, pageSizeFor, printList } from "./print-list.ts";
import { clientOptions, withClient } from "./with-client.ts";

const DEFAULT_LIMIT = 20;

export const jobs = command({
  name: "jobs",
  usage: "QUEUE [options]",
  summary: "Shows the next jobs of a queue without touching them, or those in another state.",
  options: {
    state: value(state, `Which: ${state.ask}. [default ready]`),
    limit: limitOption(DEFAULT_LIMIT),
    ...clientOptions,
  },
  notes: `READY jobs stand in the order in which workers will get them, HELD ones by their concurrency key, others by the
time that matters next.`,
  examples: ["baton jobs mail", "baton jobs mail --state retrying --limit 100"],
  async run(values, [queue, ...rest], io) {
    if (queue === undefined || rest.length > 0) throw new UsageError("write one queue: baton jobs QUEUE");
    const { state: shown = "READY", limit = DEFAULT_LIMIT, json } = values;
    return await withClient(values, io, async (client) => {
      await printList(client.listAll(queue, shown, { pageSize: pageSizeFor(limit) }), io, {
        limit,
        json,
        none: `no job of ${queue} is ${shown}`,
        show: (found) => jobTable(found, shown),
      });
      return 0;
    });
  },
});
