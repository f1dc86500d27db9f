/** `quiet` under load: what its answer promises, also when it is said again and again. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../support/wait.ts";
import { WorkStream } from "../support/work-stream.ts";
import { type Fixture, startFixture } from "./fixture.ts";
import { QueueClient } from "./queue-client.ts";

let fixture: Fixture;

beforeAll(async () => {
  fixture = await startFixture();
});

afterAll(() => fixture?.stop());

/** Completes every job the moment that it comes. */
class BusyWorker {
  readonly stream: WorkStream;
  /** How often each job came, and its highest attempt. */
  readonly ran = new Map<string, number>();
  #taken = 0;
  #attempts = 1;

  constructor(stream: WorkStream) {
    this.stream = stream;
    stream.call.on("data", () => this.work());
  }

  work(): void {
    const jobs = this.stream.responses.slice(this.#taken).flatMap((response) => response.jobs);
    this.#taken = this.stream.responses.length;
    for (const { id, attempt } of jobs) {
      this.ran.set(id, (this.ran.get(id) ?? 0) + 1);
      this.#attempts = Math.max(this.#attempts, attempt);
    }
    if (jobs.length > 0) this.stream.complete(...jobs);
  }

  get highestAttempt(): number {
    return this.#attempts;
  }

  /** Says so, and waits for the answer; how many answers have come by then. */
  async quiet(isQuiet: boolean): Promise<number> {
    const from = this.stream.responses.length;
    this.stream.send({ quiet: isQuiet });
    return await until(
      () => {
        const at = this.stream.responses.findIndex(({ quiet }, i) => i >= from && quiet === isQuiet);
        return at + 1;
      },
      { what: `quiet ${isQuiet} to be answered` },
    );
  }
}

describe("a worker that says quiet and takes it back, two hundred times, under load", () => {
  const JOBS = 4_000;
  const TOGGLES = 200;

  it("gets nothing after an answer; all jobs run once, in their first attempt", { timeout: 60_000 }, async () => {
    const start = { queues: [{ name: "busy" }], maxOutstanding: 50 };
    const [one, other] = (await Promise.all(
      [1, 2].map(async () => new BusyWorker(await WorkStream.open(fixture.broker.address, start))),
    )) as [BusyWorker, BusyWorker];
    let put = 0;
    const produce = async () => {
      for (; put < JOBS; put += 100) {
        const jobs = Array.from({ length: 100 }, (_, i) => ({ queue: "busy", id: `${put + i}` }));
        await fixture.client.good("putMany", { jobs });
      }
    };
    const toggle = async (worker: BusyWorker) => {
      for (let i = 0; i < TOGGLES; i++) {
        const answered = await worker.quiet(true);
        // Whatever comes until the worker takes it back comes after that answer.
        const silent = worker.stream.responses.length;
        const after = await worker.quiet(false);
        const between = worker.stream.responses.slice(answered, Math.max(silent, after - 1));
        expect(between.flatMap(({ jobs }) => jobs)).toEqual([]);
      }
    };
    await Promise.all([produce(), toggle(one), toggle(other)]);
    const all = () => one.ran.size + other.ran.size;
    await until(() => all() >= JOBS, { what: "all jobs to have run", withinMs: 20_000 });
    expect([...one.ran, ...other.ran].every(([, times]) => times === 1)).toBe(true);
    expect(new Set([...one.ran.keys(), ...other.ran.keys()]).size).toBe(JOBS);
    expect([one.highestAttempt, other.highestAttempt]).toEqual([1, 1]);
    for (const { stream } of [one, other]) stream.close();
  });
});

describe("a quiet worker", () => {
  it("is still listed by ListWorkers, with the jobs that it has", async () => {
    await fixture.client.good("put", { queue: "listed", id: "job" });
    const start = { queues: [{ name: "listed" }], workerId: "the quiet one", maxOutstanding: 5 };
    const stream = await WorkStream.open(fixture.broker.address, start);
    await stream.got(1);
    stream.send({ quiet: true });
    await stream.saw(({ quiet }) => quiet, "quiet");
    const queues = new QueueClient(fixture.client);
    const listed = await until(
      async () => {
        const { workers } = await queues.good("listWorkers", { queue: "listed" });
        return workers.some(({ quiet }) => quiet) && workers;
      },
      { what: "it to be listed as quiet", withinMs: 2_000 },
    );
    expect(listed).toMatchObject([{ workerId: "the quiet one", jobsInHand: 1, quiet: true }]);
    stream.close();
  });
});
