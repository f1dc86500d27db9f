/**
 * Baton as its user drives it who wants throughput: grpc-js and the generated code, PutMany for many jobs, and Work
 * streams on which what came in one message is released in one.
 */
import { create } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { JobState, PayloadSchema } from "../../gen/baton/v1/job_pb.js";
import {
  JobService,
  PutManyRequestSchema,
  type PutRequest,
  PutRequestSchema,
  type ReleaseRequest,
  ReleaseRequestSchema,
  SubscribeRequestSchema,
  type WorkReleased,
  WorkRequestSchema,
  type WorkResponse,
} from "../../gen/baton/v1/job_service_pb.js";
import { LeanClient } from "../support/lean-client.ts";
import { shareQueues } from "./share-queues.ts";
import type { Driver, Job, WorkOptions } from "./system.ts";

/** Of all streams together: what a batch of 100 takes to come and be released passes several times within this. */
const MAX_OUTSTANDING = 2_000;
/** Of one stream: a batch must fit. */
const LEAST_OUTSTANDING = 100;
/** No stream may have more. */
const QUEUES_ON_STREAM = 64;
/** Workers in great numbers are not all in one process. */
const STREAMS_ON_CONNECTION = 100;
/** What a job fails with, where it has to. */
const FAILURE = "failed, to be tried again";

export async function connect(address: string): Promise<Driver> {
  const client = new LeanClient(address);
  const put = client.unary(JobService.method.put);
  const putMany = client.unary(JobService.method.putMany);
  return {
    async put(queue, job) {
      const { created } = await put(putRequest(queue, job, undefined));
      if (!created) throw new Error("a job was not created");
    },
    async putMany(queue, jobs, dueAtMs) {
      const request = create(PutManyRequestSchema);
      for (const job of jobs) request.jobs.push(putRequest(queue, job, dueAtMs));
      for (const { result } of (await putMany(request)).results) {
        if (result.case !== "job") throw new Error(`a job was not put: ${result.value?.message}`);
      }
    },
    work: (options) => work(address, options),
    async close() {
      client.close();
    },
  };
}

/** Fields are set one by one: given to create() together they take twice as long. */
function putRequest(queue: string, { id, payload }: Job, dueAtMs: number | undefined): PutRequest {
  const request = create(PutRequestSchema);
  request.queue = queue;
  request.id = id;
  request.payload = create(PayloadSchema);
  request.payload.content = { case: "data", value: payload };
  if (dueAtMs !== undefined) request.start = { case: "runAt", value: timestampFromMs(dueAtMs) };
  return request;
}

async function work(address: string, options: WorkOptions): Promise<() => Promise<void>> {
  const leastStreams = Math.ceil(options.queues.length / QUEUES_ON_STREAM);
  const streams = shareQueues(options.queues, Math.max(options.streams, leastStreams));
  const maxOutstanding = Math.max(LEAST_OUTSTANDING, Math.floor(MAX_OUTSTANDING / streams.length));
  const clients: LeanClient[] = [];
  const workers = streams.map((queues, n) => {
    if (n % STREAMS_ON_CONNECTION === 0) clients.push(new LeanClient(address));
    return openStream(clients.at(-1) as LeanClient, queues, maxOutstanding, options);
  });
  const stop = async () => {
    await Promise.all(workers.map((worker) => worker.close()));
    for (const client of clients) client.close();
  };
  try {
    await Promise.all(workers.map(({ started }) => started));
  } catch (error) {
    await stop();
    throw error;
  }
  return stop;
}

type Stream = { readonly started: Promise<void>; close(): Promise<void> };

function openStream(
  client: LeanClient,
  queues: readonly string[],
  maxOutstanding: number,
  { onDelivered, retryAtMs, onFinished, onError }: WorkOptions,
): Stream {
  const stream = client.bidi(JobService.method.work);
  const { promise: started, resolve: onStarted, reject: onNotStarted } = Promise.withResolvers<void>();
  const { promise: ended, resolve: onEnded } = Promise.withResolvers<void>();
  const wanted = retryAtMs === undefined ? JobState.COMPLETED : JobState.RETRYING;
  let sequence = 0;
  let isClosed = false;

  function fail(error: unknown): void {
    onNotStarted(error);
    if (!isClosed) onError(error);
    onEnded();
  }
  stream.on("error", fail);
  stream.on("end", () => fail(new Error("the broker has ended the stream")));
  stream.on("data", ({ started, jobs, released, revoked }: WorkResponse) => {
    if (started) onStarted();
    if (revoked.length > 0) onError(new Error("leases were revoked"));
    if (jobs.length > 0) {
      const request = create(WorkRequestSchema);
      const outcome = retryAtMs === undefined ? COMPLETED : failed(retryAtMs);
      for (const { id, leaseToken } of jobs) {
        onDelivered?.(id);
        const release = create(ReleaseRequestSchema);
        release.leaseToken = leaseToken;
        release.sequence = ++sequence;
        release.outcome = outcome;
        request.releases.push(release);
      }
      stream.write(request);
    }
    for (const answer of released) {
      if (stateOf(answer) === wanted) onFinished(answer.sequences.length);
      else onError(new Error("a release did not do what it was to"));
    }
  });
  const start = create(SubscribeRequestSchema, { queues: queues.map((name) => ({ name })), maxOutstanding });
  stream.write(create(WorkRequestSchema, { start }));
  // All failures go to whom they concern by onError.
  started.catch(() => {});
  return {
    started,
    close() {
      isClosed = true;
      stream.cancel();
      return ended;
    },
  };
}

const COMPLETED = create(ReleaseRequestSchema, { outcome: { case: "completed", value: {} } }).outcome;

function failed(retryAtMs: number): ReleaseRequest["outcome"] {
  const retryAfter = durationFromMs(Math.max(0, retryAtMs - Date.now()));
  return create(ReleaseRequestSchema, { outcome: { case: "failed", value: { message: FAILURE, retryAfter } } }).outcome;
}

function stateOf({ result }: WorkReleased): JobState | undefined {
  return result?.result.case === "released" ? result.result.value.state : undefined;
}
