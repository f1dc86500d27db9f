/**
 * A worker's streams: one as a rule, a few for a while after a stream was lost.
 *
 * A stream: opening ──started──► open ──draining──► draining ──► ended, and from every state to ended when it breaks.
 *
 * The sum of the credit of all streams that can bring jobs and of the jobs still in hand from streams that cannot
 * is never more than the worker's concurrency. A new stream opens at once with the credit that is free, and takes the
 * jobs of the lost one along: from then on its broker keeps their leases, and they are part of its credit. Where jobs in
 * hand stay behind (they were being released, or were pulled), another stream brings their credit back when they have
 * ended: as soon as that is half of the concurrency, or all.
 *
 * Lost streams are replaced with exponential backoff, which starts anew only after a stream that lasted.
 */
import { type BackoffOptions, backoffMs } from "./backoff.ts";
import type { BatonClient } from "./client.ts";
import { BatonClientError, isFatal } from "./error.ts";
import type { SubscribeInput } from "./input.ts";
import type { SubscribeEvent } from "./output.ts";

/** A stream that lived so long shows that all is well again: the backoff starts anew. */
const LASTED_MS = 5_000;

export type Stream = {
  readonly credit: number;
  /** The leases that it has taken along when it is open. */
  readonly resumed: readonly string[];
  readonly abort: AbortController;
  readonly watchdog: NodeJS.Timeout;
  state: "opening" | "open" | "draining" | "ended";
  openedAt: number;
  /** The worker has more than it can take; it does not read on for a while. */
  paused: boolean;
  /** As the broker says in `started`. */
  leaseMs: number;
  graceMs: number;
};

export type StreamsOptions = {
  readonly client: BatonClient;
  readonly subscription: Omit<SubscribeInput, "maxOutstanding" | "resumeLeaseTokens">;
  readonly concurrency: number;
  readonly silenceLimitMs: number;
  readonly backoff: BackoffOptions;
  /** Jobs in hand that no open stream's credit covers. */
  readonly detached: () => number;
  /** Those of them that another stream can take along: the leases of streams that have ended, or are about to. */
  readonly resumable: () => readonly string[];
  /** What it returns is awaited before the next event is read. */
  readonly onEvent: (stream: Stream, event: SubscribeEvent) => Promise<void> | undefined;
  /** The stream brings no more jobs, and its broker no longer keeps the leases of those that it brought. */
  readonly onEnd: (stream: Stream) => void;
  readonly onError: (error: unknown) => void;
  readonly onFatal: (error: BatonClientError) => void;
};

export class Streams {
  readonly #options: StreamsOptions;
  readonly #streams = new Set<Stream>();
  #running = false;
  #retry: NodeJS.Timeout | undefined;
  #losses = 0;

  constructor(options: StreamsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = true;
    this.fill();
  }

  /** Opens a stream with the credit that is free, where that is worth a stream. */
  fill(): void {
    if (!this.#running || this.#retry !== undefined) return;
    let credit = 0;
    for (const stream of this.#streams) {
      if (stream.state === "opening") return;
      if (stream.state === "open") credit += stream.credit;
    }
    const { concurrency } = this.#options;
    const detached = this.#options.detached();
    const resumed = this.#options.resumable();
    const free = concurrency - credit - detached;
    const isWorthIt =
      credit === 0 ? free + resumed.length > 0 : free > 0 && (detached === 0 || free >= concurrency / 2);
    if (isWorthIt) this.#open(Math.max(0, free) + resumed.length, resumed);
  }

  /** True while some stream may still bring jobs that its broker has sent already: its credit is not used up. */
  mayBring(heldBy: (stream: Stream) => number): boolean {
    for (const stream of this.#streams) {
      if (stream.state === "open" && heldBy(stream) < stream.credit) return true;
    }
    return false;
  }

  stop(): void {
    this.#running = false;
    clearTimeout(this.#retry);
    for (const stream of this.#streams) stream.abort.abort();
  }

  #open(credit: number, resumed: readonly string[]): void {
    const abort = new AbortController();
    const { silenceLimitMs, subscription } = this.#options;
    const watchdog = setTimeout(() => {
      if (stream.paused) {
        watchdog.refresh();
        return;
      }
      const message = `nothing came on the stream for ${silenceLimitMs} ms, not even a keepalive`;
      abort.abort(new BatonClientError("UNAVAILABLE", message, { reason: "STREAM_SILENT" }));
    }, silenceLimitMs);
    const leaseMs = subscription.leaseMs ?? 30_000;
    const graceMs = subscription.disconnectGraceMs ?? 2_000;
    const stream: Stream = {
      credit,
      resumed,
      abort,
      watchdog,
      state: "opening",
      openedAt: 0,
      paused: false,
      leaseMs,
      graceMs,
    };
    this.#streams.add(stream);
    void this.#read(stream);
  }

  async #read(stream: Stream): Promise<void> {
    const { client, subscription } = this.#options;
    let error: unknown = new BatonClientError("UNAVAILABLE", "the broker ended the stream", { reason: "STREAM_ENDED" });
    try {
      const input = { ...subscription, maxOutstanding: stream.credit, resumeLeaseTokens: stream.resumed };
      for await (const event of client.subscribe(input, { signal: stream.abort.signal })) {
        stream.watchdog.refresh();
        this.#observe(stream, event);
        const hasRoom = this.#options.onEvent(stream, event);
        if (hasRoom === undefined) continue;
        stream.paused = true;
        await hasRoom;
        stream.paused = false;
        stream.watchdog.refresh();
      }
    } catch (thrown) {
      error = thrown;
    }
    this.#end(stream, error);
  }

  #observe(stream: Stream, event: SubscribeEvent): void {
    if (event.type === "started") {
      stream.state = "open";
      stream.openedAt = performance.now();
      stream.leaseMs = event.leaseMs;
      stream.graceMs = event.disconnectGraceMs;
    } else if (event.type === "draining") {
      stream.state = "draining";
      this.#replace(stream, 0);
    }
  }

  #end(stream: Stream, error: unknown): void {
    const expected = stream.state === "draining";
    stream.state = "ended";
    clearTimeout(stream.watchdog);
    this.#streams.delete(stream);
    this.#options.onEnd(stream);
    if (!this.#running || expected) return;
    if (error instanceof BatonClientError && isFatal(error)) {
      this.#options.onFatal(error);
      return;
    }
    this.#options.onError(error);
    this.#replace(stream, (error instanceof BatonClientError ? error.retryAfterMs : undefined) ?? 0);
  }

  #replace(lost: Stream, leastMs: number): void {
    if (!this.#running || this.#retry !== undefined) return;
    const lasted = lost.openedAt > 0 && performance.now() - lost.openedAt >= LASTED_MS;
    this.#losses = lasted ? 1 : this.#losses + 1;
    const waitMs = Math.max(leastMs, backoffMs(this.#losses, this.#options.backoff));
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.fill();
    }, waitMs);
  }
}
