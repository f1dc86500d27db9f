/**
 * The worker loop: takes jobs from a stream, runs a handler on each, and releases them by what it did.
 *
 * The worker: idle ──start──► running ──stop──► stopping ──► stopped, and from idle straight to stopped.
 *
 * A stream that is lost, or drains, is replaced, and the jobs in hand go over to the new one, with their leases; their
 * handlers notice nothing. Until it is open, the worker keeps their leases itself.
 *
 * To stop without a trace, the worker says `quiet`. After the broker's answer no job is on its way any more, so those
 * that no handler has begun are given back; the handlers at work finish; when all releases are answered, the worker closes
 * its side, and the broker ends the stream.
 */
import { hostname } from "node:os";
import type { ReleaseRequest, ReportRefused } from "../../gen/baton/v1/job_service_pb.js";
import type { BatonClient } from "./client.ts";
import { type BatonClientError, fromStatus, isDeadlineExceeded, isUnavailable } from "./error.ts";
import { handle, JobAborted, type JobAbortedReason, refusedResult } from "./handler.ts";
import { type Outcome, toReleaseRequest } from "./input.ts";
import { inHand, isPulled, type JobInHand, type Report } from "./job-in-hand.ts";
import { JobsInHand } from "./jobs-in-hand.ts";
import { LeaseKeeper } from "./lease-keeper.ts";
import type { ReservedJob } from "./output.ts";
import { Progress } from "./progress.ts";
import { Releaser } from "./releaser.ts";
import { Streams } from "./streams.ts";
import type { WorkStream } from "./work-stream.ts";
import type { WorkerErrorContext, WorkerOptions } from "./worker-options.ts";

/** When handlers had no more time, releases have so much to be answered on their stream; then they go elsewhere. */
const LAST_ANSWERS_MS = 2_000;

type State =
  | { readonly name: "idle" | "running" }
  /** `isQuiet`: no more jobs come. */
  | { readonly name: "stopping"; readonly failure: BatonClientError | undefined; readonly isQuiet: boolean }
  | { readonly name: "stopped" };

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
  readonly #jobs: JobsInHand;
  readonly #streams: Streams;
  readonly #releaser: Releaser;
  readonly #keeper: LeaseKeeper;
  readonly #progress: Progress;
  readonly #started = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  #state: State = { name: "idle" };
  #room: PromiseWithResolvers<void> | undefined;
  #giveBackTimer: NodeJS.Timeout | undefined;
  #giveBackAt = Number.POSITIVE_INFINITY;

  constructor(client: BatonClient, options: WorkerOptions) {
    const { concurrency = 1, maxJobs = Number.POSITIVE_INFINITY } = options;
    if (!Number.isSafeInteger(concurrency) || concurrency < 1) {
      throw new TypeError("concurrency must be a whole number of at least 1");
    }
    this.#options = options;
    this.#jobs = new JobsInHand(concurrency, maxJobs);
    this.#releaser = new Releaser(client);
    this.#keeper = new LeaseKeeper(client, ({ leaseToken, reason }) => this.#lose(leaseToken, reason));
    this.#progress = new Progress(() => this.#streams.update());
    this.#streams = new Streams({
      client,
      subscription: {
        queues: options.queues,
        policy: options.policy,
        leaseMs: options.leaseMs,
        maxOutstandingBytes: options.maxOutstandingBytes,
        workerId: options.workerId ?? `${hostname()}:${process.pid}`,
        disconnectGraceMs: options.disconnectGraceMs,
        host: hostname(),
        language: "node",
      },
      silenceLimitMs: options.silenceLimitMs ?? 60_000,
      backoff: { initialMs: 100, maxMs: options.maxReconnectDelayMs ?? 5_000 },
      resumable: () => this.#jobs.resumable(),
      listener: {
        onStarted: (stream) => this.#adopt(stream),
        onJobs: (stream, jobs) => this.#take(stream, jobs),
        onRevoked: (leaseToken, reason) => this.#lose(leaseToken, reason),
        onRefusedReport: (refused) => this.#onRefusedReport(refused),
        onEnded: (stream) => this.#keepLeasesOf(stream),
        credit: (stream) => this.#jobs.creditOf(stream),
        takeReports: () => this.#progress.take(),
        hasRoom: () => this.#hasRoom(),
      },
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
   * not there, or when the worker is stopped before; rejects when the broker refuses the worker for good.
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

  /** The stream is open: what it has taken along is its own from now on. */
  #adopt(stream: WorkStream): void {
    for (const leaseToken of stream.resumed) {
      const job = this.#jobs.get(leaseToken);
      this.#keeper.delete(leaseToken);
      if (job !== undefined) this.#jobs.move(job, stream);
      // Given up in the meantime, or released, and then this changes nothing.
      else this.#giveUp(stream, leaseToken);
    }
    this.#started.resolve();
  }

  #keepLeasesOf(stream: WorkStream): void {
    for (const job of this.#jobs.all()) {
      if (job.stream === stream && !isPulled(job)) this.#keeper.add(job.job.leaseToken, stream);
    }
    // Its broker may have taken leases over, although it did not come to say so.
    for (const leaseToken of stream.lastedMs === 0 ? stream.resumed : []) {
      if (this.#jobs.get(leaseToken) && !this.#keeper.has(leaseToken)) this.#keeper.add(leaseToken, stream);
    }
  }

  /** No stream's credit bounds what is pulled: it is read no faster than it is run. */
  #hasRoom(): Promise<void> | undefined {
    if (this.#state.name !== "running" || !this.#jobs.isCrowded) return undefined;
    this.#room ??= Promise.withResolvers<void>();
    return this.#room.promise;
  }

  #checkRoom(): void {
    if (this.#hasRoom() !== undefined) return;
    this.#room?.resolve();
    this.#room = undefined;
  }

  #take(stream: WorkStream, jobs: readonly ReservedJob[]): void {
    const report: Report = (leaseToken, percent, note) => this.#progress.report(leaseToken, percent, note);
    for (const job of jobs) this.#jobs.take(inHand(job, stream, report));
    this.#runWaiting();
    if (this.#jobs.isDone) this.#beginStop(undefined);
    if (this.#state.name === "stopping" && this.#state.isQuiet) this.#returnWaiting();
  }

  /** A worker that stops begins only what it cannot give back. */
  #runWaiting(): void {
    for (const job of this.#jobs.waiting()) {
      if (!this.#jobs.hasFreeHandler) break;
      if (this.#state.name === "running" || isPulled(job)) void this.#run(job);
    }
    this.#checkRoom();
  }

  async #run(job: JobInHand): Promise<void> {
    this.#jobs.run(job);
    const { outcome, request, unforeseen } = await handle(this.#options.handler, job.job, job.context);
    this.#jobs.ran(job);
    const { signal } = job.abort;
    if (unforeseen !== undefined && !signal.aborted) this.#report(unforeseen, { during: "handler", job: job.job });
    if (job.phase === "running") {
      // Work that was done although the connection was lost may still be accepted: the token decides.
      if (!signal.aborted || outcome.outcome === "completed") this.#release(job, outcome, request);
      else if (job.stream.isUp) this.#release(job, { outcome: "returned" });
      else this.#forget(job);
    } else {
      this.#streams.update();
    }
    this.#runWaiting();
  }

  #release(job: JobInHand, outcome: Outcome, request = toReleaseRequest(job.job.leaseToken, outcome)): void {
    this.#jobs.release(job);
    this.#progress.forget(job.job.leaseToken);
    this.#releaser.release(job.stream, request, (answer) => {
      if (answer.ok) {
        this.#forget(job);
        call(() => this.#options.onReleased?.(job.job, outcome, answer.value));
      } else {
        this.#onUnreleased(job, outcome, request, answer.error);
      }
    });
  }

  #onUnreleased(job: JobInHand, outcome: Outcome, request: ReleaseRequest, error: BatonClientError): void {
    this.#report(error, { during: "release", job: job.job });
    if (outcome.outcome === "completed" && isRefused(error)) {
      this.#release(job, refusedResult(error.message));
    } else if (this.#state.name === "running" && mayPass(error)) {
      this.#release(job, outcome, request);
    } else {
      this.#forget(job);
      leaveUnlessLost(job.stream, error);
    }
  }

  /** A lease that the stream has taken along, of a job that is not in hand any more. */
  #giveUp(stream: WorkStream, leaseToken: string): void {
    const request = toReleaseRequest(leaseToken, { outcome: "returned" });
    this.#releaser.release(stream, request, (answer) => {
      if (!answer.ok) leaveUnlessLost(stream, answer.error);
    });
  }

  /** The lease is gone: the handler is told, and what it makes of the job is dropped. */
  #lose(leaseToken: string, reason: JobAbortedReason): void {
    const job = this.#jobs.get(leaseToken);
    // A release that is under way learns by itself whether it came in time.
    if (job === undefined || job.phase === "releasing") return;
    const isWaiting = job.phase === "waiting";
    job.abort.abort(new JobAborted(reason));
    if (isWaiting || reason !== "DISCONNECTED") this.#forget(job);
    // An abandoned handler still takes its place.
    this.#streams.update();
  }

  #forget(job: JobInHand): void {
    this.#jobs.drop(job);
    this.#keeper.delete(job.job.leaseToken);
    this.#progress.forget(job.job.leaseToken);
    // A job of an open stream gives its credit back by itself.
    if (job.stream.state !== "open") this.#streams.update();
    this.#checkStopped();
  }

  #onRefusedReport({ leaseToken, error }: ReportRefused): void {
    const refusal = error && fromStatus(error);
    // That a lease is lost, the job's signal says.
    if (refusal === undefined || refusal.reason === "LEASE_LOST") return;
    this.#report(refusal, { during: "progress", job: this.#jobs.get(leaseToken)?.job });
  }

  #beginStop(failure: BatonClientError | undefined): void {
    if (this.#state.name === "stopping" || this.#state.name === "stopped") return;
    const isIdle = this.#state.name === "idle";
    this.#state = { name: "stopping", failure, isQuiet: isIdle };
    this.#checkRoom();
    if (failure !== undefined) {
      this.#report(failure, { during: "stream" });
      this.#giveBackAfter(this.#options.stopTimeoutMs ?? 30_000);
    }
    if (isIdle) this.#checkStopped();
    else void this.#quiet(failure);
  }

  async #quiet(failure: BatonClientError | undefined): Promise<void> {
    await this.#streams.quiet();
    this.#state = { name: "stopping", failure, isQuiet: true };
    this.#returnWaiting();
    this.#checkStopped();
  }

  #returnWaiting(): void {
    for (const job of this.#jobs.waiting()) if (!isPulled(job)) this.#release(job, { outcome: "returned" });
  }

  #giveBackAfter(timeoutMs: number): void {
    const at = performance.now() + timeoutMs;
    if (this.#state.name !== "stopping" || at >= this.#giveBackAt) return;
    this.#giveBackAt = at;
    clearTimeout(this.#giveBackTimer);
    this.#giveBackTimer = setTimeout(() => this.#giveBackAll(), timeoutMs);
  }

  #giveBackAll(): void {
    for (const job of this.#jobs.all()) {
      if (job.phase === "releasing") continue;
      job.abort.abort(new JobAborted("WORKER_STOPPED"));
      if (isPulled(job)) this.#forget(job);
      else this.#release(job, { outcome: "returned" });
    }
    if (this.#state.name === "stopping")
      this.#giveBackTimer = setTimeout(() => this.#streams.cancel(), LAST_ANSWERS_MS);
  }

  #checkStopped(): void {
    if (this.#state.name !== "stopping" || !this.#state.isQuiet || !this.#jobs.isEmpty) return;
    const { failure } = this.#state;
    this.#state = { name: "stopped" };
    clearTimeout(this.#giveBackTimer);
    void this.#close(failure);
  }

  async #close(failure: BatonClientError | undefined): Promise<void> {
    await this.#streams.finish();
    if (failure !== undefined) {
      this.#started.reject(failure);
      this.#closed.reject(failure);
    } else {
      this.#started.resolve();
      this.#closed.resolve();
    }
  }

  #report(error: unknown, context: WorkerErrorContext): void {
    const { onError } = this.#options;
    if (onError !== undefined) call(() => onError(error, context));
    else if (context.during !== "handler") process.emitWarning(`${context.during}: ${String(error)}`, "BatonWorker");
  }
}

/** What the user's own function throws must not end a stream: it is as if nobody had caught it. */
function call(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    void Promise.reject(error);
  }
}

/** The broker took the call and refused what is in it: sending the same again cannot help. */
function isRefused(error: BatonClientError): boolean {
  return error.code === "INVALID_ARGUMENT" || (error.code === "RESOURCE_EXHAUSTED" && error.reason !== "STORE_FULL");
}

/** No broker has answered for as long as the client asks: it may be there again later, and the lease as well. */
function mayPass(error: BatonClientError): boolean {
  return isUnavailable(error) || isDeadlineExceeded(error);
}

/**
 * The broker keeps the leases of a stream for as long as that lives, this one, too, which could not be released: the job
 * would never end, and its credit never come back. The stream is replaced, by one that does not take it along.
 */
function leaveUnlessLost(stream: WorkStream, error: BatonClientError): void {
  if (error.reason !== "LEASE_LOST") stream.cancel("RELEASE_REFUSED", `a release was refused: ${error.message}`);
}
