/**
 * One Work stream of a worker.
 *
 *   opening ──started──► open ──draining──► draining ──► ended, and from every state to ended when it breaks.
 *
 * What is ready to be said in one turn of the event loop goes out in one message, and while the connection has not taken
 * that, the next one fills. Releases that have no answer when the stream ends are handed back, to be repeated elsewhere.
 */
import type {
  ReportProgressRequest,
  ReportRefused,
  SubscriptionStarted,
  WorkReleased,
  WorkRequest,
  WorkResponse,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Duplex } from "./call.ts";
import type { BatonClient } from "./client.ts";
import { BatonClientError, fromStatus } from "./error.ts";
import type { SubscribeInput } from "./input.ts";
import { Outbox, type SentRelease } from "./outbox.ts";
import {
  fromReleaseResponse,
  fromReservedJob,
  fromStarted,
  type ReservedJob,
  type RevokedReasonName,
  revokedReason,
} from "./output.ts";
import type { ReleaseAnswer } from "./release-batch.ts";

export type WorkStreamOptions = {
  readonly client: BatonClient;
  readonly subscription: Omit<SubscribeInput, "maxOutstanding" | "resumeLeaseTokens">;
  readonly resumed: readonly string[];
  /** No jobs, from the beginning. */
  readonly isQuiet: boolean;
  readonly silenceLimitMs: number;
  readonly listener: WorkStreamListener;
};

/** Told what comes on a stream, in this order where it comes in one message. None of it may throw. */
export type WorkStreamListener = {
  onStarted(stream: WorkStream): void;
  onJobs(stream: WorkStream, jobs: readonly ReservedJob[]): void;
  onRevoked(leaseToken: string, reason: RevokedReasonName): void;
  onRefusedReport(refused: ReportRefused): void;
  onDraining(stream: WorkStream): void;
  /** `error` undefined: the broker ended it well. */
  onEnded(stream: WorkStream, error: unknown): void;
  /** How many jobs the stream may have unreleased; asked before each message. */
  credit(stream: WorkStream): number;
  /** Reports to go along with the next message. */
  takeReports(): ReportProgressRequest[];
  /** The worker has more than it can take: nothing more is read until then. */
  hasRoom(): Promise<void> | undefined;
};

type State =
  | { readonly name: "opening" }
  | { readonly name: "open" | "draining"; readonly openedAt: number }
  /** `openedAt` undefined: it never was. */
  | { readonly name: "ended"; readonly openedAt: number | undefined };

export class WorkStream {
  /** The leases that it takes along when it opens. */
  readonly resumed: readonly string[];
  /** The worker's jobs in hand that are this stream's, and how many of them are leased and not being released. */
  jobs = 0;
  unreleased = 0;
  /** As the broker says in `started`. */
  leaseMs: number;
  graceMs: number;
  readonly #options: WorkStreamOptions;
  readonly #outbox: Outbox;
  readonly #abort = new AbortController();
  readonly #watchdog: NodeJS.Timeout;
  readonly #hushed = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<void>();
  #state: State = { name: "opening" };
  #call: Duplex<WorkRequest, WorkResponse> | undefined;
  #flushing: NodeJS.Immediate | undefined;
  #isSending = false;
  #isPaused = false;
  #isFinishing = false;
  /** The own side is closed: nothing more may be said. */
  #hasFinished = false;

  constructor(options: WorkStreamOptions) {
    const { subscription, silenceLimitMs, resumed, isQuiet, listener } = options;
    this.#options = options;
    this.resumed = resumed;
    this.leaseMs = subscription.leaseMs ?? 30_000;
    this.graceMs = subscription.disconnectGraceMs ?? 2_000;
    this.#outbox = new Outbox({ ...subscription, resumeLeaseTokens: resumed }, listener.credit(this), isQuiet);
    this.#watchdog = setTimeout(() => {
      if (this.#isPaused) this.#watchdog.refresh();
      else this.cancel("STREAM_SILENT", `nothing came on the stream for ${silenceLimitMs} ms, not even a keepalive`);
    }, silenceLimitMs);
  }

  get state(): State["name"] {
    return this.#state.name;
  }

  /** How long it has been open, or was. */
  get lastedMs(): number {
    const { openedAt = undefined } = this.#state.name === "opening" ? {} : this.#state;
    return openedAt === undefined ? 0 : performance.now() - openedAt;
  }

  /** Releases can be said on it. */
  get isUp(): boolean {
    return this.#state.name === "open" || this.#state.name === "draining";
  }

  /** Resolves when the stream has ended, for whatever reason. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  open(): void {
    void this.#read();
  }

  /** Only while it is up. */
  release(release: SentRelease): void {
    this.#outbox.release(release);
    this.update();
  }

  /** Its credit may be another, or there are reports. */
  update(): void {
    if (this.#state.name !== "ended") this.#flushing ??= setImmediate(() => this.#flush());
  }

  /** Resolves when no more jobs will come. */
  quiet(): Promise<void> {
    this.#outbox.quiet();
    this.update();
    return this.#hushed.promise;
  }

  /** Says what there is to say, and that it was the last; the broker then ends the stream. */
  finish(): Promise<void> {
    this.#isFinishing = true;
    this.update();
    return this.ended;
  }

  cancel(reason: string, message: string): void {
    this.#abort.abort(new BatonClientError("UNAVAILABLE", message, { reason }));
  }

  async #read(): Promise<void> {
    let error: unknown;
    try {
      this.#call = this.#options.client.work({ signal: this.#abort.signal });
      this.#flush();
      for await (const response of this.#call.answers) {
        this.#watchdog.refresh();
        this.#hear(response);
        const room = this.#options.listener.hasRoom();
        if (room === undefined) continue;
        this.#isPaused = true;
        await room;
        this.#isPaused = false;
        this.#watchdog.refresh();
      }
    } catch (thrown) {
      error = thrown;
    }
    this.#end(error);
  }

  #hear({ started, released, jobs, revoked, refusedReports, draining, quiet }: WorkResponse): void {
    const { listener } = this.#options;
    if (started !== undefined) this.#begin(started);
    for (const answer of released) this.#settle(answer);
    if (jobs.length > 0) listener.onJobs(this, jobs.map(fromReservedJob));
    for (const { leaseTokens, reason } of revoked) {
      for (const leaseToken of leaseTokens) listener.onRevoked(leaseToken, revokedReason(reason));
    }
    for (const refused of refusedReports) listener.onRefusedReport(refused);
    if (quiet === true) this.#hushed.resolve();
    if (draining === undefined || this.#state.name !== "open") return;
    this.#state = { ...this.#state, name: "draining" };
    this.#hushed.resolve();
    listener.onDraining(this);
  }

  #begin(started: SubscriptionStarted): void {
    ({ leaseMs: this.leaseMs, disconnectGraceMs: this.graceMs } = fromStarted(started));
    this.#state = { name: "open", openedAt: performance.now() };
    this.#options.listener.onStarted(this);
    this.update();
  }

  /** Releases that are answered alike share one answer. */
  #settle({ sequences, result }: WorkReleased): void {
    const said = result?.result;
    let answer: ReleaseAnswer | undefined;
    if (said?.case === "released") answer = { ok: true, value: fromReleaseResponse(said.value) };
    else if (said?.case === "error") answer = { ok: false, error: fromStatus(said.value) };
    for (const sequence of sequences) this.#outbox.answered(sequence, answer);
  }

  #flush(): void {
    this.#flushing = undefined;
    if (this.#isSending || this.#hasFinished || this.#call === undefined) return;
    const { listener } = this.#options;
    const credit = this.#state.name === "draining" ? undefined : listener.credit(this);
    const request = this.#outbox.next(credit, this.isUp ? listener.takeReports() : []);
    if (request === undefined) {
      this.#hasFinished = this.#isFinishing;
      if (this.#hasFinished) this.#call.finish();
      return;
    }
    this.#isSending = true;
    void this.#call.send(request).then(() => {
      this.#isSending = false;
      if (this.#state.name !== "ended") this.#flush();
    });
  }

  #end(error: unknown): void {
    this.#state = { name: "ended", openedAt: this.#state.name === "opening" ? undefined : this.#state.openedAt };
    clearTimeout(this.#watchdog);
    clearImmediate(this.#flushing);
    this.#hushed.resolve();
    this.#options.listener.onEnded(this, error);
    this.#outbox.close();
    this.#ended.resolve();
  }
}
