/**
 * Thousands of idle streams on a hundred connections: what they cost in memory and in connections to Redis, and how long
 * jobs take to reach them that come at a steady rate and are spread over all. Each job is completed at once.
 *
 * What the broker does at intervals for each stream is in it: keepalives, each 20 s and spread over them, and the list of
 * workers, written anew every 5 s.
 */
import { setTimeout as delay } from "node:timers/promises";
import { JobService } from "../gen/baton/v1/job_service_pb.js";
import { meterCpu } from "./support/cpu.ts";
import { type Fleet, openFleet } from "./support/fleet.ts";
import { LeanClient } from "./support/lean-client.ts";
import type { StreamKind } from "./support/open-worker.ts";
import { type RedisCommands, redisCommands } from "./support/redis-commands.ts";
import { residentBytes } from "./support/resident.ts";
import { percentile } from "./support/statistics.ts";
import { newTimedJob } from "./support/timed-jobs.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const PER_SECOND = 500;
/** Puts come together every so often, because a timer is no finer than 1 ms. */
const INTERVAL_MS = 10;
const MAX_OUTSTANDING = 10;
const STREAMS_ON_CONNECTION = 100;
const MANY_QUEUES = 100;
const ARRIVE_WITHIN_MS = 10_000;
const GOAL_BYTES = 30 * 1_024;
const GOAL_P99_MS = 20;

/** A broker of its own for each kind: what one fleet has used of its memory stays with it, for the next. */
export const workStreams = workload("Work");
export const subscribeStreams = workload("Subscribe");

function workload(kind: StreamKind): Workload {
  return {
    title: `Open ${kind} streams, 100 on a connection, ${PER_SECOND} jobs/s spread over them`,
    run: (stage) => run(kind, stage),
  };
}

type Size = { readonly streams: number; readonly rounds: number; readonly roundMs: number };

async function run(kind: StreamKind, { broker, redis, short }: Stage): Promise<Figure[]> {
  const size: Size = short
    ? { streams: 2_000, rounds: 2, roundMs: 2_000 }
    : { streams: 10_000, rounds: 3, roundMs: 10_000 };
  const client = new LeanClient(broker.address);
  const commands = redisCommands(redis.socketPath);
  const pids = { broker: broker.pid, Redis: redis.pid };
  const put = client.unary(JobService.method.put);

  /** Latencies of the jobs of one round, and what it cost. */
  async function round(fleet: Fleet, queues: readonly string[]) {
    const jobs = (PER_SECOND * size.roundMs) / 1_000;
    const puts: Promise<unknown>[] = [];
    const meter = meterCpu(pids);
    const startMs = performance.now();
    for (let n = 0; n < jobs; ) {
      for (let due = (PER_SECOND * INTERVAL_MS) / 1_000; due > 0; due--, n++) {
        puts.push(put(newTimedJob(queues[n % queues.length] as string)));
      }
      await delay(Math.max(0, startMs + (n / PER_SECOND) * 1_000 - performance.now()));
    }
    // CPU time is given as what it would be for one second, so that it reads as a share.
    const seconds = (performance.now() - startMs) / 1_000;
    const cpu = meter.perItem(seconds);
    await Promise.all(puts);
    const latencies: number[] = [];
    const lateAt = performance.now() + ARRIVE_WITHIN_MS;
    while (latencies.length < jobs) {
      latencies.push(...(await fleet.latenciesMs()));
      if (performance.now() > lateAt) throw new Error(`${jobs - latencies.length} of ${jobs} jobs have not arrived`);
    }
    if (latencies.length > jobs) throw new Error("a job was handed out twice");
    return { latencies, cpu };
  }

  function open(streams: number, queues: readonly string[]): Promise<Fleet> {
    const connections = size.streams / STREAMS_ON_CONNECTION;
    return openFleet({ address: broker.address, kind, connections, streams, queues, maxOutstanding: MAX_OUTSTANDING });
  }

  async function deliver(fleet: Fleet, queues: readonly string[]): Promise<Figure[]> {
    await round(fleet, queues);
    const rounds: Awaited<ReturnType<typeof round>>[] = [];
    for (let n = 0; n < size.rounds; n++) rounds.push(await round(fleet, queues));
    const name = queues.length === 1 ? "one queue" : `${queues.length} queues`;
    const share = (pid: keyof typeof pids) => rounds.map(({ cpu }) => cpu[pid] / 10_000);
    const latency = (at: number) => rounds.map(({ latencies }) => percentile(latencies, at));
    return [
      { name: `${name}: p50`, unit: "ms", rounds: latency(0.5) },
      { name: `${name}: p99`, unit: "ms", rounds: latency(0.99), goal: { atMost: GOAL_P99_MS } },
      { name: `${name}: CPU of the broker`, unit: "% of a core", rounds: share("broker") },
      { name: `${name}: CPU of Redis`, unit: "% of a core", rounds: share("Redis") },
    ];
  }

  try {
    const one = ["bench-streams"];
    const many = Array.from({ length: MANY_QUEUES }, (_, n) => `bench-streams-${n}`);
    // Code that the first streams bring in is not theirs.
    await (await open(size.streams / STREAMS_ON_CONNECTION, one)).close();
    const before = await rest(broker.pid, commands);
    const atOne = await open(size.streams, one);
    const figures: Figure[] = [];
    try {
      const after = await rest(broker.pid, commands);
      const bytes = (after.bytes - before.bytes) / size.streams;
      const connections = after.connections - before.connections;
      figures.push(
        { name: "memory of the broker", unit: "bytes/stream", rounds: [bytes], goal: { atMost: GOAL_BYTES } },
        { name: "more of Redis", unit: "connections", rounds: [connections], goal: { atMost: 0 } },
      );
      figures.push(...(await deliver(atOne, one)));
    } finally {
      await atOne.close();
    }
    const atMany = await open(size.streams, many);
    try {
      figures.push(...(await deliver(atMany, many)));
    } finally {
      await atMany.close();
    }
    return figures;
  } finally {
    commands.close();
    client.close();
  }
}

async function rest(pid: number, commands: RedisCommands): Promise<{ bytes: number; connections: number }> {
  return { bytes: await residentBytes(pid), connections: await commands.connections() };
}
