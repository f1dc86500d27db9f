/** One address or several: where the calls of a client go. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { freeAddress } from "../support/ports.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { until } from "../support/wait.ts";

describe("a client of several brokers", () => {
  let redis: TestRedis;
  let brokers: TestBroker[];

  beforeAll(async () => {
    redis = await startRedis();
    brokers = await Promise.all([1, 2].map(() => startBroker({ redis })));
  });

  afterAll(async () => {
    await Promise.all(brokers.map((broker) => broker.stop()));
    await redis.stop();
  });

  /** How many brokers ten calls went to. */
  async function brokersCalled(address: string | readonly string[]): Promise<number> {
    const client = new BatonClient({ address });
    try {
      const queue = `q-${Math.random()}`;
      // By then it is connected to all that there are.
      for (let n = 0; n < 20; n++) await client.queues.list();
      for (let n = 0; n < 10; n++) await client.reserve({ queues: [queue], workerId: `${queue}-${n}` });
      const items = await until(
        async () => {
          const page = await client.queues.workers({ queue });
          return page.items.length === 10 && page.items;
        },
        { what: "all ten callers to be listed", withinMs: 10_000 },
      );
      return new Set(items.map(({ brokerId }) => brokerId)).size;
    } finally {
      client.close();
    }
  }

  const addresses = () => brokers.map(({ address }) => address);
  const named = () => addresses().map((address) => address.replace("127.0.0.1", "localhost"));

  it("that are listed calls all of them in turn", async () => {
    expect(await brokersCalled(addresses())).toBe(2);
  });

  it("that are listed by host name does, too, and takes a host's several addresses for one broker", async () => {
    expect(await brokersCalled(named())).toBe(2);
  });

  it("calls those that are there, whatever is wrong with the others", async () => {
    const list = [await freeAddress(), "no-such-host.invalid:7711", ...named()];
    expect(await brokersCalled(list)).toBe(2);
  });

  it("that one of gRPC's own targets names calls all of them in turn", async () => {
    expect(await brokersCalled(`ipv4:${addresses().join()}`)).toBe(2);
  });

  it("stays with one where it was given one", async () => {
    expect(await brokersCalled(named()[0] ?? "")).toBe(1);
  });

  it("says UNAVAILABLE when none is there", async () => {
    const client = new BatonClient({ address: [await freeAddress(), "no-such-host.invalid:7711"] });
    const refused = expect(client.get("q", "1", { deadlineMs: 1_000 })).rejects;
    await refused.toMatchObject({ code: "UNAVAILABLE" });
    client.close();
  });

  it.each([
    [[], "a list of addresses must have at least one"],
    [["127.0.0.1"], 'in a list of addresses each must be host:port, but one is "127.0.0.1"'],
    [["a:1", "dns:///b:2"], 'in a list of addresses each must be host:port, but one is "dns:///b:2"'],
    [["a:1,b:2"], 'in a list of addresses each must be host:port, but one is "a:1,b:2"'],
  ])("refuses a list that is none: %j", (address, message) => {
    expect(() => new BatonClient({ address })).toThrow(new TypeError(message));
  });

  it("takes IPv6 addresses in brackets", () => {
    expect(() => new BatonClient({ address: ["[::1]:7711", "[2001:db8::1]:7711"] }).close()).not.toThrow();
  });
});
