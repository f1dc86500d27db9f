/** A worker whose brokers tell it to go, one after the other, or again and again: that is no failure to back off from. */
import { afterEach, describe, expect, it } from "vitest";
import { BatonClient, Worker } from "../../src/client/index.ts";
import { type ScriptedBroker, type ScriptedWork, startScriptedBroker, statusOf } from "./scripted-broker.ts";

const UNAVAILABLE = 14;
const ROUNDS = 5;

describe("a worker whose stream drains", () => {
  let broker: ScriptedBroker;
  let client: BatonClient;
  let worker: Worker;

  afterEach(async () => {
    await worker.stop();
    client.close();
    broker.stop();
  });

  /** Calls `refuse` with each stream that the worker opens, in their order; the mean time between two of them. */
  async function timeBetween(refuse: (stream: ScriptedWork) => void): Promise<number> {
    broker = await startScriptedBroker({});
    client = new BatonClient({ address: broker.address });
    worker = new Worker(client, { queues: ["q"], handler: () => {}, onError: () => {} });
    void worker.start();
    refuse(await broker.work(0));
    const begun = performance.now();
    for (let round = 1; round <= ROUNDS; round++) refuse(await broker.work(round));
    const between = (performance.now() - begun) / ROUNDS;
    (await broker.work(ROUNDS)).start();
    return between;
  }

  it("opens the next at once, however short it lasted", async () => {
    const between = await timeBetween((stream) => {
      stream.start();
      stream.send({ draining: {} });
    });
    expect(between).toBeLessThan(250);
  });

  it("asks again soon where a broker that drains refuses it: the next one asked may be another", async () => {
    const status = statusOf(UNAVAILABLE, "DRAINING", { retryAfterMs: 100 });
    const between = await timeBetween((stream) => stream.break(status));
    // Less and less often, because there may be no other.
    expect(between).toBeGreaterThan(200);
    expect(between).toBeLessThan(1_000);
  });
});
