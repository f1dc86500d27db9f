/** Producers, workers and callers of all kinds at several brokers, and what each of them saw. */
import { BatonClient, BatonClientError, Worker } from "../../src/client/index.ts";
import { until } from "../support/wait.ts";

export type LoadOptions = {
  readonly addresses: readonly string[];
  readonly queue: string;
  readonly workers: number;
  readonly leaseMs?: number;
};

const CONCURRENCY = 4;
/** What a job's work takes. */
const WORK_MS = 15;
const PUTS_IN_A_ROUND = 5;

export class Load {
  /** Of calls, releases and handlers; each should be none. */
  readonly errors: string[] = [];
  /** Of streams, that were replaced. */
  readonly streamErrors: string[] = [];
  /** Job → the attempts that were run, in their order. */
  readonly runs = new Map<string, number[]>();
  put = 0;
  slowestMs = 0;
  readonly client: BatonClient;
  readonly workers: readonly Worker[];
  readonly #clients: BatonClient[] = [];
  readonly #options: LoadOptions;
  #loops: Promise<void>[] = [];
  #stopping = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.client = this.#open();
    this.workers = Array.from({ length: options.workers }, (_, n) => this.#worker(n));
  }

  /** Resolves when all workers have their streams. */
  async start(): Promise<void> {
    await Promise.all(this.workers.map((worker) => worker.start()));
    this.#loops = [this.#produce(), this.#produce(), this.#reserve()];
  }

  get completed(): number {
    return this.runs.size;
  }

  /** Until so many more jobs have run than now. */
  async goesOn(jobs: number): Promise<void> {
    const before = this.completed;
    const goesOn = () => {
      if (this.completed >= before + jobs) return true;
      throw new Error(`${this.completed - before} have been run; ${this.put} are put; ${this.errors.join()}`);
    };
    await until(goesOn, { what: `${jobs} more jobs to be run`, withinMs: 30_000 });
  }

  /** Ends the producers, and resolves when every job has been run. */
  async settle(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#loops);
    const { queue } = this.#options;
    const left = async () => {
      const { ready, reserved, retrying, scheduled } = (await this.client.queues.get(queue)).counts;
      return ready + reserved + retrying + scheduled;
    };
    await until(async () => (await left()) === 0, { what: "every job to be run", withinMs: 30_000 });
  }

  /** A job for each worker alone: resolves when all have been run. */
  async reachesEachWorker(): Promise<void> {
    const jobs = this.workers.map(async (_, n) => {
      const { jobId } = await this.client.put({ queue: this.#ownQueue(n) });
      const { state } = await this.client.await(this.#ownQueue(n), jobId, { timeoutMs: 15_000 });
      if (state !== "COMPLETED") this.errors.push(`the job for worker ${n} is ${state}`);
    });
    await Promise.all(jobs);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.workers.map((worker) => worker.stop({ timeoutMs: 1_000 })));
    for (const client of this.#clients) client.close();
    await Promise.all(this.#loops);
  }

  #open(): BatonClient {
    const client = new BatonClient({ address: this.#options.addresses });
    this.#clients.push(client);
    return client;
  }

  #ownQueue(worker: number): string {
    return `${this.#options.queue}-worker-${worker}`;
  }

  #worker(n: number): Worker {
    return new Worker(this.#open(), {
      queues: [this.#ownQueue(n), this.#options.queue],
      workerId: `worker-${n}`,
      concurrency: CONCURRENCY,
      leaseMs: this.#options.leaseMs,
      handler: async ({ queue, id, attempt }) => {
        if (queue === this.#options.queue) this.runs.set(id, [...(this.runs.get(id) ?? []), attempt]);
        await new Promise((resolve) => setTimeout(resolve, WORK_MS));
        return `done ${id}`;
      },
      onError: (error, { during }) => {
        (during === "stream" ? this.streamErrors : this.errors).push(`${during}: ${describe(error)}`);
      },
    });
  }

  async #produce(): Promise<void> {
    const { queue } = this.#options;
    const client = this.#open();
    while (!this.#stopping) {
      const one = await this.#call("put", () => client.put({ queue }));
      const many = await this.#call("putMany", () =>
        client.putMany(Array.from({ length: PUTS_IN_A_ROUND - 1 }, () => ({ queue }))),
      );
      this.put += PUTS_IN_A_ROUND;
      for (const result of many ?? []) if (!result.ok) this.errors.push(`putMany: ${describe(result.error)}`);
      if (one === undefined) continue;
      await this.#call("get", () => client.get(queue, one.jobId));
      await this.#call("list", () => client.list(queue, "READY", { pageSize: 10 }));
      await this.#call("getQueue", () => client.queues.get(queue));
      const job = await this.#call("await", () => client.await(queue, one.jobId, { timeoutMs: 20_000 }));
      if (job !== undefined && job.result?.text() !== `done ${one.jobId}`)
        this.errors.push(`${one.jobId} is ${job.state}`);
    }
  }

  /** A worker without a stream. */
  async #reserve(): Promise<void> {
    const queue = `${this.#options.queue}-reserved`;
    const client = this.#open();
    while (!this.#stopping) {
      await this.#call("put", () => client.put({ queue }));
      const jobs = (await this.#call("reserve", () => client.reserve({ queues: [queue], waitMs: 2_000 }))) ?? [];
      for (const { leaseToken } of jobs) {
        await this.#call("extend", () => client.extend([leaseToken]));
        await this.#call("release", () => client.release(leaseToken, { outcome: "completed" }));
      }
    }
  }

  async #call<T>(what: string, call: () => Promise<T>): Promise<T | undefined> {
    const begun = performance.now();
    try {
      return await call();
    } catch (error) {
      this.errors.push(`${what}: ${describe(error)}`);
      return undefined;
    } finally {
      this.slowestMs = Math.max(this.slowestMs, performance.now() - begun);
    }
  }
}

function describe(error: unknown): string {
  return error instanceof BatonClientError ? `${error.code} ${error.reason}: ${error.message}` : String(error);
}
