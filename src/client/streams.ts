/**
 * A worker's streams: one as a rule; a second only while one drains.
 *
 * A stream that is lost, or drains, is replaced: the new one takes the jobs in hand along, and from then on its broker
 * keeps their leases. The credit of the new one is what is free, and what it takes along; while jobs of other streams are
 * still in hand, they take theirs, and when they end, the stream is told so.
 *
 * Lost streams are replaced with exponential backoff, which starts anew only after a stream that lasted. One that drains
 * is no failure: it is replaced at once, and where that brings the worker to a broker that drains as well, or the same one
 * again, soon.
 *
 * A worker that stops says quiet. A stream that is lost after that is replaced by a quiet one, where it had jobs that
 * still run; so their leases are kept, and a job that is cancelled is still told so at once.
 */
import { type BackoffOptions, backoffMs } from "./backoff.ts";
import type { BatonClient } from "./client.ts";
import { BatonClientError, isFatal } from "./error.ts";
import { WorkStream, type WorkStreamListener, type WorkStreamOptions } from "./work-stream.ts";

/** A stream that lived so long shows that all is well again: the backoff starts anew. */
const LASTED_MS = 5_000;
/** The longest wait while brokers drain: another one is there already, or will be in a moment. */
const DRAINING_LIMIT_MS = 1_000;
/** A broker says at once that it is quiet, or ends a stream that has finished: one that does not is lost. */
const ANSWER_LIMIT_MS = 2_000;

export type StreamsOptions = {
  readonly client: BatonClient;
  readonly subscription: WorkStreamOptions["subscription"];
  readonly silenceLimitMs: number;
  readonly backoff: BackoffOptions;
  /** The leases of jobs in hand that another stream can take along: their own has ended, or is about to. */
  readonly resumable: () => readonly string[];
  readonly listener: Omit<WorkStreamListener, "onDraining">;
  readonly onError: (error: unknown) => void;
  readonly onFatal: (error: BatonClientError) => void;
};

export class Streams {
  readonly #options: StreamsOptions;
  readonly #listener: WorkStreamListener;
  /** All that have not ended. */
  readonly #streams = new Set<WorkStream>();
  /** The one of them that does not drain. */
  #current: WorkStream | undefined;
  #isRunning = false;
  #isQuiet = false;
  #retry: NodeJS.Timeout | undefined;
  #losses = 0;
  /** Brokers that have refused a stream because they drain, since one was open. */
  #refusals = 0;

  constructor(options: StreamsOptions) {
    this.#options = options;
    this.#listener = {
      ...options.listener,
      onDraining: () => {
        this.#current = undefined;
        this.#refusals = 0;
        this.#replaceSoon(0);
      },
      onEnded: (stream, error) => this.#onEnded(stream, error),
    };
  }

  start(): void {
    this.#isRunning = true;
    this.#open();
  }

  /** The credit may be another, or there are reports. */
  update(): void {
    this.#current?.update();
  }

  /** Resolves when no stream will bring jobs any more. */
  async quiet(): Promise<void> {
    this.#isQuiet = true;
    const stream = this.#current;
    if (stream) await this.#orCancel(stream, stream.quiet(), "the broker has not answered `quiet`");
  }

  /** Ends the streams that are there, so that what they have not answered is said elsewhere. */
  cancel(): void {
    for (const stream of this.#streams) stream.cancel("STREAM_SILENT", "the broker has not answered releases in time");
  }

  /** Nothing is left to be said. Resolves when all streams have ended. */
  async finish(): Promise<void> {
    this.#isRunning = false;
    clearTimeout(this.#retry);
    const ends = [...this.#streams].map((stream) => this.#orCancel(stream, stream.finish(), ""));
    await Promise.all(ends);
  }

  #open(): void {
    if (!this.#isRunning || this.#retry !== undefined || this.#current !== undefined) return;
    const { client, subscription, silenceLimitMs } = this.#options;
    const resumed = this.#options.resumable();
    if (this.#isQuiet && resumed.length === 0) return;
    const stream = new WorkStream({
      client,
      subscription,
      resumed,
      isQuiet: this.#isQuiet,
      silenceLimitMs,
      listener: this.#listener,
    });
    this.#current = stream;
    this.#streams.add(stream);
    stream.open();
  }

  async #orCancel(stream: WorkStream, answer: Promise<void>, why: string): Promise<void> {
    const timer = setTimeout(() => stream.cancel("STREAM_SILENT", `${why} for ${ANSWER_LIMIT_MS} ms`), ANSWER_LIMIT_MS);
    await answer;
    clearTimeout(timer);
  }

  #onEnded(stream: WorkStream, error: unknown): void {
    const isLost = stream === this.#current;
    if (isLost) this.#current = undefined;
    this.#streams.delete(stream);
    this.#options.listener.onEnded(stream, error);
    if (!this.#isRunning || !isLost) return;
    const end = error ?? new BatonClientError("UNAVAILABLE", "the broker ended the stream", { reason: "STREAM_ENDED" });
    const isKnown = end instanceof BatonClientError;
    if (isKnown && isFatal(end)) {
      this.#isRunning = false;
      this.#options.onFatal(end);
      return;
    }
    this.#options.onError(end);
    const leastMs = (isKnown ? end.retryAfterMs : undefined) ?? 0;
    if (isKnown && end.reason === "DRAINING") this.#replaceSoon(leastMs);
    else this.#replaceLost(stream, leastMs);
  }

  #replaceLost(lost: WorkStream, leastMs: number): void {
    this.#losses = lost.lastedMs >= LASTED_MS ? 1 : this.#losses + 1;
    this.#openAfter(Math.max(leastMs, backoffMs(this.#losses, this.#options.backoff)));
  }

  #replaceSoon(leastMs: number): void {
    const { initialMs, maxMs } = this.#options.backoff;
    this.#refusals += 1;
    const limits = { initialMs, maxMs: Math.min(maxMs, DRAINING_LIMIT_MS) };
    this.#openAfter(Math.max(leastMs, backoffMs(this.#refusals, limits)));
  }

  #openAfter(waitMs: number): void {
    if (!this.#isRunning || this.#retry !== undefined) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#open();
    }, waitMs);
  }
}
