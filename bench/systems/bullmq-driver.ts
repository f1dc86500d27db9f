/**
 * BullMQ as its documentation has it for throughput: addBulk for many jobs, and workers with a concurrency of 100 that
 * remove what is completed. bench/README.md has the pages and the other settings that were tried.
 *
 * It carries JSON: the payload is a string of as many characters as the others have bytes, and so no longer than theirs.
 */
import { type JobsOptions, Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import { shareQueues } from "./share-queues.ts";
import type { Driver, Job, WorkOptions } from "./system.ts";

const CONCURRENCY = 100;
const JOB_NAME = "bench";
/** How a job is put that will be failed once; when it is tried again is the worker's to say. */
const RETRIED: JobsOptions = { attempts: 2, backoff: { type: "custom" } };
/** Redis has 511 places for connections that have not been accepted yet. */
const CONNECTING = 100;

export async function connect(socketPath: string): Promise<Driver> {
  const connection = connectRedis(socketPath);
  const queues = new Map<string, Queue>();
  const text = new PayloadText();

  function queueOf(name: string): Queue {
    const queue = queues.get(name) ?? new Queue(name, { connection });
    queues.set(name, queue);
    return queue;
  }

  return {
    async put(queue, { id, payload }) {
      await queueOf(queue).add(JOB_NAME, text.of(payload), { jobId: id });
    },
    async putMany(queue, jobs, dueAtMs, willFail) {
      const entries = jobs.map((job) => ({
        name: JOB_NAME,
        data: text.of(job.payload),
        opts: jobOptions(job, dueAtMs, willFail),
      }));
      await queueOf(queue).addBulk(entries);
    },
    work: (options) => work(socketPath, options),
    async close() {
      await Promise.all([...queues.values()].map((queue) => queue.close()));
      connection.disconnect();
    },
  };
}

function jobOptions({ id }: Job, dueAtMs: number | undefined, willFail = false): JobsOptions {
  if (willFail) return { jobId: id, ...RETRIED };
  return dueAtMs === undefined ? { jobId: id } : { jobId: id, delay: Math.max(0, dueAtMs - Date.now()) };
}

/** A worker has one queue: where there are fewer workers than queues, there is one for each queue after all. */
async function work(
  socketPath: string,
  { queues, streams, onDelivered, retryAtMs, onFinished, onError }: WorkOptions,
): Promise<() => Promise<void>> {
  // Each worker makes a second one of its own from it, on which it waits.
  const connection = connectRedis(socketPath);
  const workers: Worker[] = [];
  const startWorker = (queue: string) => {
    const run = async ({ id }: { id?: string | undefined }) => {
      onDelivered?.(id ?? "");
      if (retryAtMs !== undefined) throw new Error("failed, to be tried again");
    };
    const worker = new Worker(queue, run, {
      connection,
      concurrency: CONCURRENCY,
      removeOnComplete: { count: 0 },
      settings: { backoffStrategy: () => Math.max(1, (retryAtMs ?? 0) - Date.now()) },
    });
    worker.on("completed", () => onFinished(1));
    worker.on("failed", (_, error) => (retryAtMs === undefined ? onError(error) : onFinished(1)));
    worker.on("error", onError);
    workers.push(worker);
    return worker.waitUntilReady();
  };
  const stop = async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    connection.disconnect();
  };
  try {
    const shares = shareQueues(queues, streams).flat();
    while (shares.length > 0) await Promise.all(shares.splice(0, CONNECTING).map(startWorker));
  } catch (error) {
    await stop();
    throw error;
  }
  return stop;
}

function connectRedis(path: string): Redis {
  // BullMQ demands it of connections on which a worker waits.
  return new Redis({ path, maxRetriesPerRequest: null });
}

/** Made once for the many jobs that have the same payload: what it takes is not BullMQ's. */
class PayloadText {
  #payload: Buffer | undefined;
  #text = "";

  of(payload: Buffer): string {
    if (payload !== this.#payload) {
      this.#payload = payload;
      this.#text = payload.toString("base64").slice(0, payload.length);
    }
    return this.#text;
  }
}
