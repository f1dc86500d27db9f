/** `baton failed`: the dead letter of a queue. */
import { command, print } from "./command.ts";
import { jobTable } from "./job-table.ts";
import { flag, UsageError } from "./options.ts";
import { limitOption, pageSizeFor, printList } from "./print-list.ts";
import { slowCall, slowClientOptions, withClient } from "./with-client.ts";

const DEFAULT_LIMIT = 20;

export const failed = command({
  name: "failed",
  usage: "QUEUE [options]",
  summary: "Shows the dead letter of a queue: jobs that failed for good, those first that failed first.",
  options: {
    limit: limitOption(DEFAULT_LIMIT),
    deleteAll: flag("Delete them all, instead of showing them."),
    ...slowClientOptions,
  },
  notes: "One of them: baton get QUEUE ID shows it whole, baton retry runs it again, baton delete removes it.",
  examples: ["baton failed mail", "baton retry mail --all", "baton failed mail --delete-all"],
  async run(values, [queue, ...rest], io) {
    if (queue === undefined || rest.length > 0) throw new UsageError("write one queue: baton failed QUEUE");
    const { limit = DEFAULT_LIMIT, json, deleteAll } = values;
    return await withClient(values, io, async (client) => {
      if (deleteAll) {
        const purged = await client.queues.purge(queue, ["FAILED"], slowCall(values));
        const text = `${purged} ${purged === 1 ? "job" : "jobs"} deleted`;
        print(io, json ? JSON.stringify({ purged: String(purged) }) : text);
        return 0;
      }
      await printList(client.listAll(queue, "FAILED", { pageSize: pageSizeFor(limit) }), io, {
        limit,
        json,
        none: `no job of ${queue} is FAILED`,
        show: (found) => jobTable(found, "FAILED"),
      });
      return 0;
    });
  },
});
