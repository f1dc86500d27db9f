/**
 * Workers that send as fast as they can, and don't read what they are told: what it costs the broker, which runs as a
 * process of its own, and what it costs others.
 */
import { execFile } from "node:child_process";
import { setInterval as every } from "node:timers/promises";
import { promisify } from "node:util";
import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { WorkRequestSchema } from "../../gen/baton/v1/job_service_pb.js";
import { BatonClient } from "../../src/client/index.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { eventOnce, until } from "../support/wait.ts";
import { type WorkRequestInit, WorkStream } from "../support/work-stream.ts";
import { type BrokerProcess, startBrokerProcess } from "./broker-process.ts";
import { workAndNeverRead } from "./raw-client.ts";

const MIB = 1024 * 1024;
const COMPLETED = { case: "completed", value: {} } as const;
/** So long without taking a message: the connection holds the sender back. */
const HELD_BACK_MS = 1_500;

const LOST = Array.from({ length: 1_000 }, (_, i) => `baton/queue/1/${i}`);

/** What the flooder sends again and again. */
const FLOODS: readonly {
  readonly name: string;
  readonly request: () => WorkRequestInit;
  /** Of messages: enough to be far over any bound if nothing held them back. */
  readonly most: number;
  /** Whether so much is to be said to it that one who does not read is held back. */
  readonly isAnswered: boolean;
  /** What a broker has had of these, it keeps as room for others: what comes next would not be seen to grow. */
  readonly isLarge?: boolean;
}[] = [
  {
    name: "releases of leases that are lost",
    request: () => ({ releases: LOST.map((leaseToken, sequence) => ({ leaseToken, sequence, outcome: COMPLETED })) }),
    most: 1_000,
    isAnswered: true,
  },
  {
    name: "extends of one token each",
    request: () => ({ extends: LOST.map((leaseToken, sequence) => ({ leaseTokens: [leaseToken], sequence })) }),
    most: 1_000,
    isAnswered: true,
  },
  {
    name: "reports of progress of leases that are lost",
    request: () => ({ progress: LOST.map((leaseToken) => ({ leaseToken, percent: 1 })) }),
    most: 1_000,
    isAnswered: true,
  },
  { name: "quiet", request: () => ({ quiet: true }), most: 10_000, isAnswered: false },
  {
    name: "credit",
    request: () => ({ credit: { maxOutstanding: 5, maxOutstandingBytes: BigInt(8 * MIB) } }),
    most: 10_000,
    isAnswered: false,
  },
  { name: "nothing", request: () => ({}), most: 10_000, isAnswered: false },
  {
    name: "reports with tokens of 15 MiB",
    request: () => ({ progress: [{ leaseToken: "x".repeat(15 * MIB) }] }),
    most: 24,
    isAnswered: false,
    isLarge: true,
  },
  {
    name: "releases with tokens of 15 MiB",
    request: () => ({ releases: [{ leaseToken: `baton/queue/1/${"x".repeat(15 * MIB)}`, outcome: COMPLETED }] }),
    most: 10,
    isAnswered: false,
    isLarge: true,
  },
  {
    name: "releases with five results of 3 MiB",
    request: () => ({
      releases: LOST.slice(0, 5).map((leaseToken, sequence) => ({
        leaseToken,
        sequence,
        outcome: {
          case: "completed",
          value: { result: { content: { case: "data", value: new Uint8Array(3 * MIB) } } },
        },
      })),
    }),
    most: 10,
    isAnswered: false,
    isLarge: true,
  },
];

describe("a broker that is flooded on a Work stream", { timeout: 90_000 }, () => {
  let redis: TestRedis;
  let broker: BrokerProcess;
  let client: BatonClient;
  const streams: WorkStream[] = [];

  /** Of the broker, before any flood. */
  let before = 0;

  beforeAll(async () => {
    redis = await startRedis();
    await startAnew();
  });

  afterEach(() => {
    for (const stream of streams.splice(0)) stream.close();
  });

  afterAll(async () => {
    await end();
    await redis?.stop();
  });

  async function startAnew(): Promise<void> {
    await end();
    broker = await startBrokerProcess("--redis-url", redis.url);
    client = new BatonClient({ address: broker.address });
    before = await residentMib();
  }

  async function end(): Promise<void> {
    client?.close();
    await broker?.kill();
  }

  async function opened(queue: string, maxOutstanding = 1): Promise<WorkStream> {
    const stream = await WorkStream.open(broker.address, { queues: [{ name: queue }], maxOutstanding });
    streams.push(stream);
    return stream;
  }

  async function residentMib(): Promise<number> {
    const { stdout } = await promisify(execFile)("ps", ["-o", "rss=", "-p", `${broker.child.pid}`]);
    return Number(stdout) / 1_024;
  }

  /** Puts jobs and runs them on a stream of their own until it is told to stop; how long each took, from put to answer. */
  async function roundTrips(stream: WorkStream, isOver: () => boolean): Promise<number[]> {
    const times: number[] = [];
    while (times.length < 10 || !isOver()) {
      const began = performance.now();
      await client.put({ queue: "others" });
      const jobs = await stream.got(times.length + 1);
      await stream.answered(stream.complete(...jobs.slice(times.length)));
      times.push(performance.now() - began);
    }
    return times.sort((a, b) => a - b);
  }

  /** Sends until so many messages have gone, or none goes any more; how many have. */
  async function flood(stream: WorkStream, bytes: Buffer, most: number): Promise<number> {
    for (let sent = 0; sent < most; sent++) {
      const written = new Promise<boolean>((resolve) => stream.call.write(bytes, () => resolve(true)));
      let timer: NodeJS.Timeout | undefined;
      const heldBack = new Promise<boolean>((resolve) => {
        timer = setTimeout(() => resolve(false), HELD_BACK_MS);
      });
      const went = await Promise.race([written, heldBack]);
      clearTimeout(timer);
      if (!went) return sent;
    }
    return most;
  }

  it("hands a worker that does not read no more than one window and its credit, and the rest to others", async () => {
    const JOBS = 300;
    const deaf = workAndNeverRead(broker.address, { queues: [{ name: "jobs" }], maxOutstanding: 10_000 });
    const payload = new Uint8Array(100_000);
    for (let from = 0; from < JOBS; from += 10) {
      await client.putMany(Array.from({ length: 10 }, () => ({ queue: "jobs", payload })));
    }
    const filled = await residentMib();
    const reading = await opened("jobs", 100);
    const got = await until(
      async () => {
        await reading.answered(reading.complete(...reading.jobs().slice(reading.released().size)));
        const { counts } = await client.queues.get("jobs");
        return counts.ready === 0 && reading.released().size;
      },
      { what: "the queue to be empty", withinMs: 30_000 },
    );
    // 250 jobs, or 3.5 MiB, in one message; one on its way, one that waits for it, and what the window took before.
    expect(JOBS - got).toBeLessThan(120);
    expect(got).toBeGreaterThan(0);
    expect((await residentMib()) - filled).toBeLessThan(200);
    // What it did not take comes back when it goes: nothing is lost.
    deaf.destroy();
    await until(
      async () => {
        await reading.answered(reading.complete(...reading.jobs().slice(reading.released().size)));
        return reading.released().size === JOBS;
      },
      { what: "all jobs to have run", withinMs: 30_000 },
    );
  });

  it.each(FLOODS)("with $name, never reading, takes no more than it can hold, and serves others", async (row) => {
    const { request, most, isAnswered, isLarge = false } = row;
    if (isLarge) await startAnew();
    const bytes = Buffer.from(toBinary(WorkRequestSchema, create(WorkRequestSchema, request())));
    const others = await opened("others");
    const flooder = await opened("flood");
    flooder.call.pause();
    await roundTrips(others, () => true);
    others.responses.splice(0);
    let over = false;
    let peak = before;
    const watch = async () => {
      for await (const _ of every(50)) {
        peak = Math.max(peak, await residentMib());
        if (over) return;
      }
    };
    const watching = watch();
    const flooding = flood(flooder, bytes, most).finally(() => {
      over = true;
    });
    const times = await roundTrips(others, () => over);
    const sent = await flooding;
    await watching;
    if (isAnswered) expect(sent).toBeLessThan(most);
    else expect(sent).toBe(most);
    expect(peak - before).toBeLessThan(300);
    expect(times[times.length >> 1]).toBeLessThan(1_000);
  });

  it("answers all of it to one who reads, and others meanwhile", async () => {
    const MESSAGES = 40;
    const others = await opened("others");
    const flooder = await opened("flood");
    const leaseToken = `baton/queue/1/0`;
    let extended = 0;
    let refused = 0;
    flooder.call.on("data", () => {
      const last = flooder.responses.at(-1);
      extended += last?.extended.length ?? 0;
      refused += last?.refusedReports.length ?? 0;
    });
    const flooding = async () => {
      for (let n = 0; n < MESSAGES; n++) {
        const numbers = Array.from({ length: 300 }, (_, i) => n * 300 + i);
        const isTaken = flooder.send({
          releases: numbers.map((sequence) => ({ leaseToken, sequence, outcome: COMPLETED })),
          extends: numbers.map((sequence) => ({ leaseTokens: [leaseToken], sequence })),
          progress: numbers.map(() => ({ leaseToken, percent: 1 })),
        });
        if (!isTaken) await eventOnce(flooder.call, "drain", { withinMs: 30_000 });
      }
      await until(() => flooder.released().size === MESSAGES * 300, { what: "all answers", withinMs: 30_000 });
      await until(() => extended === MESSAGES * 300, { what: "all extends' answers", withinMs: 30_000 });
      await until(() => refused === MESSAGES * 300, { what: "all reports' answers", withinMs: 30_000 });
    };
    let over = false;
    const flooded = flooding().finally(() => {
      over = true;
    });
    const times = await roundTrips(others, () => over);
    await flooded;
    expect(times[times.length >> 1]).toBeLessThan(1_000);
  });
});
