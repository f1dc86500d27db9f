/** One worker's stream, Work or Subscribe, as far as the benchmark needs it: it is told of jobs, and releases them. */
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { ReservedJob } from "../../gen/baton/v1/job_pb.js";
import {
  JobService,
  ReleaseRequestSchema,
  SubscribeRequestSchema,
  type SubscribeResponse,
  WorkRequestSchema,
  type WorkResponse,
} from "../../gen/baton/v1/job_service_pb.js";
import type { LeanClient } from "./lean-client.ts";

export type StreamKind = "Work" | "Subscribe";

export type OpenWorker = {
  /** Resolves when the broker says so. Rejects when the stream ends before it is closed, also later. */
  readonly started: Promise<void>;
  /** Resolves when the broker has answered. Rejects when it refuses; a stream that ends first is a failure of its own. */
  complete(job: ReservedJob): Promise<void>;
  close(): void;
};

export type OpenWorkerOptions = {
  readonly kind: StreamKind;
  readonly queue: string;
  readonly maxOutstanding: number;
  /** Not set: what the broker sets. */
  readonly leaseMs?: number;
  readonly graceMs?: number;
  readonly onJobs: (jobs: readonly ReservedJob[], worker: OpenWorker) => void;
  /** The stream has ended by itself. */
  readonly onFailure: (error: unknown) => void;
};

export function openWorker(client: LeanClient, options: OpenWorkerOptions): OpenWorker {
  const start = create(SubscribeRequestSchema, {
    queues: [{ name: options.queue }],
    maxOutstanding: options.maxOutstanding,
    ...(options.leaseMs !== undefined && { leaseDuration: durationFromMs(options.leaseMs) }),
    ...(options.graceMs !== undefined && { disconnectGrace: durationFromMs(options.graceMs) }),
  });
  return options.kind === "Work" ? onWork(client, start, options) : onSubscribe(client, start, options);
}

type Start = ReturnType<typeof create<typeof SubscribeRequestSchema>>;

function onWork(client: LeanClient, start: Start, options: OpenWorkerOptions): OpenWorker {
  const stream = client.bidi(JobService.method.work);
  const underWay = new Map<number, PromiseWithResolvers<void>>();
  let sequence = 0;
  const { started, onStarted, close } = watch(stream, options);
  const worker: OpenWorker = {
    started,
    close,
    complete({ leaseToken }) {
      const outcome = { case: "completed", value: {} } as const;
      stream.write(create(WorkRequestSchema, { releases: [{ leaseToken, sequence: ++sequence, outcome }] }));
      const answered = Promise.withResolvers<void>();
      underWay.set(sequence, answered);
      return answered.promise;
    },
  };
  stream.on("data", (response: WorkResponse) => {
    if (response.started) onStarted();
    if (response.jobs.length > 0) options.onJobs(response.jobs, worker);
    for (const { sequences, result } of response.released) {
      for (const one of sequences) {
        if (result?.result.case === "released") underWay.get(one)?.resolve();
        else underWay.get(one)?.reject(new Error("a release did not complete its job"));
        underWay.delete(one);
      }
    }
  });
  stream.write(create(WorkRequestSchema, { start }));
  return worker;
}

function onSubscribe(client: LeanClient, start: Start, options: OpenWorkerOptions): OpenWorker {
  const stream = client.stream(JobService.method.subscribe, start);
  const release = client.unary(JobService.method.release);
  const { started, onStarted, close } = watch(stream, options);
  const worker: OpenWorker = {
    started,
    close,
    async complete({ leaseToken }) {
      const outcome = { case: "completed", value: {} } as const;
      await release(create(ReleaseRequestSchema, { leaseToken, outcome }));
    },
  };
  stream.on("data", ({ event }: SubscribeResponse) => {
    if (event.case === "started") onStarted();
    if (event.case === "jobs") options.onJobs(event.value.jobs, worker);
  });
  return worker;
}

function watch(stream: NodeJS.EventEmitter & { cancel(): void }, { onFailure }: OpenWorkerOptions) {
  const { promise: started, resolve: onStarted, reject } = Promise.withResolvers<void>();
  // Who does not wait for it hears of it by onFailure.
  started.catch(() => {});
  let closed = false;
  const onEnd = (error: unknown) => {
    reject(error);
    if (!closed) onFailure(error);
  };
  stream.on("error", onEnd);
  stream.on("end", () => onEnd(new Error("the broker has ended the stream")));
  const close = () => {
    closed = true;
    stream.cancel();
  };
  return { started, onStarted, close };
}
