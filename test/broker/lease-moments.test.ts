/** Leases at moments that come seldom: news that is quicker than an answer, a drain in the middle of a resume. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Subscription, SubscriptionEvent } from "../../src/broker/subscription.ts";
import type { Work, WorkEvent } from "../../src/broker/work.ts";
import type { LeasedJob } from "../../src/model/job.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until, within } from "../support/wait.ts";
import { type InnerBroker, putAll, startInnerBroker, streamAt } from "./inner-broker.ts";

type Stream = { readonly events: (SubscriptionEvent | WorkEvent)[]; readonly jobs: LeasedJob[] };

describe("a lease", () => {
  let redis: TestRedis;
  let inner: InnerBroker;
  let other: InnerBroker;
  const closes: (() => void)[] = [];

  beforeEach(async () => {
    redis = await startRedis();
    inner = await startInnerBroker({ redis });
    other = await startInnerBroker({ redis });
  });

  afterEach(async () => {
    for (const close of closes.splice(0)) close();
    await inner.stop();
    await other.stop();
    await redis.stop();
  });

  function read(stream: Subscription | Work): Stream {
    const seen: Stream = { events: [], jobs: [] };
    const loop = async () => {
      for (let next = await stream.next(); next; next = await stream.next()) {
        for (const event of "kind" in next ? [next] : next) {
          seen.events.push(event);
          if (event.kind === "jobs") seen.jobs.push(...event.jobs);
        }
      }
    };
    void loop();
    closes.push(() => stream.close());
    return seen;
  }

  const subscribed = (options: Parameters<typeof streamAt>[1] = {}) =>
    read(inner.broker.subscribe(streamAt("q", options)));

  const kinds = ({ events }: Stream) => events.map(({ kind }) => kind);

  /** What one of the store's methods answers from now on comes only when it is let through. */
  function holdBack(method: "reserve" | "extend"): { readonly has: () => boolean; readonly letThrough: () => void } {
    const { store } = inner;
    const gate = Promise.withResolvers<void>();
    const answer = store[method].bind(store) as (...args: unknown[]) => Promise<never>;
    let has = false;
    store[method] = async (...args: unknown[]) => {
      const answered = await answer(...args);
      has = true;
      await gate.promise;
      return answered;
    };
    closes.push(gate.resolve);
    return { has: () => has, letThrough: gate.resolve };
  }

  async function leaseLeftMs(id: string): Promise<number> {
    const job = await inner.store.get("q", id);
    return (job?.atMs ?? 0) - (await inner.store.now());
  }

  it("of a job that is deleted while it is on its way to a stream is revoked as soon as the job is there", async () => {
    const stream = subscribed();
    await putAll(inner.store, "q", ["witness"]);
    await until(() => stream.jobs.length === 1, { what: "the first job" });
    const reserve = holdBack("reserve");
    await putAll(inner.store, "q", ["job"]);
    await until(() => reserve.has(), { what: "the job to be reserved" });
    await other.broker.jobs.delete("q", "job");
    await other.broker.jobs.delete("q", "witness");
    // Brokers hear of both in that order.
    await until(() => kinds(stream).includes("revoked"), { what: "the first job to be revoked" });
    reserve.letThrough();
    await until(() => stream.jobs.length === 2, { what: "the deleted job" });
    const after = () => kinds(stream).slice(kinds(stream).lastIndexOf("jobs"));
    await until(() => after().length > 1, { what: "its revocation", withinMs: 1_000 });
    expect(stream.events.at(-1)).toMatchObject({ kind: "revoked", lease: { id: "job" }, reason: "DELETED" });
  });

  it("that was taken over for a stream which then cannot begin ends after that stream's grace", async () => {
    const stream = subscribed();
    await putAll(inner.store, "q", ["job"]);
    await until(() => stream.jobs.length === 1, { what: "the job" });
    const resumed = await other.broker.resume(stream.jobs, 30_000);
    expect(await leaseLeftMs("job")).toBeGreaterThan(20_000);
    const drained = other.broker.drain(0);
    expect(() => other.broker.work(streamAt("q", { graceMs: 1_500, resumed }))).toThrow(/shut/);
    await within(drained, { what: "the drain" });
    expect(await leaseLeftMs("job")).toBeLessThan(2_000);
  });

  it("that its worker made longer stays longer, and one that it made shorter is kept all the same", async () => {
    const stream = subscribed({ leaseMs: 1_500 });
    await putAll(inner.store, "q", ["longer", "shorter"]);
    await until(() => stream.jobs.length === 2, { what: "the jobs" });
    const [longer, shorter] = stream.jobs as [LeasedJob, LeasedJob];
    await inner.broker.jobs.extend([longer], 60_000);
    await inner.broker.jobs.extend([shorter], 700);
    const calls = inner.store.extensions.length;
    await until(() => inner.store.extensions.length > calls + 2, { what: "some renewals", withinMs: 5_000 });
    expect(kinds(stream)).toEqual(["started", "jobs"]);
    expect(await leaseLeftMs("longer")).toBeGreaterThan(50_000);
    expect(await leaseLeftMs("shorter")).toBeGreaterThan(0);
  });

  it("that is extended in the moment in which its stream ends ends after the grace", async () => {
    const work = inner.broker.work(streamAt("q", { graceMs: 1_000 }));
    const stream = read(work);
    await putAll(inner.store, "q", ["job"]);
    await until(() => stream.jobs.length === 1, { what: "the job" });
    const calls = inner.store.extensions.length;
    work.extend(
      1,
      stream.jobs.map((ok) => ({ ok })),
      60_000,
    );
    work.close();
    await until(() => inner.store.extensions.length >= calls + 2, { what: "both to be asked for" });
    expect(await leaseLeftMs("job")).toBeLessThan(2_000);
  });

  it("of a stream that has reached its age: its worker hears when the broker goes, too", async () => {
    const subscription = inner.broker.subscribe(streamAt("q"));
    const stream = read(subscription);
    await putAll(inner.store, "q", ["job"]);
    await until(() => stream.jobs.length === 1, { what: "the job" });
    subscription.drain(undefined);
    const drained = inner.broker.drain(300);
    await within(drained, { what: "the drain" });
    expect(stream.events.filter(({ kind }) => kind === "draining")).toEqual([
      { kind: "draining", graceMs: undefined },
      { kind: "draining", graceMs: 300 },
    ]);
  });
});
