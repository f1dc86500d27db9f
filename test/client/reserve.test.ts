import { afterEach, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { Refusal, type Script, type ScriptedBroker, startScriptedBroker, statusOf } from "./scripted-broker.ts";

const UNAVAILABLE = 14;
const draining = () => new Refusal(statusOf(UNAVAILABLE, "DRAINING", { retryAfterMs: 50 }));

describe("BatonClient.reserve()", () => {
  let broker: ScriptedBroker | undefined;
  let client: BatonClient | undefined;

  afterEach(() => {
    client?.close();
    broker?.stop();
  });

  async function clientOf(script: Script): Promise<BatonClient> {
    broker = await startScriptedBroker(script);
    client = new BatonClient({ address: broker.address });
    return client;
  }

  it("asks again while the broker is unavailable, for what is left of its wait", async () => {
    const waits: number[] = [];
    const reserving = await clientOf({
      reserve: ({ wait }) => {
        waits.push(Number(wait?.seconds) * 1_000 + (wait?.nanos ?? 0) / 1e6);
        if (waits.length < 3) throw draining();
        return { jobs: [] };
      },
    });
    expect(await reserving.reserve({ queues: ["q"], waitMs: 10_000 })).toEqual([]);
    expect(waits).toHaveLength(3);
    const [first = 0, second = 0, third = 0] = waits;
    expect(first).toBeGreaterThan(9_900);
    expect(second).toBeLessThanOrEqual(first - 50);
    expect(third).toBeLessThanOrEqual(second - 50);
  });

  it("does not wait where it was not asked to", async () => {
    let calls = 0;
    const reserving = await clientOf({
      reserve: ({ wait }) => {
        expect(wait).toBeUndefined();
        if (++calls === 1) throw draining();
        return { jobs: [] };
      },
    });
    expect(await reserving.reserve({ queues: ["q"] })).toEqual([]);
    expect(calls).toBe(2);
  });

  it("says at once that the broker drains to a caller who wants no repetition", async () => {
    const reserving = await clientOf({ reserve: () => Promise.reject(draining()) });
    const refused = expect(reserving.reserve({ queues: ["q"], waitMs: 10_000 }, { repeatForMs: 0 })).rejects;
    await refused.toMatchObject({ code: "UNAVAILABLE", reason: "DRAINING" });
  });
});
