/**
 * What Baton is compared with: a bare grpc-js server that decodes the same requests, and encodes the same answers
 * without having done anything. Jobs that are put go straight to the Work streams on their queue, as far as their credit
 * goes, and else wait in memory; where no stream is open on the queue, they are dropped. They are encoded as the broker
 * does it.
 */
import { create, fromBinary } from "@bufbuild/protobuf";
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import {
  JobService,
  type PutManyRequest,
  type PutManyResponse,
  PutManyResponseSchema,
  type PutRequest,
  type PutResponse,
  PutResponseSchema,
  PutResultSchema,
  ReleaseResultSchema,
  SubscriptionStartedSchema,
  WorkReleasedSchema,
  type WorkRequest,
  type WorkResponse,
  WorkResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { LeasedJob } from "../../src/model/job.ts";
import { encodeSpec, reservedJobs } from "../../src/rpc/reserved-job.ts";
import { encode, pathOf } from "../support/lean-client.ts";

const { put, putMany, work } = JobService.method;
const LEASE_MS = 30_000;
const COMPLETED = create(ReleaseResultSchema, {
  result: { case: "released", value: { state: JobState.COMPLETED } },
});

/** What it answers is encoded already. */
type Call = ServerDuplexStream<WorkRequest, Buffer>;
type Worker = { readonly call: Call; readonly queues: readonly Queue[]; credit: number };

/** `waiting` is bounded by what producers leave unfinished. */
type Queue = { readonly waiting: LeasedJob[]; workers: Worker[] };

const queues = new Map<string, Queue>();
let fence = 0;

function queueOf(name: string): Queue {
  const queue = queues.get(name) ?? { waiting: [], workers: [] };
  queues.set(name, queue);
  return queue;
}

function keep({ queue, id, payload, headers, priority }: PutRequest): Queue {
  const kept = queueOf(queue);
  const nowMs = Date.now();
  if (kept.workers.length > 0) {
    kept.waiting.push({
      queue,
      id,
      spec: encodeSpec({ payload, headers, priority }),
      fence: ++fence,
      attempt: 1,
      failures: 0,
      putAtMs: nowMs,
      leaseExpiresAtMs: nowMs + LEASE_MS,
    });
  }
  return kept;
}

/** What waits goes to the queue's workers in turn, to each what its credit allows, in one message. */
function passOn(queue: Queue): void {
  for (let tries = queue.workers.length; tries > 0 && queue.waiting.length > 0; tries--) {
    const worker = queue.workers.shift() as Worker;
    queue.workers.push(worker);
    answer(worker, queue, create(WorkResponseSchema));
  }
}

/** With as many of the jobs that wait as there is credit for. */
function answer(worker: Worker, queue: Queue, response: WorkResponse): void {
  const jobs = queue.waiting.splice(0, worker.credit);
  worker.credit -= jobs.length;
  if (jobs.length === 0 && !response.started && response.released.length === 0) return;
  worker.call.write(Buffer.concat([reservedJobs("baton", jobs), encode(work.output, response)]));
}

function putAnswer({ id }: PutRequest): PutResponse {
  return create(PutResponseSchema, { jobId: id, created: true, state: JobState.READY });
}

function onPut({ request }: ServerUnaryCall<PutRequest, PutResponse>, reply: sendUnaryData<PutResponse>): void {
  passOn(keep(request));
  reply(null, putAnswer(request));
}

function onPutMany(
  { request: { jobs } }: ServerUnaryCall<PutManyRequest, PutManyResponse>,
  reply: sendUnaryData<PutManyResponse>,
): void {
  for (const queue of new Set(jobs.map(keep))) passOn(queue);
  const results = jobs.map((job) => create(PutResultSchema, { result: { case: "job", value: putAnswer(job) } }));
  reply(null, create(PutManyResponseSchema, { results }));
}

function onWork(call: Call): void {
  let worker: Worker | undefined;
  call.on("data", ({ start, releases }: WorkRequest) => {
    const response = create(WorkResponseSchema);
    if (start) {
      worker = { call, queues: start.queues.map(({ name }) => queueOf(name)), credit: start.maxOutstanding };
      for (const queue of worker.queues) queue.workers.push(worker);
      response.started = create(SubscriptionStartedSchema);
    }
    if (!worker) return;
    if (releases.length > 0) {
      worker.credit += releases.length;
      const sequences = releases.map(({ sequence }) => sequence);
      response.released.push(create(WorkReleasedSchema, { sequences, result: COMPLETED }));
    }
    const [queue] = worker.queues;
    if (queue) answer(worker, queue, response);
    for (const other of worker.queues.slice(1)) passOn(other);
  });
  const leave = () => {
    for (const queue of worker?.queues ?? []) {
      queue.workers = queue.workers.filter((other) => other !== worker);
      if (queue.workers.length === 0) queue.waiting.length = 0;
    }
    worker = undefined;
  };
  call.on("cancelled", leave);
  call.on("error", leave);
  call.on("end", () => {
    leave();
    call.end();
  });
}

const server = new Server({ "grpc.enable_channelz": 0 });
server.register(
  pathOf(put),
  onPut,
  (response: PutResponse) => encode(put.output, response),
  (bytes: Buffer) => fromBinary(put.input, bytes),
  "unary",
);
server.register(
  pathOf(putMany),
  onPutMany,
  (response: PutManyResponse) => encode(putMany.output, response),
  (bytes: Buffer) => fromBinary(putMany.input, bytes),
  "unary",
);
server.register(
  pathOf(work),
  onWork,
  (response: Buffer) => response,
  (bytes: Buffer) => fromBinary(work.input, bytes),
  "bidi",
);
server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`echo ready: grpc 127.0.0.1:${port}`);
});
process.once("SIGTERM", () => server.forceShutdown());
