/** `baton put`: puts one job, from an argument or from stdin. */
import { choice, instant, text } from "../setting-values.ts";
import { command, print } from "./command.ts";
import { anyDuration, jobOptions, toTemplate, upperCase } from "./job-options.ts";
import { UsageError, value } from "./options.ts";
import { payloadOrStdin } from "./payload-argument.ts";
import { clientOptions, withClient } from "./with-client.ts";

export const put = command({
  name: "put",
  usage: "QUEUE [TEXT | -] [options]",
  summary: "Puts a job and prints its id. Without TEXT, or with -, the payload is read from stdin.",
  options: {
    id: value(text(/./s, "an id", "ID"), "The job's id within its queue. [default: a new UUIDv7]"),
    delay: value(anyDuration, "The job may run so long from now."),
    runAt: value(instant, "The job may run at this time, such as 2027-01-31T08:00:00Z."),
    ...jobOptions,
    onConflict: value(
      choice("reject", "keep", "replace"),
      "What to do when the id or the unique key is taken. [default reject]",
    ),
    ...clientOptions,
  },
  examples: [
    "baton put mail 'Hello, Ada' --id welcome-1 --delay 10m",
    "baton put reports --concurrency-key acme --concurrency-limit 2 <report.json --content-type application/json",
    "baton put sync --unique-key customer-7 --on-conflict keep ''",
  ],
  async run(values, args, io) {
    const [queue, content, ...rest] = args;
    if (queue === undefined) throw new UsageError("write a queue: baton put QUEUE [TEXT | -]");
    if (rest.length > 0) throw new UsageError(`${rest[0]}: one payload only; put a TEXT with spaces in quotes`);
    if (values.delay !== undefined && values.runAt !== undefined) {
      throw new UsageError("write --delay or --run-at, not both");
    }
    const template = toTemplate(values);
    const payload = await payloadOrStdin(content, io);
    return await withClient(values, io, async (client) => {
      const result = await client.put({
        ...template,
        queue,
        id: values.id,
        payload,
        delayMs: values.delay,
        runAt: values.runAt,
        onConflict: upperCase(values.onConflict),
      });
      print(io, values.json ? JSON.stringify(result) : result.jobId);
      return 0;
    });
  },
});
