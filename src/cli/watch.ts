/** `baton watch`: what happens to jobs, as it happens, one line each. */
import type { JobEvent, WatchEvent } from "../client/index.ts";
import { text } from "../setting-values.ts";
import { command, type Io, note, print } from "./command.ts";
import { failureText } from "./failure.ts";
import { Interrupted, untilInterrupted } from "./interrupted.ts";
import { list, UsageError } from "./options.ts";
import { oneLine, shortTime, showProgress } from "./show.ts";
import { clientOptions, withClient } from "./with-client.ts";

export const watch = command({
  name: "watch",
  usage: "QUEUE... [options]",
  summary: "Shows what happens to the jobs of some queues, or to some jobs, until it is interrupted.",
  options: {
    id: list(text(/./s, "an id", "ID"), "Only the events of this job, of one queue; can be repeated."),
    resumeAfter: list(
      text(/./, "a cursor", "CURSOR"),
      "Go on after this event, which --json printed; one for each queue, can be repeated.",
    ),
    ...clientOptions,
  },
  notes: `It reconnects by itself and misses nothing, as far as the queue's history reaches: where it does not, it says so. With
--json each line is a JobEvent, or {"gap": {"queue", "cursor"}} where events are missing. Ctrl-C ends it with 0.`,
  examples: ["baton watch mail reports", "baton watch mail --id welcome-1", "baton watch mail --json | jq .transition"],
  async run(values, queues, io) {
    if (queues.length === 0) throw new UsageError("write at least one queue: baton watch QUEUE...");
    if (values.id.length > 0 && queues.length > 1) throw new UsageError("--id: write one queue only");
    return await withClient(values, io, async (client) => {
      try {
        await untilInterrupted(async (signal) => {
          const input = { queues, ids: values.id, resumeAfter: values.resumeAfter };
          const onBreak = (error: unknown) => {
            if (!values.json) note(io, `baton: the stream broke, and is opened again: ${failureText(error)}`);
          };
          for await (const event of client.watch(input, { signal, onBreak })) {
            (values.json ? printJson : printLine)(event, io);
          }
        });
      } catch (error) {
        if (!(error instanceof Interrupted)) throw error;
      }
      return 0;
    });
  },
});

function printJson(event: WatchEvent, io: Io): void {
  if (event.type === "event") print(io, JSON.stringify(event));
  else if (event.type === "gap") print(io, JSON.stringify({ gap: { queue: event.queue, cursor: event.cursor } }));
}

function printLine(event: WatchEvent, io: Io): void {
  switch (event.type) {
    case "started":
      note(io, "watching; Ctrl-C ends it");
      return;
    case "event":
      print(io, line(event));
      return;
    case "gap":
      note(
        io,
        `baton: events of ${event.queue} are missing here: its history does not reach back to where this stream was`,
      );
      return;
    case "keepalive":
      return;
  }
}

function line(event: JobEvent): string {
  const { occurredAt, queue, id, transition, state, runAt, workerId, attempt, progress } = event;
  const now = state === "UNSPECIFIED" ? "gone" : state;
  const until = runAt === undefined ? "" : ` until ${shortTime(runAt)}`;
  const by = workerId !== "" && state === "RESERVED" ? ` by ${oneLine(workerId)}, attempt ${attempt}` : "";
  const done = progress === undefined ? "" : `: ${oneLine(showProgress(progress))}`;
  return `${occurredAt.toISOString()}  ${queue}  ${oneLine(id)}  ${transition.padEnd(8)}  ${now}${until}${by}${done}`;
}
