/**
 * The jobs that a worker has in hand, and what that leaves of its credit. A handler whose job is gone still takes its place
 * until it has ended.
 */
import { isPulled, type JobInHand } from "./job-in-hand.ts";
import type { WorkStream } from "./work-stream.ts";

export class JobsInHand {
  readonly #concurrency: number;
  readonly #mostJobs: number;
  /** By lease token; at most as many as the credit of all streams. */
  readonly #jobs = new Map<string, JobInHand>();
  /** Those of them that no handler has begun, and how many of these were pulled. */
  readonly #waiting = new Set<JobInHand>();
  #pulledWaiting = 0;
  /** Handlers at work, and those of them whose job is gone. */
  #handlers = 0;
  #abandoned = 0;
  #taken = 0;

  /** `mostJobs`: how many are to be taken in all. */
  constructor(concurrency: number, mostJobs: number) {
    this.#concurrency = concurrency;
    this.#mostJobs = mostJobs;
  }

  get isEmpty(): boolean {
    return this.#jobs.size === 0;
  }

  /** Enough have been taken. */
  get isDone(): boolean {
    return this.#taken >= this.#mostJobs;
  }

  get hasFreeHandler(): boolean {
    return this.#handlers < this.#concurrency;
  }

  /** More of those that were pulled, which no credit bounds, wait than could be run next. */
  get isCrowded(): boolean {
    return this.#pulledWaiting >= this.#concurrency;
  }

  waiting(): Iterable<JobInHand> {
    return this.#waiting;
  }

  all(): Iterable<JobInHand> {
    return this.#jobs.values();
  }

  get(leaseToken: string): JobInHand | undefined {
    return this.#jobs.get(leaseToken);
  }

  take(job: JobInHand): void {
    this.#taken += 1;
    this.#jobs.set(job.job.leaseToken, job);
    this.#waiting.add(job);
    if (isPulled(job)) this.#pulledWaiting += 1;
    this.#account(job, 1);
  }

  run(job: JobInHand): void {
    this.#waitsNoMore(job);
    job.phase = "running";
    job.isRunning = true;
    this.#handlers += 1;
  }

  /** Its handler has ended. */
  ran(job: JobInHand): void {
    job.isRunning = false;
    this.#handlers -= 1;
    if (job.phase === "gone") this.#abandoned -= 1;
  }

  release(job: JobInHand): void {
    this.#waitsNoMore(job);
    this.#account(job, -1);
    job.phase = "releasing";
    this.#account(job, 1);
  }

  move(job: JobInHand, stream: WorkStream): void {
    this.#account(job, -1);
    job.stream = stream;
    this.#account(job, 1);
  }

  drop(job: JobInHand): void {
    this.#waitsNoMore(job);
    this.#account(job, -1);
    if (job.isRunning) this.#abandoned += 1;
    job.phase = "gone";
    this.#jobs.delete(job.job.leaseToken);
  }

  /**
   * Those that another stream can take along: of streams that have ended; of those that drain, only what is not being
   * released there. Not those that have been given up for lost.
   */
  resumable(): string[] {
    const tokens: string[] = [];
    for (const [leaseToken, job] of this.#jobs) {
      const { state } = job.stream;
      const isLeftBehind = state === "ended" || (state === "draining" && job.phase !== "releasing");
      if (isLeftBehind && !isPulled(job) && !job.abort.signal.aborted) tokens.push(leaseToken);
      if (tokens.length === this.#concurrency) break;
    }
    return tokens;
  }

  /** How many jobs may be unreleased on a stream: its own, or those that it takes along, and what is free. */
  creditOf(stream: WorkStream): number {
    const isOpening = stream.state === "opening";
    const own = isOpening ? stream.resumed.length : stream.jobs;
    const unreleased = isOpening ? stream.resumed.length : stream.unreleased;
    const free = this.#concurrency - (this.#jobs.size - own) - this.#abandoned;
    return Math.max(0, Math.min(free, unreleased + this.#mostJobs - this.#taken));
  }

  #waitsNoMore(job: JobInHand): void {
    if (this.#waiting.delete(job) && isPulled(job)) this.#pulledWaiting -= 1;
  }

  #account({ stream, phase, job }: JobInHand, by: 1 | -1): void {
    stream.jobs += by;
    if (phase !== "releasing" && job.leaseExpiresAt !== undefined) stream.unreleased += by;
  }
}
