/** `baton pause` and `baton resume`: whether jobs of a queue are handed out. */
import { command, print } from "./command.ts";
import { UsageError } from "./options.ts";
import { clientOptions, withClient } from "./with-client.ts";

export const pause = command({
  name: "pause",
  usage: "QUEUE [options]",
  summary: "Hands out no more jobs of a queue; what is running goes on, and puts are taken.",
  options: clientOptions,
  examples: ["baton pause mail"],
  async run(values, [queue, ...rest], io) {
    if (queue === undefined || rest.length > 0) throw new UsageError("write one queue: baton pause QUEUE");
    return await withClient(values, io, async (client) => {
      const changed = await client.queues.pause(queue);
      print(io, values.json ? JSON.stringify({ changed }) : changed ? "paused" : "it was paused already");
      return 0;
    });
  },
});

export const resume = command({
  name: "resume",
  usage: "QUEUE [options]",
  summary: "Ends the pause of a queue.",
  options: clientOptions,
  examples: ["baton resume mail"],
  async run(values, [queue, ...rest], io) {
    if (queue === undefined || rest.length > 0) throw new UsageError("write one queue: baton resume QUEUE");
    return await withClient(values, io, async (client) => {
      const changed = await client.queues.resume(queue);
      print(io, values.json ? JSON.stringify({ changed }) : changed ? "resumed" : "it was not paused");
      return 0;
    });
  },
});
