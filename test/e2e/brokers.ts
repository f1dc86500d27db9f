/**
 * Broker processes on one Redis for the tests of a file, which run at the same time: each has a scene of its own, with a
 * queue, workers and proxies that end with it.
 */
import { afterAll, beforeAll } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { RawClient, type Request } from "../rpc/raw-client.ts";
import { startRedis, type TestRedis } from "../support/redis.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/wait.ts";
import { type BrokerProcess, startBrokerProcess } from "./broker-process.ts";
import { type Kind, type StartInit, WorkerOfAKind } from "./worker-of-a-kind.ts";

export type Brokers = {
  /** The first broker, and the second. */
  readonly addresses: readonly [string, string];
  readonly clients: readonly [RawClient, RawClient];
  /** One more on the same Redis, to be killed. */
  another(): Promise<BrokerProcess>;
  scene(): Scene;
};

/** Call it at the top of a describe; `settings` as on the command line. */
export function twoBrokers(...settings: readonly string[]): Brokers {
  let redis: TestRedis | undefined;
  let brokers: BrokerProcess[] = [];
  const others: BrokerProcess[] = [];
  /** They start one after the other, so that on a busy machine each has the whole time that a start may take. */
  let started: Promise<unknown> = Promise.resolve();
  let clients: RawClient[] = [];
  let scenes = 0;
  const start = () => startBrokerProcess("--redis-url", redis?.url ?? "", ...settings);
  beforeAll(async () => {
    redis = await startRedis();
    brokers = await Promise.all([start(), start()]);
    clients = brokers.map(({ address }) => new RawClient(address));
  });
  afterAll(async () => {
    for (const client of clients) client.close();
    await Promise.all([...brokers, ...others].map((broker) => broker.kill()));
    await redis?.stop();
  });
  const both = <T>(of: readonly T[]) => {
    if (of[0] === undefined || of[1] === undefined) throw new Error("the brokers are not started yet");
    return [of[0], of[1]] as const;
  };
  return {
    get addresses() {
      return both(brokers.map(({ address }) => address));
    },
    get clients() {
      return both(clients);
    },
    async another() {
      const starting = started.then(start);
      started = starting.catch(() => {});
      const broker = await starting;
      others.push(broker);
      return broker;
    },
    scene() {
      scenes += 1;
      return new Scene(`scene-${scenes}`, this.addresses[0], this.clients[1]);
    },
  };
}

/** One test's queue, with the workers at it and the proxies before brokers. */
export class Scene implements AsyncDisposable {
  readonly queue: string;
  readonly #address: string;
  readonly #client: RawClient;
  readonly #workers: WorkerOfAKind[] = [];
  readonly #proxies: TcpProxy[] = [];

  /** `address`: of the broker behind the proxies. `client`: by which jobs are put and looked at. */
  constructor(queue: string, address: string, client: RawClient) {
    this.queue = queue;
    this.#address = address;
    this.#client = client;
  }

  async proxy(target = this.#address): Promise<TcpProxy> {
    const proxy = await startTcpProxy(target);
    this.#proxies.push(proxy);
    return proxy;
  }

  /** Jobs with these ids. */
  async put(ids: readonly string[], more: Request<"put"> = {}): Promise<void> {
    await this.#client.good("putMany", { jobs: ids.map((id) => ({ queue: this.queue, id, ...more })) });
  }

  async worker(kind: Kind, address: string, start: StartInit = {}): Promise<WorkerOfAKind> {
    const worker = await WorkerOfAKind.open(kind, address, { queues: [{ name: this.queue }], ...start });
    this.#workers.push(worker);
    return worker;
  }

  async job(id: string) {
    const { job } = await this.#client.good("get", { queue: this.queue, id });
    if (!job) throw new Error(`there is no job ${id}`);
    return job;
  }

  /** Until this job's lease ends so much later than it would have. */
  async renewed(id: string, bySeconds: number): Promise<void> {
    const leaseEnd = async () => Number((await this.job(id)).leaseExpiresAt?.seconds ?? 0);
    const end = await leaseEnd();
    const isLater = async () => (await leaseEnd()) >= end + bySeconds;
    await until(isLater, { what: `renewals of job ${id}`, withinMs: 20_000 });
  }

  /** Id → attempt of every job that is COMPLETED. */
  completed(): Promise<Record<string, number>> {
    return this.#attempts(JobState.COMPLETED);
  }

  /** Id → attempt of every job that is RESERVED. */
  reserved(): Promise<Record<string, number>> {
    return this.#attempts(JobState.RESERVED);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const worker of this.#workers) worker.close();
    for (const proxy of this.#proxies) await proxy.stop();
  }

  async #attempts(state: JobState): Promise<Record<string, number>> {
    const { jobs } = await this.#client.good("list", { queue: this.queue, state, pageSize: 1_000 });
    return Object.fromEntries(jobs.map(({ id, attempt }) => [id, attempt]));
  }
}

export const numbered = (howMany: number) => Array.from({ length: howMany }, (_, i) => `${i}`);

/** Each id with this value, as completed() and deliveries() show it. */
export const each = <T>(ids: readonly string[], value: T): Record<string, T> =>
  Object.fromEntries(ids.map((id) => [id, value]));

type Delivery = { readonly id: string; readonly attempt: number };

/** Id → the attempts with which these workers were given the job, in that order. */
export function deliveries(...workers: readonly { readonly jobs: readonly Delivery[] }[]): Record<string, number[]> {
  const attempts: Record<string, number[]> = {};
  for (const { id, attempt } of workers.flatMap(({ jobs }) => jobs)) attempts[id] = [...(attempts[id] ?? []), attempt];
  return attempts;
}
