/** `baton cancel`: ends one job, and keeps it as failed. */
import { text } from "../setting-values.ts";
import { command, print } from "./command.ts";
import { UsageError, value } from "./options.ts";
import { clientOptions, withClient } from "./with-client.ts";

export const cancel = command({
  name: "cancel",
  usage: "QUEUE ID [options]",
  summary: "Ends a job that has not finished, and keeps it as FAILED; a worker that runs it is told at once.",
  options: {
    message: value(text(/^/, "a text", "TEXT"), "Why, for people. [default cancelled]"),
    ...clientOptions,
  },
  notes: "A job that has finished, or is not there, is no error: the command says so and exits with 0.",
  examples: ["baton cancel reports r-17 --message 'the customer has left'"],
  async run(values, args, io) {
    const [queue, id, ...rest] = args;
    if (queue === undefined || id === undefined || rest.length > 0) {
      throw new UsageError("write one queue and one id: baton cancel QUEUE ID");
    }
    return await withClient(values, io, async (client) => {
      const result = await client.cancel(queue, id, { message: values.message });
      const { cancelled, previousState } = result;
      if (values.json) print(io, JSON.stringify(result));
      else if (cancelled) print(io, `cancelled, was ${previousState}`);
      else print(io, previousState === "UNSPECIFIED" ? "there was no such job" : `it was ${previousState} already`);
      return 0;
    });
  },
});
