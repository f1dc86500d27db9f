/** Brokers on one Redis, each of which can be stopped and started again at its address. */
import { freeAddress } from "../support/ports.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { type BrokerProcess, startBrokerProcess } from "./broker-process.ts";

export class Fleet implements AsyncDisposable {
  readonly addresses: readonly string[];
  readonly redis: TestRedis;
  readonly #settings: readonly string[];
  readonly #brokers = new Map<string, BrokerProcess>();

  private constructor(redis: TestRedis, addresses: readonly string[], settings: readonly string[]) {
    this.redis = redis;
    this.addresses = addresses;
    this.#settings = settings;
  }

  /** None of them runs yet. `settings` as on the command line. */
  static async of(howMany: number, ...settings: readonly string[]): Promise<Fleet> {
    const addresses: string[] = [];
    while (addresses.length < howMany) addresses.push(await freeAddress());
    return new Fleet(await startRedis(), addresses, settings);
  }

  async start(...addresses: readonly string[]): Promise<void> {
    await Promise.all(
      addresses.map(async (address) => {
        const broker = await startBrokerProcess(
          "--redis-url",
          this.redis.url,
          "--grpc-addr",
          address,
          ...this.#settings,
        );
        this.#brokers.set(address, broker);
      }),
    );
  }

  broker(address: string): BrokerProcess {
    const broker = this.#brokers.get(address);
    if (broker === undefined) throw new Error(`no broker runs at ${address}`);
    return broker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#brokers.values()].map((broker) => broker.kill()));
    await this.redis.stop();
  }
}
