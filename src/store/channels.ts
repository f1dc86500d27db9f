/**
 * Pub/sub on one connection, shared by all who listen in this broker.
 *
 * 1. The first who follows a channel has it subscribed; the others share that. When the last has left, the subscription
 *    stays for a while, because whoever submits and awaits in a loop comes back at once.
 * 2. Messages are live only: what is published while the connection is away is missed. When it is back and every
 *    channel is subscribed again, `onGap` says so, and each listener looks for itself at what it may have missed.
 * 3. Redis answers in order: once `sync()` has resolved, every message that was published before it was called has
 *    been delivered here. So a look into Redis and what was heard can be put into one order.
 * 4. A subscriber hears nothing for as long as nothing happens, so nothing tells silence from a dead connection: the
 *    watchdog asks at intervals, and replaces a connection that does not answer.
 *
 * ioredis could subscribe again by itself, but does not say when it has, and leaves what was in flight unsettled.
 */
import type { Redis } from "ioredis";
import { storeUnavailable } from "../model/errors.ts";
import type { Logger } from "../model/log.ts";

export type Following = {
  /**
   * Once it has resolved, nothing that is published is missed, until the connection is lost, with which it becomes
   * another promise. Rejects when Redis refuses the channel.
   */
  readonly listening: Promise<void>;
  /** Safe to call twice. */
  unfollow(): void;
};

type Listener = (text: string) => void;

type Channel = {
  readonly listeners: Set<Listener>;
  listening: PromiseWithResolvers<void>;
  state: "wanted" | "listening" | "refused";
  /** Since when nobody listens, by performance.now(). */
  idleSince: number | undefined;
};

export type ChannelsOptions = {
  /** Used for nothing else, and as connectSubscriber makes it. */
  readonly redis: Redis;
  readonly log: Logger;
  readonly tickMs?: number;
  readonly lingerMs?: number;
};

/** How often the connection is asked whether it lives; it has as long to answer. */
const TICK_MS = 5_000;
const LINGER_MS = 10_000;
/** More channels than these that nobody listens to are not kept. */
const MAX_IDLE = 1_000;
/** Channels in one command. */
const AT_ONCE = 500;

export class Channels {
  readonly #redis: Redis;
  readonly #log: Logger;
  readonly #tickMs: number;
  readonly #lingerMs: number;
  readonly #channels = new Map<string, Channel>();
  readonly #idle = new Set<string>();
  readonly #gapListeners: (() => void)[] = [];
  /** Of the PINGs in flight: what ends them when the connection is lost, of which ioredis says nothing. */
  readonly #pings = new Set<PromiseWithResolvers<void>>();
  #nextPing: PromiseWithResolvers<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Counts connections, so that an answer of an earlier one is not taken for one of this. */
  #connection = 0;

  constructor({ redis, log, tickMs = TICK_MS, lingerMs = LINGER_MS }: ChannelsOptions) {
    this.#redis = redis;
    this.#log = log;
    this.#tickMs = tickMs;
    this.#lingerMs = lingerMs;
    redis.on("ready", () => void this.#subscribeAll());
    redis.on("close", () => this.#lost());
    redis.on("message", (channel: string, text: string) => this.#deliver(channel, text));
  }

  start(): void {
    this.#timer ??= setInterval(() => this.#tick(), this.#tickMs);
  }

  /** The connection is its maker's to end. Safe to call twice, and before start. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** The connection was away and is back: messages may have been missed, and from now on come again. */
  onGap(listener: () => void): void {
    this.#gapListeners.push(listener);
  }

  follow(name: string, listener: Listener): Following {
    let channel = this.#channels.get(name);
    if (!channel || channel.state === "refused") {
      channel = {
        listeners: channel?.listeners ?? new Set(),
        listening: deferred(),
        state: "wanted",
        idleSince: undefined,
      };
      this.#channels.set(name, channel);
      if (this.#redis.status === "ready") void this.#subscribe([name]);
    }
    channel.idleSince = undefined;
    this.#idle.delete(name);
    // Its own function, so that the same listener may be given twice.
    const own: Listener = (text) => listener(text);
    const { listeners } = channel;
    listeners.add(own);
    const followed = channel;
    return {
      get listening() {
        return followed.listening.promise;
      },
      unfollow: () => {
        if (listeners.delete(own) && listeners.size === 0) this.#leave(name);
      },
    };
  }

  /** Resolves when everything that was published before this call has been delivered; rejects when Redis is away. */
  sync(): Promise<void> {
    if (!this.#nextPing) {
      // What asks in one turn of the event loop shares a PING.
      const ping = deferred();
      this.#nextPing = ping;
      setImmediate(() => {
        this.#nextPing = undefined;
        this.#ping(ping);
      });
    }
    return this.#nextPing.promise;
  }

  #ping(ping: PromiseWithResolvers<void>): void {
    if (this.#redis.status !== "ready") {
      ping.reject(storeUnavailable());
      return;
    }
    this.#pings.add(ping);
    const timer = setTimeout(() => this.#redis.disconnect(true), this.#tickMs);
    ping.promise
      .catch(() => undefined)
      .finally(() => {
        clearTimeout(timer);
        this.#pings.delete(ping);
      });
    this.#redis.ping().then(
      () => ping.resolve(),
      () => ping.reject(storeUnavailable()),
    );
  }

  #tick(): void {
    const now = performance.now();
    const old = [...this.#idle].filter((name) => now - (this.#channels.get(name)?.idleSince ?? now) >= this.#lingerMs);
    this.#drop(old);
    // A PING that is late ends the connection by its own timer.
    if (this.#channels.size > 0 && this.#redis.status === "ready") this.sync().catch(() => undefined);
  }

  #leave(name: string): void {
    const channel = this.#channels.get(name);
    if (!channel || channel.listeners.size > 0) return;
    channel.idleSince = performance.now();
    if (this.#idle.size >= MAX_IDLE || channel.state !== "listening") this.#drop([name]);
    else this.#idle.add(name);
  }

  #drop(names: readonly string[]): void {
    for (const name of names) {
      this.#channels.delete(name);
      this.#idle.delete(name);
    }
    if (this.#redis.status !== "ready") return;
    for (let i = 0; i < names.length; i += AT_ONCE) {
      this.#redis.unsubscribe(...names.slice(i, i + AT_ONCE)).catch(() => undefined);
    }
  }

  #lost(): void {
    this.#connection += 1;
    for (const ping of [...this.#pings]) ping.reject(storeUnavailable());
    for (const name of this.#idle) this.#channels.delete(name);
    this.#idle.clear();
    for (const channel of this.#channels.values()) {
      if (channel.state !== "wanted") channel.listening = deferred();
      channel.state = "wanted";
    }
  }

  async #subscribeAll(): Promise<void> {
    const connection = this.#connection;
    const wanted = [...this.#channels].filter(([, { state }]) => state === "wanted").map(([name]) => name);
    await this.#subscribe(wanted);
    if (connection !== this.#connection) return;
    for (const listener of this.#gapListeners) listener();
  }

  /** Settles when all have been confirmed or refused; not when the connection is lost, after which all begins anew. */
  async #subscribe(names: readonly string[]): Promise<void> {
    const connection = this.#connection;
    const pieces: Promise<void>[] = [];
    for (let i = 0; i < names.length; i += AT_ONCE) {
      const piece = names.slice(i, i + AT_ONCE);
      const subscribed = this.#redis.subscribe(...piece).then(
        () => {
          if (connection === this.#connection) this.#confirm(piece);
        },
        (error: Error) => {
          if (error.name === "ReplyError") this.#refuse(piece, error);
        },
      );
      pieces.push(subscribed);
    }
    await Promise.all(pieces);
  }

  #confirm(names: readonly string[]): void {
    for (const name of names) {
      const channel = this.#channels.get(name);
      if (!channel) continue;
      channel.state = "listening";
      channel.listening.resolve();
    }
  }

  /** By its access rules. Who follows the channel from now on has it asked for anew. */
  #refuse(names: readonly string[], error: Error): void {
    this.#log.warn("a channel of Redis cannot be followed", { channel: names[0], error: error.message });
    for (const name of names) {
      const channel = this.#channels.get(name);
      if (!channel) continue;
      channel.state = "refused";
      channel.listening.reject(storeUnavailable());
    }
  }

  /** Anybody may publish on a channel: what is not ours must not end the broker. */
  #deliver(name: string, text: string): void {
    const channel = this.#channels.get(name);
    if (!channel) return;
    for (const listener of channel.listeners) {
      try {
        listener(text);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        this.#log.warn("a message was not understood", { channel: name, error: message });
      }
    }
  }
}

/** Its rejection is nobody's trouble when nobody waits for it. */
function deferred(): PromiseWithResolvers<void> {
  const made = Promise.withResolvers<void>();
  made.promise.catch(() => undefined);
  return made;
}
