/**
 * Posts a job to a web hook; the answer decides what becomes of the job.
 *
 *   2xx                        completed, the answer's body and content type are the result
 *   429, 408, 425, 5xx         failed, to be tried again: at the time that Retry-After names, else by the retry policy
 *   other 4xx                  failed for good
 *   307, 308 to the same host  followed, at most 5 times
 *   3xx to another host        failed for good: the payload and the secrets of the hook are for this host only
 *   other 3xx                  failed, to be tried again: it is the address that is wrong, and not the job
 *   no whole answer            failed, to be tried again: TIMEOUT, CONNECT, CONNECTION_LOST, BAD_ANSWER
 *
 * A 2xx whose body is too long to be a result says all the same that the work is done: the job is completed without
 * result, and what is left of the body is not read. A 2xx that breaks off may be the end of a hook that died at its
 * work, so it is tried again.
 *
 * It stands on node:http, because fetch gives up after 300 s without headers, whatever its caller allows, and the
 * agents here are this hook's own: when it is closed, no connection is left.
 */
import { Agent, type IncomingMessage, request as requestByHttp } from "node:http";
import { request as requestByHttps, Agent as TlsAgent } from "node:https";
import { PermanentError, RetryLater, type WorkerJob } from "../client/index.ts";
import { showDuration } from "../setting-values.ts";
import { headersOf } from "./web-hook-headers.ts";
import type { HookTarget } from "./web-hook-target.ts";

/** The broker's default for a result. */
const RESULT_LIMIT_BYTES = 3 * 1024 * 1024;
/** What an answer that is no success may say; the rest of a longer one is not worth its way. */
const MESSAGE_LIMIT_BYTES = 4 * 1024;
/** The contract's limit on a payload's media type. */
const CONTENT_TYPE_LIMIT_BYTES = 255;
const REDIRECTS_LIMIT = 5;
/** The contract keeps no job waiting longer than a policy's longest backoff. */
const RETRY_AFTER_LIMIT_MS = 365 * 86_400_000;

/** The attempt failed and may be tried again. Its name becomes the type of the job's error: HTTP_503, TIMEOUT. */
export class HookFailed extends Error {
  constructor(type: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = type;
  }
}

/** What the hook answered when it succeeded. */
export type HookAnswer = {
  readonly body: Buffer;
  /** Empty: it named none. */
  readonly contentType: string;
};

export type WebHookOptions = {
  readonly target: HookTarget;
  /** For one post as a whole: connecting, redirects, and the last byte of the answer. */
  readonly timeoutMs: number;
  /** Told of an answer that could not be kept. */
  readonly warn: (text: string) => void;
};

type Post = { readonly headers: Readonly<Record<string, string>>; readonly body: Uint8Array };

export class WebHook {
  readonly #options: WebHookOptions;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #tlsAgent = new TlsAgent({ keepAlive: true });

  constructor(options: WebHookOptions) {
    this.#options = options;
  }

  /** Ends all connections. */
  close(): void {
    this.#agent.destroy();
    this.#tlsAgent.destroy();
  }

  /** Gives the result; throws HookFailed, RetryLater or PermanentError when the hook did not succeed. */
  async post(job: WorkerJob, signal: AbortSignal): Promise<HookAnswer> {
    signal.throwIfAborted();
    const { timeoutMs, target } = this.#options;
    const limit = new AbortController();
    const onAbort = () => limit.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = setTimeout(() => {
      limit.abort(
        new HookFailed("TIMEOUT", `no whole answer from ${target.address.origin} within ${showDuration(timeoutMs)}`),
      );
    }, timeoutMs);
    try {
      return await this.#judge(job, await this.#follow(job, limit.signal));
    } catch (error) {
      if (error instanceof HookFailed || error instanceof RetryLater || error instanceof PermanentError) throw error;
      // A request that was aborted fails in words of its own; why it was aborted says more.
      throw limit.signal.aborted ? limit.signal.reason : lost(error, target.address);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** The answer that is no redirect to be followed. */
  async #follow(job: WorkerJob, signal: AbortSignal): Promise<IncomingMessage> {
    const body = job.payload.bytes();
    const post = { headers: { ...headersOf(job, body), ...this.#options.target.headers }, body };
    let { address } = this.#options.target;
    for (let followed = 0; ; followed++) {
      const answer = await this.#send(address, post, signal);
      const next = redirectOf(answer, address);
      if (next === undefined) return answer;
      await read(answer, MESSAGE_LIMIT_BYTES);
      signal.throwIfAborted();
      if (followed === REDIRECTS_LIMIT) {
        throw new HookFailed("TOO_MANY_REDIRECTS", `the hook redirected more than ${REDIRECTS_LIMIT} times`);
      }
      address = next;
    }
  }

  /**
   * A hook may close a connection that was idle at the moment when the next post is written to it. Such a post is sent
   * again, once, on a connection of its own, because nothing is wrong with the job or the hook.
   */
  #send(address: URL, post: Post, signal: AbortSignal, isRepeated = false): Promise<IncomingMessage> {
    const isTls = address.protocol === "https:";
    const agent = isRepeated ? false : isTls ? this.#tlsAgent : this.#agent;
    const { headers, body } = post;
    return new Promise((resolve, reject) => {
      let answered = false;
      const request = (isTls ? requestByHttps : requestByHttp)(address, { method: "POST", headers, agent, signal });
      request.on("response", (answer) => {
        answered = true;
        resolve(answer);
      });
      request.on("error", (error) => {
        // What happens to the answer, its reader learns.
        if (answered) return;
        const wasIdle = request.reusedSocket && isReset(error) && !signal.aborted && !isRepeated;
        if (wasIdle) resolve(this.#send(address, post, signal, true));
        else reject(error);
      });
      request.end(body);
    });
  }

  async #judge(job: WorkerJob, answer: IncomingMessage): Promise<HookAnswer> {
    const status = answer.statusCode ?? 0;
    if (status < 200 || status > 299) throw await refusal(answer, status);
    const { bytes, ended, cause } = await read(answer, RESULT_LIMIT_BYTES);
    if (ended === "broken") throw cause;
    if (ended === "whole") return { body: bytes, contentType: contentTypeOf(answer) };
    const { queue, id } = job;
    this.#options.warn(
      `${queue} ${id}: the hook's answer is longer than ${RESULT_LIMIT_BYTES} bytes, the limit of a result: completed without`,
    );
    return { body: Buffer.alloc(0), contentType: "" };
  }
}

/** As far as a result can carry it: an odd header is no reason to refuse work that was done. */
function contentTypeOf({ headers }: IncomingMessage): string {
  const type = headers["content-type"] ?? "";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  return Buffer.byteLength(type) > CONTENT_TYPE_LIMIT_BYTES || /[\u0000-\u001f\u007f-\u009f]/.test(type) ? "" : type;
}

/**
 * Where to post again; undefined for an answer that is to be judged. 301, 302 and 303 are not followed on the same host
 * either: they turn a post into a GET.
 */
function redirectOf(answer: IncomingMessage, address: URL): URL | undefined {
  const status = answer.statusCode ?? 0;
  const { location } = answer.headers;
  if (status < 300 || status > 399 || location === undefined) return undefined;
  const next = URL.parse(location, address.href);
  if (next === null) return undefined;
  if (!isSameHost(address, next)) {
    answer.destroy();
    const to = next.origin === "null" ? next.protocol : next.origin;
    const message = `the hook redirects (${status}) from ${address.origin} to ${to}: a post never follows to another host`;
    throw new PermanentError(message, { type: "REDIRECT_TO_OTHER_HOST" });
  }
  if (status !== 307 && status !== 308) return undefined;
  // The hook's own credentials go along; others that the answer names do not.
  next.username = "";
  next.password = "";
  return next;
}

/** The same scheme, name and port, or the step from http to https at their own ports. */
export function isSameHost(from: URL, to: URL): boolean {
  if (from.origin === to.origin) return true;
  const isUpgrade = from.protocol === "http:" && to.protocol === "https:";
  return isUpgrade && from.hostname === to.hostname && from.port === "" && to.port === "";
}

async function refusal(answer: IncomingMessage, status: number): Promise<Error> {
  const { bytes } = await read(answer, MESSAGE_LIMIT_BYTES);
  // A stream's decoder leaves out the part of a character that the cut may have left at the end.
  const said = new TextDecoder().decode(bytes, { stream: true }).trim();
  const name = `${status} ${answer.statusMessage ?? ""}`.trim();
  const type = `HTTP_${status}`;
  if (status >= 300 && status <= 399) {
    return new HookFailed(type, `the hook answered ${name}: of redirects, only 307 and 308 keep a post a post`);
  }
  const message = said === "" ? `the hook answered ${name}` : said;
  if (status >= 400 && status <= 499 && ![408, 425, 429].includes(status)) return new PermanentError(message, { type });
  const retryAfterMs = parseRetryAfter(answer.headers["retry-after"], Date.now());
  return retryAfterMs === undefined ? new HookFailed(type, message) : new RetryLater(retryAfterMs, message, { type });
}

/** Seconds, or a date in one of HTTP's three forms; undefined for what is neither. A time that has passed is now. */
export function parseRetryAfter(text: string | undefined, nowMs: number): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d+$/.test(text)) return Math.min(Number(text) * 1_000, RETRY_AFTER_LIMIT_MS);
  if (!/^[A-Z][a-z]{2,8},? .*\d\d:\d\d:\d\d/.test(text)) return undefined;
  const atMs = Date.parse(text.endsWith("GMT") ? text : `${text} GMT`);
  return Number.isNaN(atMs) ? undefined : Math.min(Math.max(atMs - nowMs, 0), RETRY_AFTER_LIMIT_MS);
}

type Read = {
  /** At most `limitBytes`. */
  readonly bytes: Buffer;
  /** overlong: there was more, which is not read; the connection is closed. */
  readonly ended: "whole" | "overlong" | "broken";
  readonly cause?: unknown;
};

async function read(answer: IncomingMessage, limitBytes: number): Promise<Read> {
  const chunks: Buffer[] = [];
  let size = 0;
  const bytes = () => Buffer.concat(chunks).subarray(0, limitBytes);
  try {
    for await (const chunk of answer) {
      chunks.push(chunk);
      size += chunk.length;
      // Leaving the loop destroys the answer with its connection.
      if (size > limitBytes) return { bytes: bytes(), ended: "overlong" };
    }
    return { bytes: bytes(), ended: "whole" };
  } catch (cause) {
    return { bytes: bytes(), ended: "broken", cause };
  }
}

function lost(error: unknown, { origin }: URL): HookFailed {
  const code = codeOf(error);
  // The message of a failure at several addresses of one name is empty.
  const detail = (error instanceof Error && error.message) || code || String(error);
  const options = { cause: error };
  if (code.startsWith("HPE_")) return new HookFailed("BAD_ANSWER", `${origin} answered no HTTP: ${detail}`, options);
  if (isReset(error)) {
    return new HookFailed("CONNECTION_LOST", `${origin} closed the connection before its answer was whole`, options);
  }
  return new HookFailed("CONNECT", `cannot reach ${origin}: ${detail}`, options);
}

function isReset(error: unknown): boolean {
  return ["ECONNRESET", "EPIPE"].includes(codeOf(error));
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}
