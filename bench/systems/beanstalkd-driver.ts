/**
 * beanstalkd as its protocol allows it to be used fastest: commands are pipelined, those of one tick in one write.
 *
 * Its jobs have numbers, so the id travels in front of the payload. A connection that waits in `reserve` does nothing
 * else, and a job can be deleted only where it was reserved. So each worker's connection goes in rounds, each of them
 * one write: delete what the last round brought, wait for a job, and take those that are ready behind it.
 */
import { ID_BYTES, idIn } from "../support/body.ts";
import { type Connection, openConnection, type Reply } from "./beanstalkd-connection.ts";
import { shareQueues } from "./share-queues.ts";
import type { Driver, Job, WorkOptions } from "./system.ts";

const PRODUCER_CONNECTIONS = 2;
/**
 * So many jobs a worker takes at most in a round. Life cycles a second on a quiet machine, with batches of 100: 55,000
 * with one connection for the worker and rounds of 100, 50,000 with rounds of 400; 51,000 when the worker shares its place
 * among 2 connections, 42,000 among 4, 38,000 among 8, since each then finds less to take at a time.
 */
const MOST_A_ROUND = 100;
const PRIORITY = 1024;
/** More than any workload takes: no job comes back. */
const TIME_TO_RUN_SECONDS = 600;
const CLEARED_A_ROUND = 1_000;
const MOST_KICKED = 2 ** 32 - 1;
const LINE_END = "\r\n";

type Producer = { readonly connection: Connection; tube: string | undefined };

export async function connect(address: string): Promise<Driver> {
  const producers: Producer[] = [];
  for (let i = 0; i < PRODUCER_CONNECTIONS; i++) {
    producers.push({ connection: await openConnection(address), tube: undefined });
  }
  let turn = 0;
  const send = (queue: string, jobs: readonly Job[], delaySeconds: number): Promise<void> =>
    put(producers[turn++ % producers.length] as Producer, queue, jobs, delaySeconds);

  return {
    put: (queue, job) => send(queue, [job], 0),
    putMany: (queue, jobs, dueAtMs) => send(queue, jobs, dueAtMs === undefined ? 0 : secondsUntil(dueAtMs)),
    work: (options) => work(address, options),
    clear: (queues) => clear(address, queues),
    async close() {
      for (const { connection } of producers) connection.close();
    },
  };
}

/** beanstalkd delays by whole seconds. Rounded up: a job may not come before its time. */
function secondsUntil(timeMs: number): number {
  return Math.max(Math.ceil((timeMs - Date.now()) / 1_000), 0);
}

async function put(producer: Producer, queue: string, jobs: readonly Job[], delaySeconds: number): Promise<void> {
  if (producer.tube !== queue) {
    producer.tube = queue;
    // When it fails, so does the put behind it, which tells.
    producer.connection.request(`use ${queue}${LINE_END}`, 1).catch(() => undefined);
  }
  await producer.connection.request(putCommands(jobs, delaySeconds), jobs.length, mustBeDone);
}

function putCommands(jobs: readonly Job[], delaySeconds: number): Buffer {
  const heads = jobs.map(
    ({ id, payload }) =>
      `put ${PRIORITY} ${delaySeconds} ${TIME_TO_RUN_SECONDS} ${ID_BYTES + payload.length}${LINE_END}${id}`,
  );
  const length = jobs.reduce(
    (sum, job, i) => sum + (heads[i] as string).length + job.payload.length + LINE_END.length,
    0,
  );
  const commands = Buffer.allocUnsafe(length);
  let at = 0;
  for (const [i, { payload }] of jobs.entries()) {
    at += commands.write(heads[i] as string, at, "latin1");
    at += payload.copy(commands, at);
    at += commands.write(LINE_END, at, "latin1");
  }
  return commands;
}

async function work(address: string, options: WorkOptions): Promise<() => Promise<void>> {
  const { queues, streams, onError } = options;
  const connections: Connection[] = [];
  let stopped = false;
  const shares = shareQueues(queues, streams);
  const opening = shares.map(async (tubes) => {
    const connection = await openConnection(address);
    connections.push(connection);
    await watch(connection, tubes);
    return connection;
  });
  for (const connection of await Promise.all(opening)) {
    takeJobs(connection, options).catch((error) => {
      if (!stopped) onError(error);
    });
  }
  return async () => {
    stopped = true;
    for (const connection of connections) connection.close();
  };
}

async function watch(connection: Connection, tubes: readonly string[]): Promise<void> {
  const commands = [...tubes.map((tube) => `watch ${tube}`), "ignore default"];
  await connection.request(commands.join(LINE_END) + LINE_END, commands.length);
}

/**
 * Goes in rounds until the connection is closed. Each asks for twice as many jobs as the last one brought, since asking
 * in vain costs too.
 */
async function takeJobs(connection: Connection, { onDelivered, onFinished }: WorkOptions): Promise<never> {
  let taken: readonly string[] = [];
  for (;;) {
    const deleted = finish(connection, taken, onFinished);
    const numbers: string[] = [];
    const asked = Math.min(Math.max(taken.length * 2, 1), MOST_A_ROUND);
    const reserves = `reserve${LINE_END}${`reserve-with-timeout 0${LINE_END}`.repeat(asked - 1)}`;
    const reserved = connection.request(reserves, asked, (reply) => {
      if (reply.kind !== "reserved") return;
      numbers.push(reply.number);
      onDelivered?.(idIn(reply.body));
    });
    await Promise.all([deleted, reserved]);
    taken = numbers;
  }
}

async function finish(connection: Connection, numbers: readonly string[], onFinished: (jobs: number) => void) {
  if (numbers.length === 0) return;
  await connection.request(numbers.map((number) => `delete ${number}${LINE_END}`).join(""), numbers.length, mustBeDone);
  onFinished(numbers.length);
}

function mustBeDone(reply: Reply): void {
  if (reply.kind !== "done") throw new Error("beanstalkd refused a put or a delete");
}

/** Delayed jobs are made ready first. There is no command that empties a tube. */
async function clear(address: string, queues: readonly string[]): Promise<void> {
  const connection = await openConnection(address);
  try {
    for (const queue of queues) {
      await connection.request(`use ${queue}${LINE_END}kick ${MOST_KICKED}${LINE_END}`, 2);
    }
    await watch(connection, queues);
    for (;;) {
      const numbers: string[] = [];
      await connection.request(
        `reserve-with-timeout 0${LINE_END}`.repeat(CLEARED_A_ROUND),
        CLEARED_A_ROUND,
        (reply) => {
          if (reply.kind === "reserved") numbers.push(reply.number);
        },
      );
      if (numbers.length === 0) return;
      await finish(connection, numbers, () => undefined);
    }
  } finally {
    connection.close();
  }
}
