/** `baton workers`: who works at the queues, and who is to get no more jobs. */
import type { WorkerInfo } from "../client/index.ts";
import { text } from "../setting-values.ts";
import { command, print } from "./command.ts";
import { group } from "./group.ts";
import { UsageError, value } from "./options.ts";
import { limitOption, pageSizeFor, printList } from "./print-list.ts";
import { oneLine, shortTime } from "./show.ts";
import { type Column, table } from "./table.ts";
import { clientOptions, withClient } from "./with-client.ts";

const DEFAULT_LIMIT = 100;

const COLUMNS: readonly Column<WorkerInfo>[] = [
  { heading: "WORKER", of: (worker) => oneLine(worker.workerId) },
  { heading: "HOST", of: (worker) => oneLine(worker.host) },
  { heading: "LANGUAGE", of: (worker) => oneLine(worker.language, 40) },
  { heading: "QUEUES", of: (worker) => worker.queues.join(" ") },
  { heading: "IN HAND", of: (worker) => (worker.streaming ? worker.jobsInHand : "?") },
  { heading: "SINCE", of: (worker) => shortTime(worker.connectedAt) },
  { heading: "LAST SEEN", of: (worker) => shortTime(worker.lastSeenAt) },
  { heading: "", of: (worker) => (worker.quiet ? "quiet" : "") },
];

const list = command({
  name: "workers",
  usage: "[options]",
  summary: "Shows the workers that hold a stream open, or have called Reserve within the last 30 s.",
  options: {
    queue: value(text(/./, "a queue", "QUEUE"), "Only workers at this queue."),
    limit: limitOption(DEFAULT_LIMIT),
    ...clientOptions,
  },
  examples: ["baton workers --queue mail"],
  async run(values, args, io) {
    if (args.length > 0) throw new UsageError(`${args[0]}: write --queue QUEUE for the workers at one queue`);
    const { queue, limit = DEFAULT_LIMIT, json } = values;
    return await withClient(values, io, async (client) => {
      await printList(client.queues.allWorkers({ queue, pageSize: pageSizeFor(limit) }), io, {
        limit,
        json,
        none: queue === undefined ? "there are no workers" : `there are no workers at ${queue}`,
        show: (workers) => table(COLUMNS, workers),
      });
      return 0;
    });
  },
});

const quiet = command({
  name: "workers quiet",
  usage: "WORKER [options]",
  summary: "Hands no more jobs to a worker, at any broker; what it runs goes on.",
  options: clientOptions,
  notes: "It holds for all workers of this id, until baton workers resume, or until none has been seen for a day.",
  examples: ["baton workers quiet web-1:4711"],
  async run(values, [worker, ...rest], io) {
    if (worker === undefined || rest.length > 0) throw new UsageError("write one worker: baton workers quiet WORKER");
    return await withClient(values, io, async (client) => {
      const changed = await client.queues.quiet(worker);
      print(io, values.json ? JSON.stringify({ changed }) : changed ? "quiet" : "it was quiet already");
      return 0;
    });
  },
});

const resume = command({
  name: "workers resume",
  usage: "WORKER [options]",
  summary: "Hands jobs to a quiet worker again.",
  options: clientOptions,
  examples: ["baton workers resume web-1:4711"],
  async run(values, [worker, ...rest], io) {
    if (worker === undefined || rest.length > 0) throw new UsageError("write one worker: baton workers resume WORKER");
    return await withClient(values, io, async (client) => {
      const changed = await client.queues.resumeWorker(worker);
      print(io, values.json ? JSON.stringify({ changed }) : changed ? "resumed" : "it was not quiet");
      return 0;
    });
  },
});

export const workers = group({
  name: "workers",
  summary: "Shows the workers at the queues, or keeps jobs from one.",
  commands: [quiet, resume],
  otherwise: list,
});
