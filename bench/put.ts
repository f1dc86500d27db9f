/**
 * Unary Put against a bare grpc-js echo of the same messages: what the broker and Redis add to a call.
 *
 * Both servers run in processes of their own, and the same client calls them in turn (echo, Put, echo, Put, …), so that
 * whatever else the machine does meets both. The ratio is taken within each pair.
 */
import { JobService } from "../gen/baton/v1/job_service_pb.js";
import { meterCpu } from "./support/cpu.ts";
import { newJob } from "./support/jobs.ts";
import { LeanClient } from "./support/lean-client.ts";
import { startServerProcess } from "./support/node-process.ts";
import { redisCommands } from "./support/redis-commands.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const CONCURRENCY = 64;
const GOAL = 0.7;

export const put: Workload = {
  title: `Put, ${CONCURRENCY} calls at a time, against a bare grpc-js echo of the same messages`,
  run,
};

async function run({ broker, redis, short }: Stage): Promise<Figure[]> {
  const echo = await startServerProcess({ script: "bench/support/echo-server.ts", args: [] });
  const toEcho = new LeanClient(echo.address);
  const toBroker = new LeanClient(broker.address);
  const commands = redisCommands(redis.socketPath);
  const pids = { client: process.pid, broker: broker.pid, Redis: redis.pid, echo: echo.pid };
  const roundMs = short ? 1_500 : 4_000;
  try {
    await callFor(toEcho, roundMs);
    await callFor(toBroker, roundMs);
    const rounds = [];
    for (let round = 0; round < (short ? 5 : 9); round++) {
      await commands.clear();
      const echoMeter = meterCpu(pids);
      const echoed = await callFor(toEcho, roundMs);
      const echoCpu = echoMeter.perItem(echoed.calls);
      const putMeter = meterCpu(pids);
      const done = await callFor(toBroker, roundMs);
      rounds.push({
        echoRate: echoed.perSecond,
        putRate: done.perSecond,
        echoCpu,
        putCpu: putMeter.perItem(done.calls),
      });
    }
    return [
      { name: "echo", unit: "calls/s", rounds: rounds.map(({ echoRate }) => echoRate) },
      { name: "Put", unit: "calls/s", rounds: rounds.map(({ putRate }) => putRate) },
      {
        name: "Put : echo",
        unit: "ratio",
        rounds: rounds.map(({ echoRate, putRate }) => putRate / echoRate),
        goal: { atLeast: GOAL },
      },
      { name: "CPU of the echo", unit: "µs/call", rounds: rounds.map(({ echoCpu }) => echoCpu.echo) },
      { name: "CPU of its client", unit: "µs/call", rounds: rounds.map(({ echoCpu }) => echoCpu.client) },
      { name: "CPU of the broker", unit: "µs/call", rounds: rounds.map(({ putCpu }) => putCpu.broker) },
      { name: "CPU of its client", unit: "µs/call", rounds: rounds.map(({ putCpu }) => putCpu.client) },
      { name: "CPU of Redis", unit: "µs/call", rounds: rounds.map(({ putCpu }) => putCpu.Redis) },
    ];
  } finally {
    commands.close();
    toBroker.close();
    toEcho.close();
    await echo.stop();
  }
}

/** Each of the callers has one call under way at any time. */
async function callFor(client: LeanClient, durationMs: number): Promise<{ calls: number; perSecond: number }> {
  const call = client.unary(JobService.method.put);
  const startMs = performance.now();
  const endMs = startMs + durationMs;
  let calls = 0;
  async function caller(): Promise<void> {
    while (performance.now() < endMs) {
      const { created } = await call(newJob("bench-put"));
      if (!created) throw new Error("a job was not created");
      calls++;
    }
  }
  await Promise.all(Array.from({ length: CONCURRENCY }, caller));
  return { calls, perSecond: (calls / (performance.now() - startMs)) * 1_000 };
}
