/**
 * Puts the jobs of schedules that are due, as sweeps find them. Every broker does so; for each tick there is one job,
 * because the store claims a tick, puts its jobs and sets the next tick in one step, and because the job's id is made
 * from the schedule's and the tick.
 *
 * What cannot be run here, such as a time zone that this broker's system does not know, is put off for a while, so that
 * it stands in nobody's way, and another broker may run it.
 */
import { randomInt } from "node:crypto";
import { dueTicks } from "../model/catch-up.ts";
import { BatonError } from "../model/errors.ts";
import type { NewJob } from "../model/job.ts";
import type { Logger } from "../model/log.ts";
import { type ReadDefinition, tickJobId, timetableOf } from "../model/schedule.ts";
import type { DueSchedule, ScheduleStore } from "../store/schedule-store.ts";

export type TicksOptions = {
  readonly store: Pick<ScheduleStore, "tick" | "postpone">;
  readonly read: ReadDefinition;
  readonly log: Logger;
};

/** In one step, so that no script takes long: so many jobs, and so many bytes, but always one job. */
const MOST_JOBS = 1_000;
const MOST_BYTES = 16 * 1024 * 1024;
const PUT_OFF_MS = 10_000;
/** What is remembered to have been logged; beyond that, some is logged again. */
const MOST_REPORTED = 1_000;
const NONCE_LIMIT = 2 ** 32;

export class Ticks {
  readonly #options: TicksOptions;
  readonly #reported = new Set<string>();

  constructor(options: TicksOptions) {
    this.#options = options;
  }

  /** Rejects when Redis is away; what is wrong with one schedule is that schedule's. */
  async run(due: readonly DueSchedule[], nowMs: number): Promise<void> {
    await Promise.all(
      due.map(async (schedule) => {
        try {
          await this.#put(schedule, nowMs);
        } catch (error) {
          if (error instanceof BatonError && error.code === "UNAVAILABLE") throw error;
          await this.#putOff(schedule, error);
        }
      }),
    );
  }

  async #put(due: DueSchedule, nowMs: number): Promise<void> {
    const { store, read } = this.#options;
    const { timing, catchUp, job } = read(due.definition);
    const timetable = timetableOf(timing, due.startMs);

    const jobOf = (tickMs: number): NewJob => job(tickJobId(due.id, tickMs));
    const { tickMs } = due;
    const fitting = Math.floor(MOST_BYTES / jobOf(tickMs).spec.length);
    const most = Math.max(1, Math.min(MOST_JOBS, fitting));
    const { put, leftOut, next } = dueTicks(timetable, { catchUp, tickMs, nowMs, most });
    const runs = put.map((tick) => ({ tickMs: tick, job: jobOf(tick) }));
    await store.tick(due, { nextTickMs: next, leftOut, nonce: randomInt(NONCE_LIMIT) }, runs);
  }

  async #putOff(due: DueSchedule, error: unknown): Promise<void> {
    const { store, log } = this.#options;
    const { queue, id, revision } = due;
    const reported = `${queue} ${revision}`;
    if (!this.#reported.has(reported)) {
      if (this.#reported.size >= MOST_REPORTED) this.#reported.clear();
      this.#reported.add(reported);
      const reason = error instanceof Error ? error.message : String(error);
      log.error("a schedule cannot be run; it is tried again and again", { queue, schedule: id, error: reason });
    }
    await store.postpone(due, PUT_OFF_MS);
  }
}
