/** What a client does on command, made of a driver's parts: the same code for every system. */
import { randomBytes, randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { Done, Driver, Job, Load, Operation } from "../systems/system.ts";
import { Finished } from "./finished.ts";

type Only<Op extends Operation["op"]> = Extract<Operation, { op: Op }>;

export async function perform(driver: Driver, operation: Operation): Promise<Done> {
  switch (operation.op) {
    case "put":
      return put(driver, operation);
    case "putMany":
      return putMany(driver, operation);
    case "lifeCycle":
      return lifeCycle(driver, operation);
    case "drain":
      return drain(driver, operation);
    case "latency":
      return latency(driver, operation);
    case "clear":
      return clear(driver, operation);
  }
}

/** Each of the callers has one call under way at any time. */
async function put(driver: Driver, { queue, concurrency, durationMs, payloadBytes }: Only<"put">): Promise<Done> {
  const newJob = jobsOf(payloadBytes);
  const startMs = performance.now();
  const endMs = startMs + durationMs;
  let jobs = 0;
  async function caller(): Promise<void> {
    while (performance.now() < endMs) {
      await driver.put(queue, newJob());
      jobs++;
    }
  }
  await Promise.all(Array.from({ length: concurrency }, caller));
  return done(jobs, performance.now() - startMs);
}

async function putMany(driver: Driver, { queues, dueAtMs, willFail, ...load }: Only<"putMany">): Promise<Done> {
  const startMs = performance.now();
  await putAll(load, (n, jobs) => driver.putMany(nth(queues, n), jobs, dueAtMs, willFail));
  return done(load.jobs, performance.now() - startMs);
}

async function lifeCycle(driver: Driver, operation: Only<"lifeCycle">): Promise<Done> {
  const { queues, streams, unfinished, ...load } = operation;
  const finished = new Finished();
  const stop = await startWork(driver, { queues, streams, finished });
  try {
    const startMs = performance.now();
    let put = 0;
    const producers = putAll(load, async (n, jobs) => {
      await driver.putMany(nth(queues, n), jobs);
      put += jobs.length;
      // Else the system would hold the whole round, and not the short queue that a worker who keeps up sees.
      if (put - finished.count > unfinished) await finished.reached(put - unfinished);
    });
    await Promise.all([producers, finished.reached(load.jobs)]);
    return done(load.jobs, performance.now() - startMs);
  } finally {
    await stop();
  }
}

async function drain(driver: Driver, { jobs, fromMs, ...workers }: Only<"drain">): Promise<Done> {
  const startMs = fromMs ?? wallClockMs();
  const finished = new Finished();
  const stop = await startWork(driver, { ...workers, finished });
  try {
    await finished.reached(jobs);
    return done(jobs, wallClockMs() - startMs);
  } finally {
    await stop();
  }
}

/** Puts do not wait for answers: what is due when the timer comes, which is no finer than 1 ms, is put at once. */
async function latency(driver: Driver, { queue, perSecond, jobs, payloadBytes }: Only<"latency">): Promise<Done> {
  const newJob = jobsOf(payloadBytes);
  const finished = new Finished();
  /** id → when its job was put. */
  const underWay = new Map<string, number>();
  const latenciesMs: number[] = [];
  const onDelivered = (id: string) => {
    const putMs = underWay.get(id);
    if (putMs === undefined) return finished.fail(new Error("a job came that had not been put, or came twice"));
    underWay.delete(id);
    latenciesMs.push(performance.now() - putMs);
  };
  const stop = await startWork(driver, { queues: [queue], streams: 1, finished, onDelivered });
  try {
    const startMs = performance.now();
    const intervalMs = 1_000 / perSecond;
    for (let put = 0; put < jobs; ) {
      const due = Math.min(jobs, Math.floor((performance.now() - startMs) / intervalMs) + 1);
      for (; put < due; put++) {
        const job = newJob();
        underWay.set(job.id, performance.now());
        driver.put(queue, job).catch((error) => finished.fail(error));
      }
      await delay(Math.max(0, startMs + put * intervalMs - performance.now()));
    }
    await finished.reached(jobs);
    return { ...done(jobs, performance.now() - startMs), latenciesMs };
  } finally {
    await stop();
  }
}

async function clear(driver: Driver, { queues }: Only<"clear">): Promise<Done> {
  if (!driver.clear) throw new Error("this driver cannot clear queues");
  const startMs = performance.now();
  await driver.clear(queues);
  return done(0, performance.now() - startMs);
}

type Workers = {
  readonly queues: readonly string[];
  readonly streams: number;
  readonly finished: Finished;
  readonly onDelivered?: (id: string) => void;
  readonly retryAtMs?: number;
};

function startWork(
  driver: Driver,
  { queues, streams, finished, onDelivered, retryAtMs }: Workers,
): Promise<() => Promise<void>> {
  return driver.work({
    queues,
    streams,
    onDelivered,
    retryAtMs,
    onFinished: (jobs) => finished.add(jobs),
    onError: (error) => finished.fail(error),
  });
}

/** So many batches at a time; `putBatch` is told which one, from 0. */
async function putAll(
  { jobs, batch, calls, payloadBytes }: Load,
  putBatch: (n: number, jobs: readonly Job[]) => Promise<void>,
): Promise<void> {
  const newJob = jobsOf(payloadBytes);
  let left = jobs;
  let batches = 0;
  async function caller(): Promise<void> {
    while (left > 0) {
      const size = Math.min(batch, left);
      left -= size;
      await putBatch(batches++, Array.from({ length: size }, newJob));
    }
  }
  await Promise.all(Array.from({ length: calls }, caller));
}

/** Ids as safe producers choose them. The bytes are the same for all, because making them is no work of a job system. */
function jobsOf(payloadBytes: number): () => Job {
  const payload = randomBytes(payloadBytes);
  return () => ({ id: randomUUID(), payload });
}

function nth(queues: readonly string[], n: number): string {
  const queue = queues[n % queues.length];
  if (queue === undefined) throw new Error("an operation names no queue");
  return queue;
}

function done(jobs: number, elapsedMs: number): Done {
  return { done: true, jobs, elapsedMs };
}

/** Since 1970, as another process has it too, but finer than Date.now(). */
function wallClockMs(): number {
  return performance.timeOrigin + performance.now();
}
