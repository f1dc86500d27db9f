/** `baton queues`: all queues, one in detail, their settings, and their removal state by state. */
import type { Queue } from "../client/index.ts";
import { integer } from "../setting-values.ts";
import { command, print } from "./command.ts";
import { group } from "./group.ts";
import { state } from "./job-table.ts";
import { list, UsageError, value } from "./options.ts";
import { limitOption, pageSizeFor, printList } from "./print-list.ts";
import { queuesSet } from "./queues-set.ts";
import { roughly } from "./show.ts";
import { showQueue } from "./show-queue.ts";
import { type Column, table } from "./table.ts";
import { clientOptions, slowCall, slowClientOptions, withClient } from "./with-client.ts";

const DEFAULT_LIMIT = 100;
const DEFAULT_DAYS = 7;

const COLUMNS: readonly Column<Queue>[] = [
  { heading: "QUEUE", of: (queue) => queue.name },
  { heading: "READY", of: (queue) => queue.counts.ready },
  { heading: "SCHEDULED", of: (queue) => queue.counts.scheduled },
  { heading: "HELD", of: (queue) => queue.counts.held },
  { heading: "RESERVED", of: (queue) => queue.counts.reserved },
  { heading: "RETRYING", of: (queue) => queue.counts.retrying },
  { heading: "COMPLETED", of: (queue) => queue.counts.completed },
  { heading: "FAILED", of: (queue) => queue.counts.failed },
  { heading: "OLDEST", of: ({ oldestReadyAgeMs: age }) => (age === undefined ? "" : roughly(age)) },
  { heading: "", of: remarks },
];

/** What is unusual about a queue. */
function remarks({ settings, setAside }: Queue): string {
  const { paused, mode } = settings;
  const unreadable = setAside > 0 ? `${setAside} unreadable` : "";
  return [paused ? "paused" : "", mode === "RELIABLE" ? "" : mode, unreadable].filter(Boolean).join(", ");
}

const all = command({
  name: "queues",
  usage: "[options]",
  summary: "Shows all queues, with the number of their jobs in each state.",
  options: { limit: limitOption(DEFAULT_LIMIT), ...clientOptions },
  notes: "OLDEST is how long the job that is READY longest has been waiting.",
  examples: ["baton queues"],
  async run(values, args, io) {
    if (args.length > 0) throw new UsageError(`${args[0]}: write baton queues show ${args[0]} for one queue`);
    const { limit = DEFAULT_LIMIT, json } = values;
    return await withClient(values, io, async (client) => {
      await printList(client.queues.listAll({ pageSize: pageSizeFor(limit) }), io, {
        limit,
        json,
        none: "there are no queues: a queue comes to be with its first job, schedule or setting",
        show: (queues) => table(COLUMNS, queues),
      });
      return 0;
    });
  },
});

const show = command({
  name: "queues show",
  usage: "QUEUE [options]",
  summary: "Shows one queue: its jobs by state, its counters, and its settings.",
  options: {
    days: value(integer(0, 180), `Counters of so many days on which anything happened. [default ${DEFAULT_DAYS}]`),
    ...clientOptions,
  },
  examples: ["baton queues show mail"],
  async run(values, [name, ...rest], io) {
    if (name === undefined || rest.length > 0) throw new UsageError("write one queue: baton queues show QUEUE");
    return await withClient(values, io, async (client) => {
      const queue = await client.queues.get(name);
      print(io, values.json ? JSON.stringify(queue) : showQueue(queue, values.days ?? DEFAULT_DAYS));
      return 0;
    });
  },
});

const purge = command({
  name: "queues purge",
  usage: "QUEUE --state STATE [options]",
  summary: "Deletes all jobs of a queue that are in some state; workers that run one are told at once.",
  options: { state: list(state, `Which: ${state.ask}; can be repeated.`), ...slowClientOptions },
  examples: ["baton queues purge mail --state completed --state failed"],
  async run(values, [name, ...rest], io) {
    if (name === undefined || rest.length > 0) throw new UsageError("write one queue: baton queues purge QUEUE");
    if (values.state.length === 0) throw new UsageError(`--state: write at least one, such as ${state.ask}`);
    return await withClient(values, io, async (client) => {
      const purged = await client.queues.purge(name, [...new Set(values.state)], slowCall(values));
      const text = `${purged} ${purged === 1 ? "job" : "jobs"} deleted`;
      print(io, values.json ? JSON.stringify({ purged: String(purged) }) : text);
      return 0;
    });
  },
});

export const queues = group({
  name: "queues",
  summary: "Shows the queues, or one of them, sets what holds for its jobs, and deletes jobs by state.",
  commands: [show, queuesSet, purge],
  otherwise: all,
});
