/**
 * Whole life cycles: PutMany, Subscribe, ReleaseMany, all at once. A job counts when its release as completed has been
 * answered; a round ends when all of its jobs have.
 *
 * The producer keeps a few PutMany calls under way, and pauses while too many of its jobs are unfinished, so that Redis
 * holds a short queue and not the round. The worker releases in batches: a full one at once, a smaller one only when no
 * other release is under way, so nothing waits for a batch to fill.
 */
import { create } from "@bufbuild/protobuf";
import { JobState } from "../gen/baton/v1/job_pb.js";
import {
  JobService,
  PutManyRequestSchema,
  ReleaseManyRequestSchema,
  type ReleaseManyResponse,
  type ReleaseRequest,
  ReleaseRequestSchema,
  SubscribeRequestSchema,
  type SubscribeResponse,
} from "../gen/baton/v1/job_service_pb.js";
import { meterCpu } from "./support/cpu.ts";
import { newJob, PAYLOAD_BYTES } from "./support/jobs.ts";
import { LeanClient } from "./support/lean-client.ts";
import { redisCommands } from "./support/redis-commands.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const BATCH = 100;
const PUT_CALLS = 4;
const MAX_UNFINISHED = 10_000;
const MAX_OUTSTANDING = 2_000;
const QUEUE = "bench-life-cycle";
const GOAL_PER_SECOND = 25_000;

export const lifeCycle: Workload = {
  title: `Whole life cycles: PutMany(${BATCH}), Subscribe, ReleaseMany, ${PAYLOAD_BYTES}-byte payloads`,
  run,
};

async function run({ broker, redis, short }: Stage): Promise<Figure[]> {
  const client = new LeanClient(broker.address);
  const commands = redisCommands(redis.socketPath);
  const pids = { client: process.pid, broker: broker.pid, Redis: redis.pid };
  const jobs = short ? 40_000 : 120_000;
  const worker = new Worker(client);
  try {
    await finish(client, worker, jobs);
    const rounds = [];
    for (let round = 0; round < (short ? 5 : 9); round++) {
      await commands.clear();
      const meter = meterCpu(pids);
      const startMs = performance.now();
      await finish(client, worker, jobs);
      const elapsedMs = performance.now() - startMs;
      rounds.push({ perSecond: (jobs / elapsedMs) * 1_000, cpu: meter.perItem(jobs) });
    }
    return [
      {
        name: "life cycles",
        unit: "jobs/s",
        rounds: rounds.map(({ perSecond }) => perSecond),
        goal: { atLeast: GOAL_PER_SECOND },
      },
      { name: "CPU of the broker", unit: "µs/job", rounds: rounds.map(({ cpu }) => cpu.broker) },
      { name: "CPU of the client", unit: "µs/job", rounds: rounds.map(({ cpu }) => cpu.client) },
      { name: "CPU of Redis", unit: "µs/job", rounds: rounds.map(({ cpu }) => cpu.Redis) },
    ];
  } finally {
    worker.stop();
    commands.close();
    client.close();
  }
}

/** Puts so many jobs, and resolves when the worker has finished them. */
async function finish(client: LeanClient, worker: Worker, jobs: number): Promise<void> {
  const putMany = client.unary(JobService.method.putMany);
  const target = worker.finished + jobs;
  let left = jobs;
  async function produce(): Promise<void> {
    while (left > 0) {
      left -= BATCH;
      const batch = Array.from({ length: BATCH }, () => newJob(QUEUE));
      const { results } = await putMany(create(PutManyRequestSchema, { jobs: batch }));
      for (const { result } of results) {
        if (result.case !== "job") throw new Error(`a job was not put: ${result.value?.message}`);
      }
      const unfinished = target - left - worker.finished;
      if (unfinished > MAX_UNFINISHED) await worker.hasFinished(target - left - MAX_UNFINISHED);
    }
  }
  await Promise.all([...Array.from({ length: PUT_CALLS }, produce), worker.hasFinished(target)]);
}

class Worker {
  finished = 0;
  readonly #releaseMany: (request: ReturnType<typeof releaseOf>) => Promise<ReleaseManyResponse>;
  readonly #stream: { cancel(): void };
  /** Jobs at hand, bounded by the stream's credit. */
  #done: ReleaseRequest[] = [];
  #callsUnderWay = 0;
  #waiting: { count: number; resolve: () => void; reject: (error: unknown) => void }[] = [];
  #stopped = false;

  constructor(client: LeanClient) {
    this.#releaseMany = client.unary(JobService.method.releaseMany);
    const request = create(SubscribeRequestSchema, { queues: [{ name: QUEUE }], maxOutstanding: MAX_OUTSTANDING });
    const stream = client.stream(JobService.method.subscribe, request);
    stream.on("data", (response) => this.#onResponse(response));
    stream.on("error", (error) => this.#fail(error));
    this.#stream = stream;
  }

  /** Resolves when it has finished so many jobs in all. */
  hasFinished(count: number): Promise<void> {
    if (this.finished >= count) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiting.push({ count, resolve, reject }));
  }

  stop(): void {
    this.#stopped = true;
    this.#stream.cancel();
  }

  #onResponse({ event }: SubscribeResponse): void {
    if (event.case === "revoked") this.#fail(new Error("leases were revoked"));
    if (event.case !== "jobs") return;
    for (const { leaseToken, attempt } of event.value.jobs) {
      if (attempt !== 1) this.#fail(new Error("a job was handed out twice"));
      this.#done.push(create(ReleaseRequestSchema, { leaseToken, outcome: { case: "completed", value: {} } }));
    }
    this.#release();
  }

  #release(): void {
    while (this.#done.length >= BATCH) this.#send(this.#done.splice(0, BATCH));
    if (this.#done.length > 0 && this.#callsUnderWay === 0) this.#send(this.#done.splice(0));
  }

  #send(releases: ReleaseRequest[]): void {
    this.#callsUnderWay++;
    this.#releaseMany(releaseOf(releases)).then(
      (response) => this.#onReleased(response),
      (error) => this.#fail(error),
    );
  }

  #onReleased({ results }: ReleaseManyResponse): void {
    this.#callsUnderWay--;
    for (const { result } of results) {
      if (result.case === "released" && result.value.state === JobState.COMPLETED) this.finished++;
      else this.#fail(new Error("a release did not complete its job"));
    }
    this.#release();
    const ready = this.#waiting.filter(({ count }) => count <= this.finished);
    if (ready.length === 0) return;
    this.#waiting = this.#waiting.filter(({ count }) => count > this.finished);
    for (const { resolve } of ready) resolve();
  }

  #fail(error: unknown): void {
    if (this.#stopped) return;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

function releaseOf(releases: ReleaseRequest[]) {
  return create(ReleaseManyRequestSchema, { releases });
}
