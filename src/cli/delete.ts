/** `baton delete`: removes one job. */
import { command, print } from "./command.ts";
import { UsageError } from "./options.ts";
import { clientOptions, withClient } from "./with-client.ts";

// `delete` alone is a keyword.
export const deleteCommand = command({
  name: "delete",
  usage: "QUEUE ID [options]",
  summary: "Removes a job, in any state; a worker that runs it is told at once.",
  options: clientOptions,
  notes: "A job that is not there is no error: the command says so and exits with 0.",
  examples: ["baton delete mail reminder-7"],
  async run(values, args, io) {
    const [queue, id, ...rest] = args;
    if (queue === undefined || id === undefined || rest.length > 0) {
      throw new UsageError("write one queue and one id: baton delete QUEUE ID");
    }
    return await withClient(values, io, async (client) => {
      const result = await client.delete(queue, id);
      if (values.json) print(io, JSON.stringify(result));
      else print(io, result.deleted ? `deleted, was ${result.previousState}` : "there was no such job");
      return 0;
    });
  },
});
