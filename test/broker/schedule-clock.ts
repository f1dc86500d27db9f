/**
 * Schedules on a clock of the test's own: the real handlers, use cases, scripts and Redis, and only the time is made.
 * Nothing sweeps by itself: `sweep()` is what a broker does that is up, so not calling it is an outage.
 */
import { create, type DescMethodUnary, type MessageInitShape } from "@bufbuild/protobuf";
import { Redis } from "ioredis";
import { PutRequestSchema } from "../../gen/baton/v1/job_service_pb.js";
import {
  type PutScheduleResponse,
  ScheduleSchema,
  ScheduleService,
  type ScheduleView,
} from "../../gen/baton/v1/schedule_service_pb.js";
import { Schedules } from "../../src/broker/schedules.ts";
import { Ticks } from "../../src/broker/ticks.ts";
import type { ReadDefinition } from "../../src/model/schedule.ts";
import { readSchedule } from "../../src/rpc/schedule.ts";
import { scheduleService } from "../../src/rpc/schedule-service.ts";
import { readSettings } from "../../src/settings.ts";
import { Store, type Sweep } from "../../src/store/store.ts";
import type { MethodOf, RequestOf, ResponseOf } from "../rpc/service-client.ts";
import { collect, type LogLine } from "../support/broker.ts";
import type { TestRedis } from "../support/redis.ts";

type Service = typeof ScheduleService;
export type ScheduleInit = MessageInitShape<typeof ScheduleSchema>;

const NAMESPACE = "clock";
const SETTINGS = readSettings([], {});
/** Rounds of one sweep(): more mean that it goes round in circles. */
const MOST_ROUNDS = 200;

export class ScheduleClock {
  readonly redis: Redis;
  readonly store: Store;
  readonly ticks: Ticks;
  readonly log: LogLine[] = [];
  nowMs: number;
  readonly #handlers: ReturnType<typeof scheduleService>["handlers"];

  /** `now` such as 2026-11-21T08:00:00Z. */
  constructor(server: TestRedis, now: string) {
    this.nowMs = Date.parse(now);
    this.redis = new Redis(server.socketPath);
    this.store = new Store({
      redis: this.redis,
      namespace: NAMESPACE,
      defaultRetentionMs: 3_600_000,
      deadLetterMax: 100,
      deadLetterAgeMs: 86_400_000,
      clock: () => this.nowMs,
    });
    const read: ReadDefinition = (definition) => readSchedule(definition, SETTINGS);
    this.ticks = this.anotherBroker(read);
    const schedules = new Schedules({ store: this.store, read, maxSchedules: 100, onNextDue: () => {} });
    this.#handlers = scheduleService(schedules, NAMESPACE, SETTINGS).handlers;
  }

  anotherBroker(read: ReadDefinition): Ticks {
    return new Ticks({ store: this.store.schedules, read, log: collect(this.log) });
  }

  async call<K extends MethodOf<Service>>(method: K, request: RequestOf<Service, K>): Promise<ResponseOf<Service, K>> {
    const { input }: DescMethodUnary = ScheduleService.method[method];
    const handler = this.#handlers[method] as (message: unknown) => Promise<ResponseOf<Service, K>>;
    return await handler(create(input, request as MessageInitShape<typeof input>));
  }

  async put(schedule: ScheduleInit): Promise<ScheduleView> {
    const { schedule: view } = await this.putAnswer(schedule);
    if (!view) throw new Error("PutSchedule answered without a schedule");
    return view;
  }

  /** With an empty template when it has none. */
  putAnswer(init: ScheduleInit): Promise<PutScheduleResponse> {
    const schedule = create(ScheduleSchema, init);
    schedule.template ??= create(PutRequestSchema);
    return this.call("putSchedule", { schedule });
  }

  async view(queue: string, id: string): Promise<ScheduleView> {
    const { schedule } = await this.call("getSchedule", { queue, id });
    if (!schedule) throw new Error("GetSchedule answered without a schedule");
    return schedule;
  }

  set(now: string): void {
    this.nowMs = Date.parse(now);
  }

  /** Until nothing is due any more. */
  async sweep(queue: string, ticks = this.ticks): Promise<Sweep> {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const swept = await this.store.sweep(queue);
      if (swept.due.length === 0 && !swept.more) return swept;
      await ticks.run(swept.due, swept.nowMs);
    }
    throw new Error(`queue ${queue} is due again and again`);
  }

  /** A broker is up until then: it wakes at each time that its last sweep named. */
  async runUntil(queue: string, until: string): Promise<void> {
    const untilMs = Date.parse(until);
    for (;;) {
      const { nextDueMs } = await this.sweep(queue);
      if (nextDueMs === undefined || this.nowMs + nextDueMs > untilMs) break;
      this.nowMs += nextDueMs;
    }
    this.nowMs = untilMs;
  }

  /** The ids of the READY jobs, as they stand; without the schedule's, which comes before the @. */
  async ready(queue: string): Promise<string[]> {
    const ids: string[] = [];
    let after: Parameters<Store["list"]>[3];
    do {
      const page = await this.store.list(queue, "READY", 1_000, after);
      ids.push(...page.jobs.map(({ id }) => id.replace(/^[^@]*@/, "")));
      after = page.last;
    } while (after);
    return ids;
  }

  /** Takes the first READY job and completes it. */
  async complete(queue: string): Promise<void> {
    const claims = [{ count: 1, leaseMs: 60_000, workerId: "worker" }];
    const { jobs } = await this.store.reserve(queue, "caller", this.#call++, claims);
    const releases = jobs.flat().map((lease) => ({ lease, outcome: { kind: "completed" } as const }));
    const [released] = await this.store.release(queue, releases);
    if (released?.state !== "COMPLETED") throw new Error(`queue ${queue} had no job to complete`);
  }

  #call = 1;

  stop(): void {
    this.redis.disconnect();
  }
}
