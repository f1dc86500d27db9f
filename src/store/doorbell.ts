/**
 * The doorbell: how a broker learns that a queue may have work, without asking.
 *
 * 1. Whatever makes a job READY pushes one token onto the queue's `wake` list, if it is empty.
 * 2. A broker with waiting workers sits in one BLPOP on the `wake` lists of all queues that it listens to, however
 *    many. The token says "there may be work"; it never carries a job, so losing one loses nothing.
 * 3. A ring takes the queue off the list: the hub works on it, and listens again when the queue is empty. Meanwhile the
 *    tokens of others are taken without waiting, twice as many at a time for as long as there are so many. (With one
 *    BLPOP for each ring, 500 jobs/s in 100 queues waited 50 ms and more on a busy machine, half of them; so 4 to 10.)
 * 4. Beside the queues' lists stands one of the broker's own. A push there interrupts the wait, so that a queue which
 *    the hub has just begun to listen to is waited for at once. One that the hub only looked into meanwhile is still
 *    waited for: an idle queue costs no interrupt with each look.
 * 5. BLPOP ends by itself after a while. If even that does not come, the connection is deaf (half open, or a server
 *    that forgot us over a failover): the watchdog throws it away and builds a new one.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { Redis } from "ioredis";
import type { Logger } from "../model/log.ts";
import { interruptKey, queueKey } from "./keys.ts";

export type DoorbellOptions = {
  readonly namespace: string;
  readonly brokerId: string;
  /** Makes a connection that is used for nothing else. */
  readonly connect: () => Redis;
  /** For the interrupting push. */
  readonly commands: Redis;
  readonly log: Logger;
  /** Somebody rang. What it returns is awaited for a moment: it lets the hub look before the next wait begins. */
  readonly onRing: (queue: string) => Promise<void>;
  /** How long one BLPOP lasts. */
  readonly waitMs?: number;
};

/**
 * Long enough that an idle broker hardly speaks to Redis, short enough to notice a deaf connection soon; and no multiple
 * of the hub's 1 s, or the next wait would often begin while the hub looks, without its queues, and be interrupted.
 */
const WAIT_MS = 5_300;
/** How much later than asked a BLPOP may answer before its connection counts as deaf. */
const DEAF_AFTER_MS = 2_000;
const RETRY_MS = 200;
/** How long a ring may hold up the waiting for others. */
const LOOK_MS = 2;
/** Tokens taken at once, at most; then the interrupting one gets its turn. */
const MOST_AT_ONCE = 32;
/** The interrupting token of a broker that died must not stay for ever. */
const INTERRUPT_TTL_SECONDS = 60;

export class Doorbell {
  readonly #options: DoorbellOptions;
  readonly #interruptKey: string;
  /** wake key → queue, of the queues listened to. */
  readonly #listening = new Map<string, string>();
  readonly #stop = new AbortController();
  #connection: Redis | undefined;
  #loop: Promise<void> | undefined;
  /** What the BLPOP in flight waits for, undefined when there is none; and its end has been asked for. */
  #waitingFor: ReadonlySet<string> | undefined;
  #interrupted = false;

  constructor(options: DoorbellOptions) {
    this.#options = options;
    this.#interruptKey = interruptKey(options.namespace, options.brokerId);
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** Ends the wait and its connection. Safe to call twice, and before start. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#connection?.disconnect();
    await this.#loop;
  }

  /** Until the next ring of this queue. */
  listen(queue: string): void {
    const key = queueKey(this.#options.namespace, queue, "wake");
    if (this.#listening.has(key)) return;
    this.#listening.set(key, queue);
    if (!this.#waitingFor?.has(key)) this.#interrupt();
  }

  ignore(queue: string): void {
    this.#listening.delete(queueKey(this.#options.namespace, queue, "wake"));
  }

  #interrupt(): void {
    if (!this.#waitingFor || this.#interrupted) return;
    this.#interrupted = true;
    this.#options.commands
      .pipeline()
      .lpush(this.#interruptKey, "1")
      .expire(this.#interruptKey, INTERRUPT_TTL_SECONDS)
      .exec()
      .catch(() => undefined); // Redis is away: then the wait is about to end, too.
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    while (!this.#stop.signal.aborted) {
      try {
        await this.#waitOnce(await this.#connected());
      } catch (error) {
        this.#connection?.disconnect();
        this.#connection = undefined;
        if (this.#stop.signal.aborted) break;
        log.warn("doorbell: connecting anew", { error: error instanceof Error ? error.message : String(error) });
        await delay(RETRY_MS, undefined, { signal: this.#stop.signal }).catch(() => undefined);
      }
    }
    this.#connection?.disconnect();
  }

  async #connected(): Promise<Redis> {
    if (this.#connection) return this.#connection;
    this.#connection = this.#options.connect();
    await this.#connection.connect();
    return this.#connection;
  }

  async #waitOnce(connection: Redis): Promise<void> {
    const waitMs = this.#options.waitMs ?? WAIT_MS;
    const wakeKeys = [...this.#listening.keys()];
    this.#waitingFor = new Set(wakeKeys);
    this.#interrupted = false;
    let rung: [string, string | null] | null;
    try {
      const reply = connection.blpop(this.#interruptKey, ...wakeKeys, waitMs / 1_000);
      rung = await answerOf(reply, connection, waitMs + DEAF_AFTER_MS);
    } finally {
      this.#waitingFor = undefined;
    }
    if (!rung || rung[0] === this.#interruptKey) return;
    const looks = [this.#rang(rung[0])];
    for (let most = 1; most <= MOST_AT_ONCE && this.#listening.size > 0; most *= 2) {
      const keys = await this.#takeMore(connection, most);
      for (const key of keys) looks.push(this.#rang(key));
      if (keys.length < most) break;
    }
    await Promise.race([Promise.all(looks), delay(LOOK_MS, undefined, { ref: false })]);
  }

  /** Settles when the hub has looked. Never rejects: several are under way, and none of them is awaited for long. */
  async #rang(key: string): Promise<void> {
    const queue = this.#listening.get(key);
    if (queue === undefined) {
      // The hub lost interest after the wait began: the token is for another broker. When Redis is away, it is lost.
      await this.#options.commands.lpush(key, "1").catch(() => undefined);
      return;
    }
    this.#listening.delete(key);
    await this.#options.onRing(queue);
  }

  /** Takes tokens that are there, so many at most; their keys. */
  async #takeMore(connection: Redis, most: number): Promise<string[]> {
    const wakeKeys = [...this.#listening.keys()];
    const pipeline = connection.pipeline();
    for (let i = 0; i < most; i++) pipeline.lmpop(wakeKeys.length, ...wakeKeys, "LEFT");
    const replies = await answerOf(pipeline.exec(), connection, DEAF_AFTER_MS);
    return (replies ?? []).flatMap(([error, taken]) => {
      if (error) throw error;
      return taken === null ? [] : [(taken as [string, string[]])[0]];
    });
  }
}

/**
 * Rejects when the connection closes, for ioredis leaves a command that was in flight unsettled, and when there is no
 * answer in time; the connection is then thrown away, and with it the answer.
 */
async function answerOf<T>(answer: Promise<T>, connection: Redis, limitMs: number): Promise<T> {
  const { promise: trouble, reject } = Promise.withResolvers<never>();
  const onClose = () => reject(new Error("the connection was closed"));
  const timer = setTimeout(() => reject(new Error(`no answer to BLPOP within ${limitMs} ms`)), limitMs);
  connection.once("close", onClose);
  answer.catch(() => undefined);
  try {
    return await Promise.race([answer, trouble]);
  } finally {
    clearTimeout(timer);
    connection.off("close", onClose);
  }
}
