/**
 * Workers that hop from stream to stream and from broker to broker at random, taking their jobs along, while Redis stops
 * answering again and again. No lease is lost here, so nobody may be given what another runs.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { TakenOver } from "../../src/broker/held-leases.ts";
import type { Settled } from "../../src/broker/jobs.ts";
import type { Work, WorkEvent } from "../../src/broker/work.ts";
import type { Lease, LeasedJob, Released } from "../../src/model/job.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";
import { type InnerBroker, numbered, putAll, startInnerBroker, streamAt } from "./inner-broker.ts";

const QUEUES = ["hop-1", "hop-2"];
const JOBS = 400;
const WORKERS = 6;
const LEASE_MS = 4_000;
/** Longer than a worker may need for its next stream, while Redis stops answering. */
const GRACE_MS = 8_000;
const RUN_TIMEOUT_MS = 5_000;
const PAUSE_MS = 400;
const WITHIN_MS = 60_000;

/** Numbers in [0, 1) that follow from the seed (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** What all workers together have seen. */
class Ledger {
  /** By queue and id: who runs it. */
  readonly running = new Map<string, string>();
  readonly done = new Set<string>();
  readonly timedOut: string[] = [];
  readonly wrongs: string[] = [];
  hops = 0;
}

const nameOf = ({ queue, id }: Lease) => `${queue} ${id}`;

class Hopper {
  readonly #name: string;
  readonly #brokers: readonly InnerBroker[];
  readonly #ledger: Ledger;
  readonly #random: () => number;
  readonly #jobs = new Map<string, Lease>();
  /** Asked for, and not answered yet. */
  readonly #releasing = new Map<number, Lease>();
  readonly #left: Work[] = [];
  #stream: Work | undefined;
  #sequence = 0;
  #goes = true;

  constructor(name: string, brokers: readonly InnerBroker[], ledger: Ledger, random: () => number) {
    this.#name = name;
    this.#brokers = brokers;
    this.#ledger = ledger;
    this.#random = random;
  }

  get jobs(): number {
    return this.#jobs.size;
  }

  async run(): Promise<void> {
    await this.#hop();
    while (this.#goes) {
      const point = this.#random();
      if (point < 0.03) await this.#hop();
      else if (point < 0.5) this.#complete();
      else await new Promise((resolve) => setTimeout(resolve, 5));
    }
    this.#stream?.close();
    for (const stream of this.#left) stream.close();
  }

  end(): void {
    this.#goes = false;
  }

  /** The old stream is closed before, after, or much later: as its broker comes to know that it is dead. */
  async #hop(): Promise<void> {
    const old = this.#stream;
    this.#stream = undefined;
    const point = this.#random();
    if (point < 0.4) old?.close();
    else if (old) this.#left.push(old);
    this.#ledger.hops += 1;
    let taken: { at: InnerBroker; resumed: TakenOver } | undefined;
    while (!taken) taken = await this.#resume();
    this.#read(this.#open(taken.at, taken.resumed, 20));
    if (point < 0.7) old?.close();
    while (this.#left.length > 2) this.#left.shift()?.close();
  }

  /** What is asked for may be done although no answer comes; and a call that its caller has given up is done all the same. */
  async #resume(): Promise<{ at: InnerBroker; resumed: TakenOver } | undefined> {
    const at = this.#brokers[Math.floor(this.#random() * this.#brokers.length)] as InnerBroker;
    const leases = [...this.#jobs.values()];
    const givenUp = this.#random() < 0.5 ? at.broker.resume(leases, LEASE_MS) : undefined;
    const resuming = at.broker.resume(this.#random() < 0.5 ? leases.toReversed() : leases, LEASE_MS);
    const open = (resumed: TakenOver) => this.#left.push(this.#open(at, resumed, 0));
    givenUp?.then(open, () => {});
    return await resuming.then(
      (resumed) => ({ at, resumed }),
      () => undefined,
    );
  }

  #open(at: InnerBroker, resumed: TakenOver, maxOutstanding: number): Work {
    const queues = QUEUES.map((name) => ({ name, weight: 1 }));
    const options = { queues, leaseMs: LEASE_MS, graceMs: GRACE_MS, workerId: this.#name, resumed };
    return at.broker.work(streamAt("", { ...options, credit: { maxOutstanding, maxBytes: 0 } }));
  }

  #read(stream: Work): void {
    this.#stream = stream;
    // What was asked for on the old stream is asked for again.
    const again = [...this.#releasing.values()];
    this.#releasing.clear();
    for (const lease of again) this.#release(lease);
    const read = async () => {
      for (let events = await stream.next(); events; events = await stream.next()) {
        for (const event of events) this.#hear(event);
      }
    };
    void read();
  }

  #hear(event: WorkEvent): void {
    if (event.kind === "jobs") for (const job of event.jobs) this.#begin(job);
    if (event.kind === "revoked") this.#lose(event.lease, event.reason);
    if (event.kind !== "released") return;
    for (const [i, { sequence }] of event.releases.entries()) {
      const settled = event.answers[i] as Settled<Released>;
      const lease = this.#releasing.get(sequence);
      if (!lease) continue;
      this.#releasing.delete(sequence);
      if ("ok" in settled) this.#finish(lease);
      else if ((settled.error as { reason?: string }).reason === "STORE_UNAVAILABLE") this.#release(lease);
      else this.#ledger.wrongs.push(`${this.#name} may not release ${nameOf(lease)}: ${settled.error}`);
    }
  }

  #begin(job: LeasedJob): void {
    const name = nameOf(job);
    const runner = this.#ledger.running.get(name);
    if (runner) this.#ledger.wrongs.push(`${name} is given to ${this.#name}, and ${runner} runs it`);
    if (this.#ledger.done.has(name)) this.#ledger.wrongs.push(`${name} is given to ${this.#name} after it was done`);
    this.#ledger.running.set(name, this.#name);
    this.#jobs.set(name, { queue: job.queue, id: job.id, fence: job.fence });
  }

  #lose(lease: Lease, reason: string): void {
    const name = nameOf(lease);
    const isReleasing = [...this.#releasing.values()].some((one) => nameOf(one) === name);
    if (isReleasing || !this.#jobs.delete(name)) return;
    this.#ledger.running.delete(name);
    if (reason === "RUN_TIMEOUT" && lease.id.startsWith("hung")) this.#ledger.timedOut.push(name);
    else this.#ledger.wrongs.push(`${this.#name} lost ${name}: ${reason}`);
  }

  #finish(lease: Lease): void {
    const name = nameOf(lease);
    this.#jobs.delete(name);
    this.#ledger.running.delete(name);
    this.#ledger.done.add(name);
  }

  #complete(): void {
    const waiting = new Set([...this.#releasing.values()].map(nameOf));
    const ready = [...this.#jobs.values()].filter(
      (lease) => !waiting.has(nameOf(lease)) && !lease.id.startsWith("hung"),
    );
    const lease = ready[Math.floor(this.#random() * ready.length)];
    if (lease) this.#release(lease);
  }

  #release(lease: Lease): void {
    const sequence = ++this.#sequence;
    this.#releasing.set(sequence, lease);
    const outcome = { kind: "completed" } as const;
    this.#stream?.release([{ sequence, lease, outcome }], []);
  }
}

describe("workers that hop between two brokers while Redis stops answering now and then", () => {
  let redis: TestRedis;
  let brokers: InnerBroker[];

  beforeAll(async () => {
    redis = await startRedis();
    brokers = [
      await startInnerBroker({ redis, redisTimeoutMs: 250 }),
      await startInnerBroker({ redis, redisTimeoutMs: 2_000 }),
    ];
  });

  afterAll(async () => {
    for (const broker of brokers ?? []) await broker.stop();
    await redis?.stop();
  });

  it("are the only holders of what they run, until it is done or its run_timeout is over", {
    timeout: WITHIN_MS + 10_000,
  }, async () => {
    const seed = Number(process.env.HOPPING_SEED ?? Date.now() % 2 ** 31);
    process.stdout.write(`hopping: seed ${seed} (repeat it with HOPPING_SEED=${seed})\n`);
    const random = randomFrom(seed);
    const [{ store }] = brokers as [InnerBroker];
    const ledger = new Ledger();
    const hung = Array.from({ length: WORKERS }, (_, i) => ({
      ...{ id: `hung-${i}`, spec: Buffer.from("hung"), priority: 9, conflict: "reject" as const },
      ...{ runTimeoutMs: RUN_TIMEOUT_MS, retry: { maxAttempts: 1 } },
    }));
    await store.put(QUEUES[0] as string, hung);
    for (const queue of QUEUES) await putAll(store, queue, numbered(JOBS / 2));
    const hoppers = Array.from({ length: WORKERS }, (_, i) => new Hopper(`worker-${i}`, brokers, ledger, random));
    const running = hoppers.map((hopper) => hopper.run());
    const pausing = { goes: true };
    const pauses = (async () => {
      while (pausing.goes) {
        const until0 = performance.now() + PAUSE_MS + random() * 600;
        await until(() => performance.now() >= until0, { what: "the next pause" });
        redis.pause();
        const resumeAt = performance.now() + random() * PAUSE_MS;
        await until(() => performance.now() >= resumeAt, { what: "the end of the pause" }).finally(redis.resume);
      }
    })();
    const isOver = () => ledger.wrongs.length > 0 || (ledger.done.size === JOBS && ledger.timedOut.length === WORKERS);
    try {
      await until(isOver, { what: "all jobs", withinMs: WITHIN_MS }).catch((error: unknown) => {
        throw new Error(`${error}; done ${ledger.done.size}, timed out ${ledger.timedOut.length}`);
      });
    } finally {
      pausing.goes = false;
      await pauses;
      for (const hopper of hoppers) hopper.end();
      await Promise.all(running);
    }
    expect(ledger.wrongs).toEqual([]);
    expect(ledger.hops).toBeGreaterThan(WORKERS * 5);
    expect(hoppers.map(({ jobs }) => jobs)).toEqual(Array(WORKERS).fill(0));
    const counts = await Promise.all(QUEUES.map(async (queue) => (await store.queues.get(queue)).counts));
    expect(counts.map(({ COMPLETED, FAILED }) => [COMPLETED, FAILED])).toEqual([
      [JOBS / 2, WORKERS],
      [JOBS / 2, 0],
    ]);
  });
});
