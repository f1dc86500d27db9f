/**
 * Puts, reserves and releases by calling Baton's scripts, through the broker's own store, on one pipelined connection.
 * What a broker adds is left out: gRPC, streams, renewals, doorbells. The workers know of jobs because they are in the
 * process that puts them.
 */
import { create } from "@bufbuild/protobuf";
import { PayloadSchema } from "../../gen/baton/v1/job_pb.js";
import type { NewJob } from "../../src/model/job.ts";
import { encodeSpec } from "../../src/rpc/reserved-job.ts";
import { readSettings } from "../../src/settings.ts";
import { connectCommands, disconnect, waitUntilReady } from "../../src/store/connection.ts";
import { Store } from "../../src/store/store.ts";
import { Bell } from "./bell.ts";
import type { Driver, Job, WorkOptions } from "./system.ts";

const BATCH = 100;
/** Of one queue. While Redis works on one reserve, the next is on its way. */
const LOOPS = 4;
/** As long as a stream's. */
const LEASE_MS = 30_000;
const CONNECT_WITHIN_MS = 5_000;

export async function connect(socketPath: string): Promise<Driver> {
  const settings = readSettings([], {});
  const log = { info: () => {}, warn: console.error, error: console.error };
  const redis = connectCommands({ address: { socketPath }, timeoutMs: settings.redisTimeoutMs, log });
  await waitUntilReady([redis], CONNECT_WITHIN_MS, new AbortController().signal);
  // As the broker is started here: what is finished is gone.
  const store = new Store({ redis, ...settings, defaultRetentionMs: 0 });
  const bells = new Map<string, Bell>();

  function bellOf(queue: string): Bell {
    const bell = bells.get(queue) ?? new Bell();
    bells.set(queue, bell);
    return bell;
  }

  async function put(queue: string, jobs: readonly Job[], dueAtMs?: number): Promise<void> {
    const outcomes = await store.put(
      queue,
      jobs.map((job) => newJob(job, dueAtMs)),
    );
    if (outcomes.some(({ kind }) => kind !== "created")) throw new Error("a job was not created");
    bellOf(queue).ring();
  }

  return {
    put: (queue, job) => put(queue, [job]),
    putMany: put,
    async work(options) {
      const loops = options.queues.flatMap((queue) =>
        Array.from({ length: LOOPS }, (_, n) => startLoop(store, queue, `bench-${n}`, bellOf(queue), options)),
      );
      return async () => {
        await Promise.all(loops.map((stop) => stop()));
      };
    },
    close: () => disconnect(redis),
  };
}

function newJob({ id, payload: bytes }: Job, runAtMs: number | undefined): NewJob {
  const payload = create(PayloadSchema);
  payload.content = { case: "data", value: bytes };
  const spec = encodeSpec({ payload, headers: {}, priority: 0 });
  return { id, spec, priority: 0, conflict: "reject", runAtMs };
}

/** Reserves, and releases what the reserve before has brought, both in one trip to Redis. Returns what stops it. */
function startLoop(
  store: Store,
  queue: string,
  caller: string,
  bell: Bell,
  { onDelivered, onFinished, onError }: WorkOptions,
): () => Promise<void> {
  let isStopped = false;
  let call = Date.now();
  const claims = [{ count: BATCH, leaseMs: LEASE_MS, workerId: caller }];

  async function release(jobs: Awaited<ReturnType<typeof store.reserve>>["jobs"][number]): Promise<void> {
    if (jobs.length === 0) return;
    const outcome = { kind: "completed" } as const;
    const released = await store.release(
      queue,
      jobs.map((lease) => ({ lease, outcome })),
    );
    if (released.some((one) => one?.state !== "COMPLETED")) throw new Error("a release did not complete its job");
    onFinished(jobs.length);
  }

  async function run(): Promise<void> {
    let inHand: Parameters<typeof release>[0] = [];
    while (!isStopped) {
      const heard = bell.rings;
      const [{ jobs, nextDueMs }] = await Promise.all([store.reserve(queue, caller, ++call, claims), release(inHand)]);
      inHand = jobs[0] ?? [];
      for (const { id, attempt } of inHand) {
        if (attempt !== 1) throw new Error("a job was handed out twice");
        onDelivered?.(id);
      }
      if (inHand.length === 0) await bell.next(heard, nextDueMs);
    }
    await release(inHand);
  }

  const running = run().catch(onError);
  return () => {
    isStopped = true;
    bell.ring();
    return running;
  };
}
