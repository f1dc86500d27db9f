/** What is done to schedules when somebody asks for it; ticks.ts does what time asks for. */
import { randomBytes, randomInt } from "node:crypto";
import { scheduleBusy, scheduleNotFound, tooManySchedules, uniqueKeyTaken } from "../model/errors.ts";
import {
  isSameTiming,
  type ReadDefinition,
  type ScheduleDefinition,
  type StoredSchedule,
  timetableOf,
  triggerJobId,
} from "../model/schedule.ts";
import { nextTick } from "../model/timetable.ts";
import type { NewSchedule, SchedulePage } from "../store/schedule-store.ts";
import type { Store } from "../store/store.ts";

export type SchedulesOptions = {
  readonly store: Pick<Store, "schedules" | "now">;
  readonly read: ReadDefinition;
  /** In one queue. */
  readonly maxSchedules: number;
  /** A queue's next tick comes so soon. */
  readonly onNextDue: (queue: string, inMs: number) => void;
};

/**
 * A change is made to what was read; when another change came between, it is read again. Of those that change it in one
 * moment at least one is through each time, so that this is enough for as many.
 */
const MOST_ATTEMPTS = 32;
const NONCE_LIMIT = 2 ** 32;

export class Schedules {
  readonly #options: SchedulesOptions;

  constructor(options: SchedulesOptions) {
    this.#options = options;
  }

  /**
   * Makes the schedule, or changes it. When its times stay as they were, its next tick and its intervals do, too: a
   * program that puts its schedules whenever it starts neither delays them nor loses what came while it was down.
   */
  async put(
    queue: string,
    id: string,
    definition: Uint8Array,
  ): Promise<{ created: boolean; schedule: StoredSchedule }> {
    const { store, maxSchedules } = this.#options;
    for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
      const found = await store.schedules.get(queue, id);
      const nowMs = found?.nowMs ?? (await store.now());
      const schedule = this.#planned(id, definition, found?.schedule, nowMs);
      const outcome = await store.schedules.put(queue, schedule, maxSchedules);
      if (outcome.kind === "too many") throw tooManySchedules(queue, maxSchedules);
      if (outcome.kind === "changed meanwhile") continue;
      this.#expect(queue, outcome.schedule.nextTickMs, nowMs);
      return { created: outcome.kind === "created", schedule: outcome.schedule };
    }
    throw scheduleBusy(queue, id);
  }

  async get(queue: string, id: string): Promise<StoredSchedule> {
    return (await this.#find(queue, id)).schedule;
  }

  /** A page of at most so many, in the order of their ids' bytes, after this one; `last`: after which there are more. */
  list(queue: string, most: number, after: string): Promise<SchedulePage> {
    return this.#options.store.schedules.list(queue, most, after);
  }

  /** Whether there was one. */
  delete(queue: string, id: string): Promise<boolean> {
    return this.#options.store.schedules.delete(queue, id);
  }

  /** The id of the job that was put. */
  async trigger(queue: string, id: string): Promise<string> {
    const { store, read } = this.#options;
    const chance = randomBytes(4).toString("hex");
    let jobId: string | undefined;
    for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
      const { nowMs, schedule } = await this.#find(queue, id);
      jobId ??= triggerJobId(id, nowMs, chance);
      const { job } = read(schedule.definition);
      const outcome = await store.schedules.trigger(queue, id, schedule.revision, randomInt(NONCE_LIMIT), job(jobId));
      switch (outcome.kind) {
        case "triggered":
          return jobId;
        case "unique conflict":
          throw uniqueKeyTaken(queue, outcome.keeperId, outcome.state);
        case "not found":
          throw scheduleNotFound(queue, id);
      }
    }
    throw scheduleBusy(queue, id);
  }

  /** Whether it was otherwise before. */
  async setPaused(queue: string, id: string, paused: boolean): Promise<boolean> {
    const { store, read } = this.#options;
    for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
      const { nowMs, schedule } = await this.#find(queue, id);
      if (schedule.paused === paused) return false;
      const next = paused ? undefined : nextAfter(read(schedule.definition), schedule.startMs, nowMs);
      const outcome = await store.schedules.pause(queue, id, schedule.revision, paused, next);
      if (outcome === "not found") throw scheduleNotFound(queue, id);
      if (outcome === "changed meanwhile") continue;
      this.#expect(queue, next, nowMs);
      return outcome === "changed";
    }
    throw scheduleBusy(queue, id);
  }

  async #find(queue: string, id: string): Promise<{ nowMs: number; schedule: StoredSchedule }> {
    const found = await this.#options.store.schedules.get(queue, id);
    if (!found) throw scheduleNotFound(queue, id);
    return found;
  }

  /** `before`: the schedule whose place it takes. */
  #planned(id: string, bytes: Uint8Array, before: StoredSchedule | undefined, nowMs: number): NewSchedule {
    const definition = this.#options.read(bytes);
    const { skipOverlap, paused } = definition;
    const staysAsItWas = before !== undefined && this.#hasTimingOf(before, definition);
    const startMs = staysAsItWas ? before.startMs : nowMs;
    const plan = { id, revision: before?.revision ?? 0, definition: bytes, skipOverlap, paused, startMs };
    if (staysAsItWas && !paused && !before.paused) return { ...plan, nextTickMs: "kept" };
    return { ...plan, nextTickMs: paused ? undefined : nextAfter(definition, startMs, nowMs) };
  }

  #hasTimingOf(before: StoredSchedule, { timing }: ScheduleDefinition): boolean {
    try {
      return isSameTiming(this.#options.read(before.definition).timing, timing);
    } catch {
      // What cannot be read is replaced.
      return false;
    }
  }

  #expect(queue: string, nextTickMs: number | undefined, nowMs: number): void {
    if (nextTickMs !== undefined) this.#options.onNextDue(queue, Math.max(0, nextTickMs - nowMs));
  }
}

function nextAfter({ timing }: ScheduleDefinition, startMs: number, nowMs: number): number | undefined {
  return nextTick(timetableOf(timing, startMs), nowMs);
}
