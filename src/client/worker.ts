/**
 * The worker loop: takes jobs from a stream, runs a handler on each, and releases them by what it did.
 *
 * The worker: idle ──start──► running ──stop──► stopping ──► stopped, and from idle straight to stopped.
 *
 * A job in hand: waiting (more jobs than handlers, for a moment) ──► running ──► releasing ──► gone. It leaves early
 * when its lease is lost; what its handler then does is nobody's business any more.
 *
 * A stream that is lost, or whose broker shuts down, is replaced, and the jobs in hand go over to the new one, with
 * their leases; their handlers notice nothing. Until it is open, the worker keeps their leases itself.
 *
 * Jobs that were pulled have no lease: nobody can take them away, and they cannot be given back.
 *
 * To stop without a trace, the worker first keeps its releases back for a moment: its broker then runs out of credit
 * and has nothing on the way when the stream is closed. A job that was on the way would count as a failed attempt.
 */
import { hostname } from "node:os";
import type { BatonClient } from "./client.ts";
import type { BatonClientError } from "./error.ts";
import { type Handler, handle, JobAborted, type JobAbortedReason, refusedResult } from "./handler.ts";
import { type Outcome, type QueueInput, toReleaseRequest } from "./input.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import type { ReleaseResult, ReservedJob, SubscribeEvent } from "./output.ts";
import { Releaser } from "./releaser.ts";
import { type Stream, Streams } from "./streams.ts";

/** A stopping worker takes it that no more jobs are on their way to it when none has come for so long. */
const SETTLE_MS = 50;
/** So long at most, where releases are under way that are not answered. */
const SETTLE_LIMIT_MS = 1_000;

/** What an error belongs to. */
export type WorkerErrorContext = {
  /** stream: it is replaced. release: the outcome was not accepted. handler: it threw what it was not made to throw. */
  readonly during: "stream" | "release" | "handler";
  readonly job?: ReservedJob;
};

export type WorkerOptions = {
  readonly queues: readonly QueueInput[];
  readonly handler: Handler;
  /** How many jobs are run at once; default 1. */
  readonly concurrency?: number | undefined;
  /** STRICT (default) or WEIGHTED: see QueueInput. */
  readonly policy?: "STRICT" | "WEIGHTED" | undefined;
  /** Who takes the jobs, for people. Default: host and process id. */
  readonly workerId?: string | undefined;
  /** After a broker's sudden death, so long until its jobs return; default 30 s. */
  readonly leaseMs?: number | undefined;
  /** After this worker's sudden death, so long until its jobs go to others; default 2 s. */
  readonly disconnectGraceMs?: number | undefined;
  /** Stop by itself after so many jobs. Default: never. */
  readonly maxJobs?: number | undefined;
  /** How long `stop` lets handlers finish; default 30 s. */
  readonly stopTimeoutMs?: number | undefined;
  /** The longest wait before a lost stream is opened again; default 5 s. */
  readonly maxReconnectDelayMs?: number | undefined;
  /** A stream on which nothing comes for so long is taken for lost; default 60 s, three of the broker's keepalives. */
  readonly silenceLimitMs?: number | undefined;
  /** Told of what went wrong; the worker goes on. Default: a process warning, except for handlers. */
  readonly onError?: ((error: unknown, context: WorkerErrorContext) => void) | undefined;
  /** Told of every reservation that this worker has ended. */
  readonly onReleased?: ((job: ReservedJob, outcome: Outcome, result: ReleaseResult) => void) | undefined;
};

type Held = {
  readonly job: ReservedJob;
  /** The one that brought it, or that has taken it over since. */
  stream: Stream;
  readonly abort: AbortController;
  phase: "waiting" | "running" | "releasing";
};

type State =
  | { readonly name: "idle" | "running" }
  | { readonly name: "stopping" | "stopped"; readonly failure: BatonClientError | undefined };

/**
 * ```ts
 * const worker = new Worker(client, {
 *   queues: ["email"],
 *   concurrency: 10,
 *   handler: async (job, { signal }) => {
 *     await send(job.payload.json(), { signal });
 *   },
 * });
 * await worker.start();
 * process.once("SIGTERM", () => worker.stop());
 * await worker.closed;
 * ```
 */
export class Worker {
  readonly #options: WorkerOptions;
  readonly #concurrency: number;
  readonly #streams: Streams;
  readonly #releaser: Releaser;
  readonly #keeper: LeaseKeeper;
  /** By lease token; at most as many as the credit of all streams. */
  readonly #held = new Map<string, Held>();
  /** Those of them that no handler has begun. */
  readonly #waiting = new Set<Held>();
  readonly #started = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  #state: State = { name: "idle" };
  #running = 0;
  #taken = 0;
  #room: PromiseWithResolvers<void> | undefined;
  #giveBackTimer: NodeJS.Timeout | undefined;
  #giveBackAt = Number.POSITIVE_INFINITY;
  #settling: { readonly timer: NodeJS.Timeout; readonly resolve: () => void } | undefined;

  constructor(client: BatonClient, options: WorkerOptions) {
    this.#concurrency = options.concurrency ?? 1;
    if (!Number.isSafeInteger(this.#concurrency) || this.#concurrency < 1) {
      throw new TypeError("concurrency must be a whole number of at least 1");
    }
    this.#options = options;
    this.#releaser = new Releaser(client);
    this.#keeper = new LeaseKeeper(client, ({ leaseToken, reason }) => this.#lose(leaseToken, reason));
    this.#streams = new Streams({
      client,
      subscription: {
        queues: options.queues,
        policy: options.policy,
        leaseMs: options.leaseMs,
        workerId: options.workerId ?? `${hostname()}:${process.pid}`,
        disconnectGraceMs: options.disconnectGraceMs,
        host: hostname(),
        language: "node",
      },
      concurrency: Math.min(this.#concurrency, options.maxJobs ?? Number.POSITIVE_INFINITY),
      silenceLimitMs: options.silenceLimitMs ?? 60_000,
      backoff: { initialMs: 100, maxMs: options.maxReconnectDelayMs ?? 5_000 },
      detached: () => this.#count((held) => held.stream.state !== "open"),
      resumable: () => this.#resumable(),
      onEvent: (stream, event) => this.#onEvent(stream, event),
      onEnd: (stream) => this.#onEnd(stream),
      onError: (error) => this.#report(error, { during: "stream" }),
      onFatal: (error) => this.#beginStop(error),
    });
    // Nobody has to listen: onError is told of a failure as well.
    this.#started.promise.catch(() => {});
    this.#closed.promise.catch(() => {});
  }

  /** Resolves when the worker has stopped, for whatever reason; rejects when the broker refused it for good. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /**
   * Begins to take jobs. Resolves when the first stream is open, for which it tries without end while the broker is
   * not there, or when the worker is stopped before; rejects when the broker refuses the subscription for good.
   */
  start(): Promise<void> {
    if (this.#state.name === "idle") {
      this.#state = { name: "running" };
      this.#streams.start();
    }
    return this.#started.promise;
  }

  /**
   * Takes no more jobs, lets the handlers at work finish for up to `timeoutMs`, then aborts them and gives their jobs
   * back. Can be called again, also to make the time shorter.
   */
  async stop({ timeoutMs = this.#options.stopTimeoutMs ?? 30_000 } = {}): Promise<void> {
    this.#beginStop(undefined);
    this.#giveBackAfter(timeoutMs);
    await this.#closed.promise.catch(() => {});
  }

  #onEvent(stream: Stream, event: SubscribeEvent): Promise<void> | undefined {
    switch (event.type) {
      case "started":
        this.#adopt(stream);
        this.#started.resolve();
        this.#streams.fill();
        return undefined;
      case "jobs":
        for (const job of event.jobs) this.#take(stream, job);
        this.#checkSettled();
        return this.#hasRoom();
      case "revoked":
        for (const leaseToken of event.leaseTokens) this.#lose(leaseToken, event.reason);
        return undefined;
      case "draining":
      case "keepalive":
        return undefined;
    }
  }

  #onEnd(stream: Stream): void {
    for (const [leaseToken, held] of this.#held) {
      if (held.stream === stream && !isPulled(held)) this.#keeper.add(leaseToken, stream);
    }
    // Its broker may have taken leases over, although it did not come to say so.
    for (const leaseToken of stream.openedAt === 0 ? stream.resumed : []) {
      if (this.#held.has(leaseToken) && !this.#keeper.has(leaseToken)) this.#keeper.add(leaseToken, stream);
    }
    this.#checkSettled();
  }

  #resumable(): string[] {
    const tokens: string[] = [];
    for (const [leaseToken, held] of this.#held) {
      const { state } = held.stream;
      const isLeftBehind = state === "ended" || state === "draining";
      if (isLeftBehind && held.phase !== "releasing" && !isPulled(held)) tokens.push(leaseToken);
    }
    return tokens;
  }

  /** The stream is open: what it has taken along is its own from now on. */
  #adopt(stream: Stream): void {
    for (const leaseToken of stream.resumed) {
      const held = this.#held.get(leaseToken);
      if (held === undefined) continue;
      held.stream = stream;
      this.#keeper.delete(leaseToken);
    }
  }

  /** No stream's credit bounds what is pulled: it is read no faster than it is run. */
  #hasRoom(): Promise<void> | undefined {
    if (this.#state.name !== "running" || this.#waiting.size < this.#concurrency) return undefined;
    this.#room ??= Promise.withResolvers<void>();
    return this.#room.promise;
  }

  #checkRoom(): void {
    if (this.#state.name === "running" && this.#waiting.size >= this.#concurrency) return;
    this.#room?.resolve();
    this.#room = undefined;
  }

  #take(stream: Stream, job: ReservedJob): void {
    const held: Held = { job, stream, abort: new AbortController(), phase: "waiting" };
    this.#held.set(job.leaseToken, held);
    this.#waiting.add(held);
    this.#taken++;
    this.#runWaiting();
    if (this.#taken >= (this.#options.maxJobs ?? Number.POSITIVE_INFINITY)) this.#beginStop(undefined);
  }

  /** A worker that stops begins only what it cannot give back. */
  #runWaiting(): void {
    for (const held of this.#waiting) {
      if (this.#running >= this.#concurrency) break;
      if (this.#state.name === "running" || isPulled(held)) void this.#run(held);
    }
    this.#checkRoom();
  }

  async #run(held: Held): Promise<void> {
    held.phase = "running";
    this.#waiting.delete(held);
    this.#running++;
    const { outcome, request, unforeseen } = await handle(this.#options.handler, held.job, held.abort.signal);
    this.#running--;
    const { signal } = held.abort;
    if (unforeseen !== undefined && !signal.aborted) this.#report(unforeseen, { during: "handler", job: held.job });
    // Work that was done although the connection was lost may still be accepted: the token decides.
    const lost = signal.aborted && (outcome.outcome !== "completed" || signal.reason.reason !== "DISCONNECTED");
    if (this.#held.get(held.job.leaseToken) === held && held.phase === "running") {
      if (lost) this.#forget(held);
      else void this.#release(held, outcome, request);
    }
    this.#runWaiting();
  }

  async #release(
    held: Held,
    outcome: Outcome,
    request = toReleaseRequest(held.job.leaseToken, outcome),
  ): Promise<void> {
    held.phase = "releasing";
    this.#waiting.delete(held);
    const { leaseToken } = held.job;
    let released = outcome;
    let result = await this.#releaser.add(request);
    if (!result.ok && outcome.outcome === "completed" && isRefused(result.error)) {
      this.#report(result.error, { during: "release", job: held.job });
      released = refusedResult(result.error.message);
      result = await this.#releaser.add(toReleaseRequest(leaseToken, released));
    }
    this.#forget(held);
    if (result.ok) this.#options.onReleased?.(held.job, released, result.value);
    else this.#report(result.error, { during: "release", job: held.job });
  }

  /** The lease is gone: the handler is told, and what it makes of the job is dropped. */
  #lose(leaseToken: string, reason: JobAbortedReason): void {
    const held = this.#held.get(leaseToken);
    // A release that is under way learns by itself whether it came in time.
    if (held === undefined || held.phase === "releasing") return;
    held.abort.abort(new JobAborted(reason));
    if (held.phase === "waiting" || reason !== "DISCONNECTED") this.#forget(held);
  }

  #forget(held: Held): void {
    this.#held.delete(held.job.leaseToken);
    this.#waiting.delete(held);
    this.#keeper.delete(held.job.leaseToken);
    // A job of an open stream gives its credit back to that stream; any other to a new one.
    if (held.stream.state !== "open") this.#streams.fill();
    this.#checkSettled();
    this.#checkStopped();
  }

  #beginStop(failure: BatonClientError | undefined): void {
    if (this.#state.name === "stopping" || this.#state.name === "stopped") return;
    const idle = this.#state.name === "idle";
    this.#state = { name: "stopping", failure };
    this.#checkRoom();
    if (failure !== undefined) {
      this.#report(failure, { during: "stream" });
      this.#giveBackAfter(this.#options.stopTimeoutMs ?? 30_000);
    }
    if (idle) this.#checkStopped();
    else void this.#settleThenClose();
  }

  async #settleThenClose(): Promise<void> {
    this.#releaser.hold();
    const settled = Promise.withResolvers<void>();
    const endsAt = performance.now() + SETTLE_LIMIT_MS;
    const timer = setTimeout(() => {
      if (this.#releaser.underWay > 0 && performance.now() < endsAt) timer.refresh();
      else settled.resolve();
    }, SETTLE_MS);
    this.#settling = { timer, resolve: settled.resolve };
    this.#checkSettled();
    await settled.promise;
    clearTimeout(timer);
    this.#streams.stop();
    this.#releaser.resume();
    for (const held of this.#waiting) if (!isPulled(held)) void this.#release(held, { outcome: "returned" });
    this.#settling = undefined;
    this.#checkStopped();
  }

  /** Called whenever something came from the broker: jobs, the answer to a release, or the end of a stream. */
  #checkSettled(): void {
    if (this.#settling === undefined) return;
    const heldBy = (stream: Stream) => this.#count((held) => held.stream === stream);
    // A release that is under way may have made room for a job already.
    if (this.#releaser.underWay === 0 && !this.#streams.mayBring(heldBy)) this.#settling.resolve();
    else this.#settling.timer.refresh();
  }

  #giveBackAfter(timeoutMs: number): void {
    const at = performance.now() + timeoutMs;
    if (this.#state.name !== "stopping" || at >= this.#giveBackAt) return;
    this.#giveBackAt = at;
    clearTimeout(this.#giveBackTimer);
    this.#giveBackTimer = setTimeout(() => this.#giveBackAll(), timeoutMs);
  }

  #giveBackAll(): void {
    for (const held of this.#held.values()) {
      if (held.phase === "releasing") continue;
      held.abort.abort(new JobAborted("WORKER_STOPPED"));
      if (isPulled(held)) this.#forget(held);
      else void this.#release(held, { outcome: "returned" });
    }
  }

  #checkStopped(): void {
    if (this.#state.name !== "stopping" || this.#held.size > 0 || this.#settling !== undefined) return;
    clearTimeout(this.#giveBackTimer);
    const { failure } = this.#state;
    this.#state = { name: "stopped", failure };
    if (failure !== undefined) {
      this.#started.reject(failure);
      this.#closed.reject(failure);
    } else {
      this.#started.resolve();
      this.#closed.resolve();
    }
  }

  #count(matches: (held: Held) => boolean): number {
    let count = 0;
    for (const held of this.#held.values()) if (matches(held)) count++;
    return count;
  }

  #report(error: unknown, context: WorkerErrorContext): void {
    if (this.#options.onError !== undefined) this.#options.onError(error, context);
    else if (context.during !== "handler") process.emitWarning(`${context.during}: ${String(error)}`, "BatonWorker");
  }
}

function isPulled({ job }: Pick<Held, "job">): boolean {
  return job.leaseExpiresAt === undefined;
}

/** The broker took the call and refused what is in it: sending the same again cannot help. */
function isRefused(error: BatonClientError): boolean {
  return error.code === "INVALID_ARGUMENT" || (error.code === "RESOURCE_EXHAUSTED" && error.reason !== "STORE_FULL");
}
