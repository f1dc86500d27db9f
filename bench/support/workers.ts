/**
 * Three workers that do nothing with their jobs but release them as completed, as fast as they can: on Subscribe with
 * Release, on Subscribe with ReleaseMany, and on Work. A job counts as finished when its release has been answered.
 */
import { create } from "@bufbuild/protobuf";
import { JobState, type ReservedJob } from "../../gen/baton/v1/job_pb.js";
import {
  JobService,
  ReleaseManyRequestSchema,
  type ReleaseRequest,
  ReleaseRequestSchema,
  type ReleaseResult,
  SubscribeRequestSchema,
  WorkRequestSchema,
  type WorkResponse,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Finished } from "./finished.ts";
import type { LeanClient } from "./lean-client.ts";
import { BATCH } from "./produce.ts";

/** What ends it. */
export type Stop = () => void;

export type StartWorker = (client: LeanClient, queue: string, finished: Finished) => Stop;

const MAX_OUTSTANDING = 2_000;

/** Each job in a call of its own, so many at a time. */
export function releaseOneByOne(calls: number): StartWorker {
  return (client, queue, finished) => {
    const release = client.unary(JobService.method.release);
    /** Bounded by the stream's credit. */
    const done: ReleaseRequest[] = [];
    let callsUnderWay = 0;
    async function call(): Promise<void> {
      callsUnderWay++;
      for (let request = done.pop(); request; request = done.pop()) {
        const { state } = await release(request);
        if (state !== JobState.COMPLETED) throw new Error("a release did not complete its job");
        finished.add(1);
      }
      callsUnderWay--;
    }
    return subscribe(client, queue, finished, (jobs) => {
      done.push(...jobs.map(completed));
      for (let more = Math.min(done.length, calls - callsUnderWay); more > 0; more--) {
        call().catch((error) => finished.fail(error));
      }
    });
  };
}

/** A full batch is released at once, a smaller one only when no other call is under way, so nothing waits for its fill. */
export function releaseMany(client: LeanClient, queue: string, finished: Finished): Stop {
  const call = client.unary(JobService.method.releaseMany);
  const done: ReleaseRequest[] = [];
  let callsUnderWay = 0;

  function release(): void {
    while (done.length >= BATCH) send(done.splice(0, BATCH));
    if (done.length > 0 && callsUnderWay === 0) send(done.splice(0));
  }

  function send(releases: ReleaseRequest[]): void {
    callsUnderWay++;
    call(create(ReleaseManyRequestSchema, { releases }))
      .then(({ results }) => {
        callsUnderWay--;
        for (const result of results) checkCompleted(result);
        release();
        finished.add(results.length);
      })
      .catch((error) => finished.fail(error));
  }

  return subscribe(client, queue, finished, (jobs) => {
    done.push(...jobs.map(completed));
    release();
  });
}

/** What came in one message is released in one. */
export function releaseOnWork(client: LeanClient, queue: string, finished: Finished): Stop {
  const stream = client.bidi(JobService.method.work);
  let sequence = 0;
  const stop = whileOpen(stream, finished);
  stream.on("data", ({ jobs, released, revoked }: WorkResponse) => {
    if (revoked.length > 0) finished.fail(new Error("leases were revoked"));
    if (jobs.length > 0) {
      checkFirst(jobs, finished);
      const releases = jobs.map((job) => completed(job, ++sequence));
      stream.write(create(WorkRequestSchema, { releases }));
    }
    for (const { sequences, result } of released) {
      try {
        checkCompleted(result);
        finished.add(sequences.length);
      } catch (error) {
        finished.fail(error);
      }
    }
  });
  const start = create(SubscribeRequestSchema, { queues: [{ name: queue }], maxOutstanding: MAX_OUTSTANDING });
  stream.write(create(WorkRequestSchema, { start }));
  return stop;
}

function subscribe(
  client: LeanClient,
  queue: string,
  finished: Finished,
  onJobs: (jobs: readonly ReservedJob[]) => void,
): Stop {
  const request = create(SubscribeRequestSchema, { queues: [{ name: queue }], maxOutstanding: MAX_OUTSTANDING });
  const stream = client.stream(JobService.method.subscribe, request);
  stream.on("data", ({ event }) => {
    if (event.case === "revoked") finished.fail(new Error("leases were revoked"));
    if (event.case !== "jobs") return;
    checkFirst(event.value.jobs, finished);
    onJobs(event.value.jobs);
  });
  return whileOpen(stream, finished);
}

/** A stream that ends by itself is a failure. */
function whileOpen(stream: NodeJS.EventEmitter & { cancel(): void }, finished: Finished): Stop {
  let stopped = false;
  const onEnd = (error: unknown) => {
    if (!stopped) finished.fail(error);
  };
  stream.on("error", onEnd);
  stream.on("end", () => onEnd(new Error("the broker has ended the stream")));
  return () => {
    stopped = true;
    stream.cancel();
  };
}

function completed({ leaseToken }: ReservedJob, sequence: number): ReleaseRequest {
  return create(ReleaseRequestSchema, { leaseToken, sequence, outcome: { case: "completed", value: {} } });
}

function checkFirst(jobs: readonly ReservedJob[], finished: Finished): void {
  if (jobs.some(({ attempt }) => attempt !== 1)) finished.fail(new Error("a job was handed out twice"));
}

function checkCompleted(answer: ReleaseResult | undefined): void {
  const result = answer?.result;
  const isCompleted = result?.case === "released" && result.value.state === JobState.COMPLETED;
  if (!isCompleted) throw new Error("a release did not complete its job");
}
