/**
 * What handlers report: of each job the last report, and all of them together ten times a second at most. They wait here
 * until a stream takes them along. A report is worth something only while its job runs: with that it is forgotten.
 */
import { create } from "@bufbuild/protobuf";
import { type ReportProgressRequest, ReportProgressRequestSchema } from "../../gen/baton/v1/job_service_pb.js";
import { cut } from "./handler.ts";

/** The broker merges what comes more often. */
const PERIOD_MS = 100;
const NOTE_LIMIT_BYTES = 1_024;
/** The contract's limit on the reports of one message. */
const BATCH_LIMIT = 1_000;

export class Progress {
  readonly #onDue: () => void;
  /** By lease token: at most one for each job that runs. */
  readonly #reports = new Map<string, ReportProgressRequest>();
  #timer: NodeJS.Timeout | undefined;
  #takenAt = Number.NEGATIVE_INFINITY;

  /** `onDue`: reports may be taken now. */
  constructor(onDue: () => void) {
    this.#onDue = onDue;
  }

  report(leaseToken: string, percent: number, note: string): void {
    if (typeof percent !== "number" || Number.isNaN(percent)) throw new TypeError("percent must be a number");
    const whole = Math.round(Math.min(100, Math.max(0, percent)));
    const report = { leaseToken, percent: whole, note: cut(note, NOTE_LIMIT_BYTES) };
    this.#reports.set(leaseToken, create(ReportProgressRequestSchema, report));
    this.#schedule();
  }

  forget(leaseToken: string): void {
    this.#reports.delete(leaseToken);
    if (this.#reports.size === 0) this.#stopTimer();
  }

  /** For one message; none when it is not time yet. */
  take(): ReportProgressRequest[] {
    if (this.#reports.size === 0 || this.#dueInMs() > 0) return [];
    this.#takenAt = performance.now();
    this.#stopTimer();
    const reports = [...this.#reports.values()].slice(0, BATCH_LIMIT);
    for (const { leaseToken } of reports) this.#reports.delete(leaseToken);
    if (this.#reports.size > 0) this.#schedule();
    return reports;
  }

  #dueInMs(): number {
    return this.#takenAt + PERIOD_MS - performance.now();
  }

  #schedule(): void {
    // A timer may fire a little too early.
    this.#timer ??= setTimeout(
      () => {
        this.#timer = undefined;
        this.#onDue();
      },
      Math.max(0, Math.ceil(this.#dueInMs()) + 1),
    );
  }

  #stopTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
