/** Workers as the tests of the broker need them: a stream whose events pile up where the test can see them. */
import type { BatonClient } from "../../src/client/client.ts";
import type { SubscribeInput } from "../../src/client/input.ts";
import type { ReservedJob, SubscribeEvent } from "../../src/client/output.ts";
import { until } from "../support/wait.ts";

export type OpenStream = {
  readonly events: SubscribeEvent[];
  /** All jobs that came, in order. */
  readonly jobs: ReservedJob[];
  /** Settles when the stream has ended, from whichever side. */
  readonly ended: Promise<void>;
  /** As a worker that goes away without a word. */
  cut(): Promise<void>;
};

/** Resolves when the stream has started. */
export async function openStream(
  client: BatonClient,
  input: SubscribeInput,
  onJob: (job: ReservedJob) => void = () => {},
): Promise<OpenStream> {
  const controller = new AbortController();
  const events: SubscribeEvent[] = [];
  const jobs: ReservedJob[] = [];
  const read = async () => {
    for await (const event of client.subscribe(input, { signal: controller.signal })) {
      events.push(event);
      if (event.type !== "jobs") continue;
      jobs.push(...event.jobs);
      for (const job of event.jobs) onJob(job);
    }
  };
  let failure: unknown;
  const ended = read().catch((error: unknown) => {
    if (!controller.signal.aborted) failure = error;
  });
  await until(
    () => {
      if (failure) throw failure;
      return events.length > 0;
    },
    { what: "the stream to start" },
  );
  return {
    events,
    jobs,
    ended,
    async cut() {
      controller.abort();
      await ended;
    },
  };
}
