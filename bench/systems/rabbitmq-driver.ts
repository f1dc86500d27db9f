/**
 * RabbitMQ by amqplib, with producer and workers on connections of their own, as its documentation wants them: a channel
 * that confirms, on which all of a batch is published at once; a channel for each worker, which acknowledges what came in
 * one tick with one `multiple` acknowledgement.
 */
import { type Channel, type ConfirmChannel, connect as connectToRabbitMQ, type Message } from "amqplib";
import { bodyOf, idIn } from "../support/body.ts";
import { shareQueues } from "./share-queues.ts";
import type { Driver, Job, WorkOptions } from "./system.ts";

/**
 * How many jobs a consumer holds unacknowledged. Tried: 200, 1,000, 2,000 and 5,000, alike for the life cycle within the
 * spread; draining is the faster the more, up to 1,000.
 */
const PREFETCH = 2_000;
const SOCKET = { noDelay: true };

type Declare = (queue: string) => Promise<unknown>;

export async function connect(address: string): Promise<Driver> {
  const url = `amqp://${address}`;
  const connection = await connectToRabbitMQ(url, SOCKET);
  const channel = await connection.createConfirmChannel();
  const declare = declareOnce(channel);
  return {
    put: (queue, job) => publish(channel, declare, queue, [job]),
    putMany: (queue, jobs) => publish(channel, declare, queue, jobs),
    work: (options) => work(url, declare, options),
    async clear(queues) {
      for (const queue of queues) {
        await declare(queue);
        await channel.purgeQueue(queue);
      }
    },
    close: () => connection.close(),
  };
}

function declareOnce(channel: Channel): Declare {
  const declared = new Map<string, Promise<unknown>>();
  return (queue) => {
    const known = declared.get(queue);
    if (known !== undefined) return known;
    const declaring = channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum" } });
    declared.set(queue, declaring);
    return declaring;
  };
}

/** Resolves when all are confirmed. */
async function publish(channel: ConfirmChannel, declare: Declare, queue: string, jobs: readonly Job[]): Promise<void> {
  await declare(queue);
  await new Promise<void>((resolve, reject) => {
    let unconfirmed = jobs.length;
    const onConfirmed = (error: unknown) => {
      if (error) reject(error);
      else if (--unconfirmed === 0) resolve();
    };
    for (const job of jobs) channel.sendToQueue(queue, bodyOf(job), { persistent: true }, onConfirmed);
  });
}

async function work(url: string, declare: Declare, options: WorkOptions): Promise<() => Promise<void>> {
  const { queues, streams, onError } = options;
  const connection = await connectToRabbitMQ(url, SOCKET);
  connection.on("error", onError);
  for (const queue of queues) await declare(queue);
  const stopping = new AbortController();
  const opening = shareQueues(queues, streams).map(async (share) => {
    const channel = await connection.createChannel();
    await channel.prefetch(PREFETCH);
    await consume(channel, share, options, stopping.signal);
  });
  await Promise.all(opening);
  return async () => {
    stopping.abort();
    await connection.close();
  };
}

async function consume(
  channel: Channel,
  queues: readonly string[],
  { onDelivered, onFinished }: WorkOptions,
  stopped: AbortSignal,
): Promise<void> {
  let taken = 0;
  let last: Message | undefined;
  const acknowledge = () => {
    const finished = taken;
    const newest = last;
    taken = 0;
    last = undefined;
    if (!newest || stopped.aborted) return;
    // Written, not confirmed: AMQP has no answer to it.
    channel.ack(newest, true);
    onFinished(finished);
  };
  for (const queue of queues) {
    await channel.consume(queue, (message) => {
      if (!message) return;
      if (!last) setImmediate(acknowledge);
      last = message;
      // Counted when it came first, in a round whose last acknowledgements its quorum queue lost with the connection.
      if (message.fields.redelivered) return;
      onDelivered?.(idIn(message.content));
      taken++;
    });
  }
}
