/** `baton schedule`: jobs at recurring times. */
import { command, print } from "./command.ts";
import { group } from "./group.ts";
import { UsageError } from "./options.ts";
import { limitOption, pageSizeFor, printList } from "./print-list.ts";
import { schedulePut } from "./schedule-put.ts";
import { scheduleTable, showSchedule } from "./show-schedule.ts";
import { clientOptions, withClient } from "./with-client.ts";

const DEFAULT_LIMIT = 100;

function queueAndId(args: readonly string[], word: string): readonly [string, string] {
  const [queue, id, ...rest] = args;
  if (queue === undefined || id === undefined || rest.length > 0) {
    throw new UsageError(`write one queue and one schedule: baton schedule ${word} QUEUE ID`);
  }
  return [queue, id];
}

const get = command({
  name: "schedule get",
  usage: "QUEUE ID [options]",
  summary: "Shows a schedule, its last run and its next.",
  options: clientOptions,
  examples: ["baton schedule get reports daily"],
  async run(values, args, io) {
    const [queue, id] = queueAndId(args, "get");
    return await withClient(values, io, async (client) => {
      const schedule = await client.schedules.get(queue, id);
      print(io, values.json ? JSON.stringify(schedule) : showSchedule(schedule));
      return 0;
    });
  },
});

const list = command({
  name: "schedule list",
  usage: "QUEUE [options]",
  summary: "Shows a queue's schedules.",
  options: { limit: limitOption(DEFAULT_LIMIT), ...clientOptions },
  examples: ["baton schedule list reports"],
  async run(values, [queue, ...rest], io) {
    if (queue === undefined || rest.length > 0) throw new UsageError("write one queue: baton schedule list QUEUE");
    const { limit = DEFAULT_LIMIT, json } = values;
    return await withClient(values, io, async (client) => {
      await printList(client.schedules.listAll(queue, { pageSize: pageSizeFor(limit) }), io, {
        limit,
        json,
        none: `${queue} has no schedules`,
        show: scheduleTable,
      });
      return 0;
    });
  },
});

const deleteSchedule = command({
  name: "schedule delete",
  usage: "QUEUE ID [options]",
  summary: "Removes a schedule; jobs that it has put stay.",
  options: clientOptions,
  notes: "A schedule that is not there is no error: the command says so and exits with 0.",
  examples: ["baton schedule delete reports daily"],
  async run(values, args, io) {
    const [queue, id] = queueAndId(args, "delete");
    return await withClient(values, io, async (client) => {
      const deleted = await client.schedules.delete(queue, id);
      print(io, values.json ? JSON.stringify({ deleted }) : deleted ? "deleted" : "there was no such schedule");
      return 0;
    });
  },
});

const trigger = command({
  name: "schedule trigger",
  usage: "QUEUE ID [options]",
  summary: "Puts a schedule's job now, beside its ticks, and prints the job's id.",
  options: clientOptions,
  examples: ["baton await reports $(baton schedule trigger reports daily)"],
  async run(values, args, io) {
    const [queue, id] = queueAndId(args, "trigger");
    return await withClient(values, io, async (client) => {
      const jobId = await client.schedules.trigger(queue, id);
      print(io, values.json ? JSON.stringify({ jobId }) : jobId);
      return 0;
    });
  },
});

const pause = command({
  name: "schedule pause",
  usage: "QUEUE ID [options]",
  summary: "Puts no jobs until it is resumed; ticks that pass meanwhile are not made up for.",
  options: clientOptions,
  examples: ["baton schedule pause reports daily"],
  async run(values, args, io) {
    const [queue, id] = queueAndId(args, "pause");
    return await withClient(values, io, async (client) => {
      const changed = await client.schedules.pause(queue, id);
      print(io, values.json ? JSON.stringify({ changed }) : changed ? "paused" : "it was paused already");
      return 0;
    });
  },
});

const resume = command({
  name: "schedule resume",
  usage: "QUEUE ID [options]",
  summary: "Ends the pause of a schedule: the next tick follows from now.",
  options: clientOptions,
  examples: ["baton schedule resume reports daily"],
  async run(values, args, io) {
    const [queue, id] = queueAndId(args, "resume");
    return await withClient(values, io, async (client) => {
      const changed = await client.schedules.resume(queue, id);
      print(io, values.json ? JSON.stringify({ changed }) : changed ? "resumed" : "it was not paused");
      return 0;
    });
  },
});

export const schedule = group({
  name: "schedule",
  summary: "Puts jobs at recurring times.",
  commands: [schedulePut, get, list, deleteSchedule, trigger, pause, resume],
});
