/**
 * Three brokers on one Redis, of which one comes late: streams and connections that end at an age (--max-stream-age)
 * bring workers and callers to it, and nobody's work suffers.
 */
import { describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { until } from "../support/wait.ts";
import { Fleet } from "./fleet.ts";
import { Load } from "./load.ts";

const QUEUE = "balance";
const WORKERS = 30;
/** A third of them would be ten; which broker each comes to is chance. */
const FAIR_SHARE = 4;

describe("brokers whose streams have an age", { timeout: 90_000 }, () => {
  const fleetOfThree = (age: string) => Fleet.of(3, "--max-stream-age", age);

  it("share the workers, also one that came late, and no job runs twice for it", async () => {
    await using fleet = await fleetOfThree("2s");
    const { addresses } = fleet;
    const [first = "", second = "", late = ""] = addresses;
    await fleet.start(first, second);
    const load = new Load({ addresses, queue: QUEUE, workers: WORKERS });
    try {
      await load.start();
      await fleet.start(late);
      /** How many workers each broker has, the fewest first. */
      const shares = async () => {
        const { items } = await load.client.queues.workers({ queue: QUEUE });
        const counts = new Map<string, number>();
        for (const { brokerId } of items) counts.set(brokerId, (counts.get(brokerId) ?? 0) + 1);
        return [...counts.values()].sort((one, other) => one - other);
      };
      const isFair = async () => {
        const [fewest = 0, ...others] = await shares();
        return others.length === 2 && fewest >= FAIR_SHARE;
      };
      await until(isFair, { what: "a fair share of the workers at each broker", withinMs: 20_000 });
      // For some ages more.
      await load.goesOn(200);
      await load.settle();
      const { totals } = await load.client.queues.get(QUEUE);
      expect(load.errors).toEqual([]);
      // A new stream that meets the goodbye of two connections, one after the other, is opened a third time.
      expect(load.streamErrors.filter((error) => !error.includes("refused"))).toEqual([]);
      expect(totals).toMatchObject({ put: load.put, completed: load.put, failed: 0 });
      expect([...load.runs.values()].filter((attempts) => attempts.join() !== "1")).toEqual([]);
    } finally {
      await load.stop();
    }
  });

  it("tell callers without streams to connect anew, who see no error of it", async () => {
    await using fleet = await fleetOfThree("1s");
    await fleet.start(...fleet.addresses);
    const client = new BatonClient({ address: fleet.addresses });
    const errors: unknown[] = [];
    let calls = 0;
    let stopping = false;
    const callers = Array.from({ length: 20 }, async (_, caller) => {
      for (let n = 0; !stopping; n++) {
        const id = `${caller}-${n}`;
        await client
          .put({ queue: "calls", id, onConflict: "KEEP" })
          .then(() => client.get("calls", id))
          .catch((error: unknown) => errors.push(error));
        calls++;
      }
    });
    const goal = performance.now() + 3_000;
    await until(() => performance.now() > goal, { what: "some ages of the connections", withinMs: 10_000 });
    stopping = true;
    await Promise.all(callers);
    const { totals } = await client.queues.get("calls");
    client.close();
    expect(errors).toEqual([]);
    expect(totals.put).toBe(calls);
  });
});
