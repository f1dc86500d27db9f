/** Schedules as the client takes and shows them, and their conversion. */
import { create } from "@bufbuild/protobuf";
import type { PutRequest } from "../../gen/baton/v1/job_service_pb.js";
import {
  CatchUp,
  Overlap,
  type Schedule as ScheduleMessage,
  ScheduleSchema,
  type ScheduleView,
  ScheduleViewSchema,
} from "../../gen/baton/v1/schedule_service_pb.js";
import {
  type ConcurrencyInput,
  type PutInput,
  type RetryInput,
  toDuration,
  toPutRequest,
  type UniqueInput,
} from "./input.ts";
import { date, fromConcurrency, fromRetryPolicy, fromUnique, type Jsonable, jsonOf, optionalMs } from "./output.ts";
import { JobPayload } from "./payload.ts";

/** The job that a schedule puts. */
export type TemplateInput = Omit<PutInput, "queue" | "id" | "delayMs" | "runAt" | "onConflict">;

type Timing =
  /** Five fields (minute, hour, day of the month, month, day of the week), or six, with the second first. */
  | { readonly cron: string; readonly everyMs?: undefined }
  /** From each tick to the next: 1 s to 365 days. */
  | { readonly cron?: undefined; readonly everyMs: number };

/** NONE: ticks that no broker could put in time are left out. ONE (default): the last of them is put. ALL: all are. */
export type CatchUpName = "NONE" | "ONE" | "ALL";

/** What becomes of a tick whose predecessor's job has not finished. ALLOW (default): it is put. SKIP: it is left out. */
export type OverlapName = "ALLOW" | "SKIP";

/** A schedule to be put. */
export type ScheduleInput = Timing & {
  readonly queue: string;
  readonly id: string;
  /** An IANA name such as Europe/Berlin; default UTC. */
  readonly timeZone?: string | undefined;
  readonly catchUp?: CatchUpName | undefined;
  readonly overlap?: OverlapName | undefined;
  /** No jobs are put. */
  readonly paused?: boolean | undefined;
  /** Default: a job without payload. */
  readonly job?: TemplateInput | undefined;
};

/** A schedule's job, as it is shown. */
export type Template = {
  readonly payload: JobPayload;
  readonly headers: Readonly<Record<string, string>>;
  readonly priority: number;
  readonly leaseMs: number | undefined;
  readonly runTimeoutMs: number | undefined;
  readonly retry: RetryInput | undefined;
  readonly retentionMs: number | undefined;
  readonly expiresInMs: number | undefined;
  readonly concurrency: ConcurrencyInput | undefined;
  readonly unique: UniqueInput | undefined;
};

/** A schedule, and how it fares. */
export type Schedule = Jsonable & {
  readonly queue: string;
  readonly id: string;
  /** One of the two. */
  readonly cron: string | undefined;
  readonly everyMs: number | undefined;
  readonly timeZone: string;
  readonly catchUp: CatchUpName;
  readonly overlap: OverlapName;
  readonly paused: boolean;
  readonly job: Template;
  readonly createdAt: Date | undefined;
  /** When it was last put or changed. */
  readonly updatedAt: Date | undefined;
  /** The next tick; undefined: paused, or there is none. */
  readonly nextRunAt: Date | undefined;
  /** The last tick, or trigger, whose job was put. */
  readonly lastRunAt: Date | undefined;
  /** Its job; undefined: none so far. */
  readonly lastJobId: string | undefined;
  /** How many jobs it has put, triggered ones included. */
  readonly runs: number;
  /** How many ticks were left out. */
  readonly skipped: number;
};

export function toSchedule(input: ScheduleInput): ScheduleMessage {
  const { queue, id, timeZone = "", paused = false } = input;
  return create(ScheduleSchema, {
    queue,
    id,
    timing: timing(input),
    timeZone,
    catchUp: CatchUp[input.catchUp ?? "UNSPECIFIED"],
    overlap: Overlap[input.overlap ?? "UNSPECIFIED"],
    paused,
    template: toPutRequest({ ...input.job, queue: "" }),
  });
}

function timing({ cron, everyMs }: Timing): ScheduleMessage["timing"] {
  if (cron !== undefined && everyMs !== undefined)
    throw new TypeError("a schedule has either cron or everyMs, not both");
  if (cron !== undefined) return { case: "cron", value: cron };
  return everyMs === undefined ? { case: undefined } : { case: "every", value: toDuration("everyMs", everyMs) };
}

export function fromScheduleView(message: ScheduleView): Schedule {
  const schedule = message.schedule ?? create(ScheduleSchema);
  const { queue, id, timing, timeZone, paused } = schedule;
  return {
    queue,
    id,
    cron: timing.case === "cron" ? timing.value : undefined,
    everyMs: timing.case === "every" ? optionalMs(timing.value) : undefined,
    timeZone: timeZone || "UTC",
    catchUp: orDefault(CatchUp[schedule.catchUp] as keyof typeof CatchUp | undefined, "ONE"),
    overlap: orDefault(Overlap[schedule.overlap] as keyof typeof Overlap | undefined, "ALLOW"),
    paused,
    job: fromTemplate(schedule.template),
    createdAt: date(message.createdAt),
    updatedAt: date(message.updatedAt),
    nextRunAt: date(message.nextRunAt),
    lastRunAt: date(message.lastRunAt),
    lastJobId: message.lastJobId || undefined,
    runs: Number(message.runs),
    skipped: Number(message.skipped),
    ...jsonOf(ScheduleViewSchema, message),
  };
}

function fromTemplate(template: PutRequest | undefined): Template {
  return {
    payload: new JobPayload(template?.payload),
    headers: template?.headers ?? {},
    priority: template?.priority ?? 0,
    leaseMs: optionalMs(template?.leaseDuration),
    runTimeoutMs: optionalMs(template?.runTimeout),
    retry: fromRetryPolicy(template?.retry),
    retentionMs: optionalMs(template?.retention),
    expiresInMs: optionalMs(template?.expiresIn),
    concurrency: fromConcurrency(template?.concurrency),
    unique: fromUnique(template?.unique),
  };
}

function orDefault<T extends string>(name: T | "UNSPECIFIED" | undefined, otherwise: T): T {
  return name === undefined || name === "UNSPECIFIED" ? otherwise : (name as T);
}
