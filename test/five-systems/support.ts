/**
 * What the tests of this room start from. Each of its files stands for one of the systems that Baton replaces, and each
 * `describe` in it for one row of what that system's users had; the depth is in the tests of the other rooms.
 */
import { createConnection } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";
import type { ReservedJob } from "../../gen/baton/v1/job_pb.js";
import { type Fixture, startFixture } from "../rpc/fixture.ts";
import { QueueClient } from "../rpc/queue-client.ts";
import { RawClient, type RawStream, type Request } from "../rpc/raw-client.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import type { TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";

export type SubscribeInit = Exclude<Parameters<RawClient["subscribe"]>[0], Uint8Array>;
export type Outcome = NonNullable<Request<"release">["outcome"]>;

export const COMPLETED: Outcome = { case: "completed", value: {} };
/** Failed, and not to be tried again. */
export const BURIED: Outcome = { case: "failed", value: { message: "broken", type: "Bad", permanent: true } };

/** Call it at the top of a file: brokers on one private Redis, and for each test a queue of its own. */
export class Room {
  #fixture: Fixture | undefined;
  #queues: QueueClient | undefined;
  readonly #others: { broker: TestBroker; client: RawClient }[] = [];
  readonly #streams: RawStream[] = [];
  #count = 0;

  constructor(options: { readonly brokers?: number; readonly settings?: Parameters<typeof startFixture>[0] } = {}) {
    beforeAll(async () => {
      this.#fixture = await startFixture(options.settings);
      this.#queues = new QueueClient(this.#fixture.client);
      for (let i = 1; i < (options.brokers ?? 1); i++) {
        const broker = await startBroker({ ...options.settings, redis: this.#fixture.broker.redis });
        this.#others.push({ broker, client: new RawClient(broker.address) });
      }
    });
    beforeEach(() => {
      this.#count += 1;
    });
    afterEach(() => {
      for (const stream of this.#streams.splice(0)) stream.cancel();
    });
    afterAll(async () => {
      for (const { broker, client } of this.#others) {
        client.close();
        await broker.stop();
      }
      await this.#fixture?.stop();
    });
  }

  get fixture(): Fixture {
    if (!this.#fixture) throw new Error("the room's broker is not started yet");
    return this.#fixture;
  }

  /** Of the first broker. */
  get client(): RawClient {
    return this.fixture.client;
  }

  /** One for each broker. */
  get clients(): readonly RawClient[] {
    return [this.client, ...this.#others.map(({ client }) => client)];
  }

  get brokers(): readonly TestBroker[] {
    return [this.fixture.broker, ...this.#others.map(({ broker }) => broker)];
  }

  get queues(): QueueClient {
    if (!this.#queues) throw new Error("the room's broker is not started yet");
    return this.#queues;
  }

  /** The test's own. */
  get queue(): string {
    return `queue-${this.#count}`;
  }

  put(id: string, more: Request<"put"> = {}) {
    return this.client.good("put", { queue: this.queue, id, ...more });
  }

  /** In as many calls as it takes. */
  async putMany(ids: readonly string[], more: Request<"put"> = {}): Promise<void> {
    const queue = this.queue;
    for (let i = 0; i < ids.length; i += 1_000) {
      await this.client.good("putMany", { jobs: ids.slice(i, i + 1_000).map((id) => ({ queue, id, ...more })) });
    }
  }

  /** What there is, without waiting. */
  take(maxJobs = 100, more: Request<"reserve"> = {}): Promise<ReservedJob[]> {
    return this.client.reserve({ queues: [{ name: this.queue }], maxJobs, ...more });
  }

  release({ leaseToken }: ReservedJob, outcome: Outcome = COMPLETED) {
    return this.client.good("release", { leaseToken, outcome });
  }

  async job(id: string) {
    const { job } = await this.client.good("get", { queue: this.queue, id });
    if (!job) throw new Error(`Get answered without the job ${id}`);
    return job;
  }

  /** The queue, with its counts and counters. */
  async shown() {
    const { queue } = await this.queues.good("getQueue", { queue: this.queue });
    if (!queue?.counts || !queue.totals) throw new Error("GetQueue answered without counts");
    return { ...queue, counts: queue.counts, totals: queue.totals };
  }

  /** A worker's stream, which has started; it is closed after the test. */
  async opened(request: SubscribeInit = {}, client = this.client): Promise<RawStream> {
    const stream = client.subscribe({ queues: [{ name: this.queue }], ...request });
    this.#streams.push(stream);
    await stream.saw("started");
    return stream;
  }
}

export const numbered = (howMany: number) => Array.from({ length: howMany }, (_, i) => `${i}`);

export const idsOf = (jobs: readonly { readonly id: string }[]) => jobs.map(({ id }) => id);

export const runAt = (ms: number) => ({ case: "runAt", value: timestampFromMs(ms) }) as const;

export const text = (value: string) => ({ content: { case: "text", value } }) as const;

/**
 * How many commands that name this queue Redis gets in so long; scripts' own don't count. A rate is measured over a time:
 * there is no event to wait for. On a bare socket, because ioredis breaks where MONITOR's first lines come with its OK.
 */
export async function countCommands(redis: TestRedis, queue: string, forMs: number): Promise<number> {
  const socket = createConnection(redis.socketPath);
  try {
    const lines: string[] = [];
    createInterface({ input: socket }).on("line", (line) => lines.push(line));
    socket.write("MONITOR\r\n");
    await until(() => lines.length > 0, { what: "Redis to take MONITOR" });
    await setTimeout(forMs);
    return lines.filter((line) => line.includes(`{${queue}}:`) && !/^\+[\d.]+ \[\d+ lua\]/.test(line)).length;
  } finally {
    socket.destroy();
  }
}
