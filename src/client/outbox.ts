/**
 * What a worker has to say on one stream: gathered until the connection takes the next message, and then all of it in
 * that one, as far as it fits. Keeps what is still to be answered.
 */
import { create } from "@bufbuild/protobuf";
import { type ReportProgressRequest, type WorkRequest, WorkRequestSchema } from "../../gen/baton/v1/job_service_pb.js";
import { type SubscribeInput, toBytes, toSubscribeRequest } from "./input.ts";
import { type PendingRelease, type ReleaseAnswer, takeBatch } from "./release-batch.ts";
import { Unanswered } from "./unanswered.ts";

/** Settled with undefined when the stream ends before the answer comes. */
export type SentRelease = PendingRelease<ReleaseAnswer | undefined>;

export class Outbox {
  readonly #maxBytes: bigint;
  readonly #unanswered = new Unanswered<SentRelease>();
  /** At most one for each job in hand. */
  readonly #releases: SentRelease[] = [];
  #start: WorkRequest["start"];
  #saidCredit: number;
  #isQuiet: boolean;
  #saidQuiet = false;

  constructor(subscription: SubscribeInput, credit: number, isQuiet: boolean) {
    // The contract takes no zero here, which is said as credit then, and all that is taken along must have its place.
    this.#saidCredit = Math.max(1, credit, subscription.resumeLeaseTokens?.length ?? 0);
    this.#start = toSubscribeRequest({ ...subscription, maxOutstanding: this.#saidCredit });
    this.#maxBytes = toBytes("maxOutstandingBytes", subscription.maxOutstandingBytes);
    this.#isQuiet = isQuiet;
  }

  release(release: SentRelease): void {
    this.#releases.push(release);
  }

  quiet(): void {
    this.#isQuiet = true;
  }

  /**
   * The next message; undefined: there is nothing to say. `credit`: how many jobs may be unreleased from now on;
   * `progress`: reports to go along.
   */
  next(credit: number | undefined, progress: ReportProgressRequest[]): WorkRequest | undefined {
    const start = this.#start;
    const isCreditNew = credit !== undefined && credit !== this.#saidCredit;
    const isQuietNew = this.#isQuiet !== this.#saidQuiet;
    const releases = takeBatch(this.#releases);
    if (!start && !isCreditNew && !isQuietNew && releases.length === 0 && progress.length === 0) return undefined;
    this.#start = undefined;
    this.#saidCredit = credit ?? this.#saidCredit;
    this.#saidQuiet = this.#isQuiet;
    for (const release of releases) release.request.sequence = this.#unanswered.add(release);
    return create(WorkRequestSchema, {
      ...(start && { start }),
      ...(isCreditNew && { credit: { maxOutstanding: credit, maxOutstandingBytes: this.#maxBytes } }),
      ...(isQuietNew && { quiet: this.#isQuiet }),
      releases: releases.map(({ request }) => request),
      progress,
    });
  }

  answered(sequence: number, answer: ReleaseAnswer | undefined): void {
    this.#unanswered.take(sequence)?.settle(answer);
  }

  /** The stream has ended. */
  close(): void {
    for (const { settle } of [...this.#unanswered.takeAll(), ...this.#releases.splice(0)]) settle(undefined);
  }
}
