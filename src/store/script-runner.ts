/** Runs scripts by their SHA, and again by their text when Redis does not know them (new server, SCRIPT FLUSH). */
import { setTimeout as delay } from "node:timers/promises";
import type { Redis } from "ioredis";
import { storeFull, storeUnavailable } from "../model/errors.ts";
import { QUEUE_PARTS, queueKey, queuePrefix } from "./keys.ts";
import { loadScripts, type ScriptName } from "./scripts.ts";

/** Bytes as Buffer: ioredis would turn any other Uint8Array into text. */
export type ScriptArgument = string | number | Buffer;

/** A reply as Redis gives it: integers as numbers, strings as Buffers. */
export type Reply = number | Buffer | null | Reply[];

export type ScriptRunnerOptions = {
  readonly redis: Redis;
  /** How long a call may take, the loss of its connection included. */
  readonly timeoutMs: number;
  readonly namespace: string;
  /** What lua/lib/queue.lua calls defaults. */
  readonly defaults: object;
  /** For tests: the time that scripts see, in ms; Redis's own when not given. */
  readonly clock?: (() => number) | undefined;
};

/** As many queues as a broker keeps the ready-made key arguments of; beyond that they are made again. */
const MAX_CACHED_QUEUES = 10_000;

const RECONNECT_POLL_MS = 20;

class ConnectionLost extends Error {
  override readonly message = "the connection to Redis was lost";
}

/** What Redis says when it is there but cannot work now. */
const NOT_NOW = /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MISCONF|BUSY|NOREPLICAS)/;

export class ScriptRunner {
  readonly #redis: Redis;
  readonly #namespace: string;
  readonly #defaults: string;
  readonly #clock: (() => number) | undefined;
  readonly #scripts = loadScripts();
  readonly #timeoutMs: number;
  /** Of the calls in flight: what ends them when the connection is lost, of which ioredis says nothing. */
  readonly #inFlight = new Set<() => void>();
  readonly #headers = new Map<string, { keys: readonly string[]; prefix: string }>();

  constructor({ redis, timeoutMs, namespace, defaults, clock }: ScriptRunnerOptions) {
    this.#redis = redis;
    this.#namespace = namespace;
    this.#defaults = JSON.stringify(defaults);
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    redis.on("close", () => {
      for (const lose of this.#inFlight) lose();
    });
  }

  async run(name: ScriptName, queue: string, args: readonly ScriptArgument[]): Promise<Reply> {
    const { keys, prefix } = this.#header(queue);
    const time = this.#clock?.().toFixed(0) ?? "";
    const rest = [keys.length, ...keys, time, queue, prefix, this.#defaults, ...args];
    const endsAt = performance.now() + this.#timeoutMs;
    try {
      return await this.#attempt(name, rest);
    } catch (error) {
      // The script may have run or not; it is safe to run twice.
      if (!(error instanceof ConnectionLost) || !(await this.#isBackBefore(endsAt))) throw asBatonError(error);
    }
    return await this.#attempt(name, rest).catch((error: unknown) => Promise.reject(asBatonError(error)));
  }

  async #attempt(name: ScriptName, rest: readonly ScriptArgument[]): Promise<Reply> {
    const { sha, source } = this.#scripts[name];
    try {
      return await this.#call("EVALSHA", sha, rest);
    } catch (error) {
      if (!isReply(error, "NOSCRIPT")) throw error;
    }
    return await this.#call("EVAL", source, rest);
  }

  #call(command: "EVAL" | "EVALSHA", script: string, rest: readonly ScriptArgument[]): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const lose = () => {
        this.#inFlight.delete(lose);
        reject(new ConnectionLost());
      };
      this.#inFlight.add(lose);
      this.#redis.callBuffer(command, script, ...rest).then(
        (reply) => {
          this.#inFlight.delete(lose);
          resolve(reply as Reply);
        },
        (error: unknown) => {
          this.#inFlight.delete(lose);
          reject(error);
        },
      );
    });
  }

  async #isBackBefore(endsAt: number): Promise<boolean> {
    while (this.#redis.status !== "ready") {
      if (performance.now() >= endsAt || this.#redis.status === "end") return false;
      await delay(RECONNECT_POLL_MS);
    }
    return true;
  }

  #header(queue: string): { keys: readonly string[]; prefix: string } {
    let header = this.#headers.get(queue);
    if (!header) {
      if (this.#headers.size >= MAX_CACHED_QUEUES) this.#headers.clear();
      const keys = QUEUE_PARTS.map((part) => queueKey(this.#namespace, queue, part));
      header = { keys, prefix: queuePrefix(this.#namespace, queue) };
      this.#headers.set(queue, header);
    }
    return header;
  }
}

function isReply(error: unknown, code: string): boolean {
  return error instanceof Error && error.message.startsWith(code);
}

/**
 * What a caller can do something about; the rest is a bug and stays what it is. An ioredis error may carry the
 * command's arguments, and with them payloads, so it never goes on as a cause.
 */
export function asBatonError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  if (isReply(error, "OOM")) return storeFull();
  const isReplyError = error.name === "ReplyError";
  if (!isReplyError || NOT_NOW.test(error.message)) return storeUnavailable();
  return new Error(`Redis refused a script: ${error.message}`);
}
