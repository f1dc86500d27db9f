/** A worker's stream in the hands of a test, which looks at what has arrived and releases when it likes. */
import { type BatonClient, BatonClientError, type ReservedJob, type SubscribeEvent } from "../../src/client/index.ts";
import type { SubscribeInput } from "../../src/client/input.ts";
import { until } from "../support/wait.ts";

export type WorkerStream = {
  readonly events: readonly SubscribeEvent[];
  readonly jobs: () => readonly ReservedJob[];
  /** Undefined when the broker ended it, else what it broke with. */
  readonly ended: Promise<BatonClientError | undefined>;
  /** Until such an event has come. */
  saw(type: SubscribeEvent["type"]): Promise<void>;
  /** Until this job has come. */
  got(id: string): Promise<ReservedJob>;
  close(): void;
};

/** Resolves when the stream has started. */
export async function openStream(client: BatonClient, input: SubscribeInput): Promise<WorkerStream> {
  const events: SubscribeEvent[] = [];
  const abort = new AbortController();
  const read = async () => {
    for await (const event of client.subscribe(input, { signal: abort.signal })) events.push(event);
  };
  const ended = read().then(
    () => undefined,
    (error: unknown) => (error instanceof BatonClientError ? error : undefined),
  );
  const jobs = () => events.flatMap((event) => (event.type === "jobs" ? event.jobs : []));
  const saw = async (type: SubscribeEvent["type"]) => {
    await until(() => events.some((event) => event.type === type), { what: `a stream to say "${type}"` });
  };
  await saw("started");
  return {
    events,
    jobs,
    ended,
    saw,
    got: (id) =>
      until(() => jobs().find((job) => job.id === id), { what: `a stream to get job ${id}`, withinMs: 15_000 }),
    close: () => abort.abort(),
  };
}
