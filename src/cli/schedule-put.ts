/** `baton schedule put`: makes a schedule, or changes it. */
import { choice, duration, text } from "../setting-values.ts";
import { command, print } from "./command.ts";
import { jobOptions, toTemplate, upperCase } from "./job-options.ts";
import { flag, UsageError, value } from "./options.ts";
import { payload } from "./payload-argument.ts";
import { time } from "./show.ts";
import { clientOptions, withClient } from "./with-client.ts";

const YEAR_MS = 365 * 86_400_000;

const USAGE = "baton schedule put QUEUE ID [TEXT | -] (--cron CRON | --every DURATION)";

export const schedulePut = command({
  name: "schedule put",
  usage: "QUEUE ID [TEXT | -] (--cron CRON | --every DURATION) [options]",
  summary: "Makes a schedule, or changes it; TEXT, or with - what is read from stdin, is its jobs' payload.",
  options: {
    cron: value(text(/./s, "a cron expression in quotes, such as '0 8 * * mon-fri'", "CRON"), "When, as below."),
    every: value(duration(1_000, YEAR_MS), "An interval from each job to the next, 1s to 365d."),
    timeZone: value(text(/./, "a time zone such as Europe/Berlin", "ZONE"), "Such as Europe/Berlin. [default UTC]"),
    catchUp: value(
      choice("none", "one", "all"),
      "Which of the times that no broker was there for run late. [default one]",
    ),
    overlap: value(choice("allow", "skip"), "skip: none is put while the last job is unfinished. [default allow]"),
    paused: flag("Puts no jobs until it is resumed."),
    ...jobOptions,
    ...clientOptions,
  },
  notes: `CRON has five fields: minute, hour, day of the month, month, day of the week; or six, with the second first. Each takes *,
numbers, names (jan, mon), lists (1,15), ranges (mon-fri) and steps (*/5); 7 is Sunday too, L the last day of the month,
fri#2 the second Friday.

To put what is there already delays nothing; what changes its times lets the next tick follow from now. Without --paused,
a pause ends.`,
  examples: [
    "baton schedule put reports daily 'all customers' --cron '0 8 * * mon-fri' --time-zone Europe/Berlin",
    "baton schedule put sync customers --every 5m --overlap skip",
  ],
  async run(values, args, io) {
    const [queue, id, content = "", ...rest] = args;
    if (queue === undefined || id === undefined) throw new UsageError(`write a queue and an id: ${USAGE}`);
    if (rest.length > 0) throw new UsageError(`${rest[0]}: one payload only; put a TEXT, and a CRON, in quotes`);
    const { cron, every: everyMs } = values;
    if ((cron === undefined) === (everyMs === undefined)) {
      throw new UsageError("write when, one of the two: --cron CRON or --every DURATION");
    }
    const timing = cron === undefined ? { everyMs: everyMs ?? 0 } : { cron };
    const job = { ...toTemplate(values), payload: await payload(content, io) };
    return await withClient(values, io, async (client) => {
      const { timeZone, paused } = values;
      const result = await client.schedules.put({
        ...timing,
        queue,
        id,
        timeZone,
        catchUp: upperCase(values.catchUp),
        overlap: upperCase(values.overlap),
        paused,
        job,
      });
      const { created, schedule } = result;
      const next = schedule.nextRunAt === undefined ? "paused" : `runs next at ${time(schedule.nextRunAt)}`;
      print(io, values.json ? JSON.stringify(result) : `${created ? "created" : "changed"}, ${next}`);
      return 0;
    });
  },
});
