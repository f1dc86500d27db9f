/** Runs scripts by their SHA, and again by their text when Redis does not know them (new server, SCRIPT FLUSH). */
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
  readonly namespace: string;
  /** What lua/lib/queue.lua calls defaults. */
  readonly defaults: object;
  /** For tests: the time that scripts see, in ms; Redis's own when not given. */
  readonly clock?: (() => number) | undefined;
};

/** As many queues as a broker keeps the ready-made key arguments of; beyond that they are made again. */
const MAX_CACHED_QUEUES = 10_000;

/** What Redis says when it is there but cannot work now. */
const NOT_NOW = /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MISCONF|BUSY|NOREPLICAS)/;

export class ScriptRunner {
  readonly #redis: Redis;
  readonly #namespace: string;
  readonly #defaults: string;
  readonly #clock: (() => number) | undefined;
  readonly #scripts = loadScripts();
  readonly #headers = new Map<string, { keys: readonly string[]; prefix: string }>();

  constructor({ redis, namespace, defaults, clock }: ScriptRunnerOptions) {
    this.#redis = redis;
    this.#namespace = namespace;
    this.#defaults = JSON.stringify(defaults);
    this.#clock = clock;
  }

  async run(name: ScriptName, queue: string, args: readonly ScriptArgument[]): Promise<Reply> {
    const { keys, prefix } = this.#header(queue);
    const time = this.#clock?.().toFixed(0) ?? "";
    const rest = [keys.length, ...keys, time, queue, prefix, this.#defaults, ...args];
    const { sha, source } = this.#scripts[name];
    try {
      return await this.#call("EVALSHA", sha, rest);
    } catch (error) {
      if (!isReply(error, "NOSCRIPT")) throw asBatonError(error);
    }
    try {
      return await this.#call("EVAL", source, rest);
    } catch (error) {
      throw asBatonError(error);
    }
  }

  async #call(command: "EVAL" | "EVALSHA", script: string, rest: readonly ScriptArgument[]): Promise<Reply> {
    return (await this.#redis.callBuffer(command, script, ...rest)) as Reply;
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
