import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Subscription } from "../../src/broker/subscription.ts";
import type { LeasedJob } from "../../src/model/job.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { completeAll, type InnerBroker, numbered, putAll, startInnerBroker, streamAt } from "./inner-broker.ts";

describe("a worker whose credit is used up", () => {
  let redis: TestRedis;
  let inner: InnerBroker;

  beforeAll(async () => {
    redis = await startRedis();
    inner = await startInnerBroker({ redis });
  });

  afterAll(async () => {
    await inner?.stop();
    await redis?.stop();
  });

  async function nextJobs(stream: Subscription): Promise<readonly LeasedJob[]> {
    for (;;) {
      const event = await stream.next();
      if (!event) throw new Error("the stream has ended");
      if (event.kind === "jobs") return event.jobs;
    }
  }

  it("gets as many jobs at once as it releases at once, by one call", async () => {
    await putAll(inner.store, "queue", numbered(20));
    const stream = inner.broker.subscribe(streamAt("queue", { credit: { maxOutstanding: 5, maxBytes: 0 } }));
    const first = await nextJobs(stream);
    expect(first).toHaveLength(5);
    const calls = inner.store.claims.length;
    await completeAll(inner.broker, first);
    expect(await nextJobs(stream)).toHaveLength(5);
    expect(inner.store.claims.length - calls).toBe(1);
    stream.close();
  });
});
