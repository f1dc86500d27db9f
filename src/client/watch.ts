/**
 * Watches jobs over a stream that is opened again whenever it breaks, from the last cursor of each queue, so that no
 * event is missed and none comes twice; where the history does not reach back so far, a gap says so.
 *
 * The first stream must open within the call's deadline; from then on a broker that is away is waited for without end.
 */
import { create, type MessageShape } from "@bufbuild/protobuf";
import {
  type JobEvent as JobEventMessage,
  JobEventSchema,
  JobService,
  WatchRequestSchema,
  type WatchResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import { backoffMs, pause } from "./backoff.ts";
import type { CallOptions, Calls } from "./calls.ts";
import { BatonClientError, isFatal } from "./error.ts";
import { date, fromProgress, type JobProgress, type JobStateName, type Jsonable, jsonOf, stateName } from "./output.ts";

/** Three of the broker's keepalives. */
const DEFAULT_SILENCE_LIMIT_MS = 60_000;
/** A stream that lived so long shows that all is well again: the backoff starts anew. */
const LASTED_MS = 5_000;
const BACKOFF = { initialMs: 100, maxMs: 5_000 };

export type WatchInput = {
  readonly queues: readonly string[];
  /** Only the events of these jobs, of exactly one queue. Default: all. */
  readonly ids?: readonly string[] | undefined;
  /** Where to go on: at most one cursor of each queue. A queue without one begins with what happens from now on. */
  readonly resumeAfter?: readonly string[] | undefined;
};

export type WatchOptions = CallOptions & {
  /** How long the first stream may take to open; default: the client's deadline. */
  readonly deadlineMs?: number | undefined;
  /** A stream on which nothing comes for so long is taken for lost; default 60 s, three of the broker's keepalives. */
  readonly silenceLimitMs?: number | undefined;
  /** Told of every break, with its reason; the watch goes on. */
  readonly onBreak?: ((error: unknown) => void) | undefined;
};

/** One thing that happened to a job: one transition of its life. */
export type JobEvent = Jsonable & {
  readonly type: "event";
  /** Opaque: for `resumeAfter`. */
  readonly cursor: string;
  readonly queue: string;
  readonly id: string;
  /** put, due, hold, free, reserve, report, pull, complete, fail, return, expire, lapse, cancel, retry, delete or trim. */
  readonly transition: string;
  /** What the job is now; UNSPECIFIED: gone. */
  readonly state: JobStateName;
  readonly occurredAt: Date;
  readonly attempt: number;
  readonly failures: number;
  /** Who has it, or had it last; empty: nobody so far. */
  readonly workerId: string;
  /** When it becomes READY, where its state is RETRYING or SCHEDULED. */
  readonly runAt: Date | undefined;
  /** Of the transition `report` only. */
  readonly progress: JobProgress | undefined;
};

export type WatchEvent =
  /** Comes once, first: every event after these cursors, one for each queue in their order, will come. */
  | { readonly type: "started"; readonly cursors: readonly string[] }
  | JobEvent
  /** Events of this queue are missing here: the history did not reach back. Every event after the cursor comes again. */
  | { readonly type: "gap"; readonly queue: string; readonly cursor: string }
  /** Comes every 20 s: all that was asked for has been told up to these cursors, one for each queue in their order. */
  | { readonly type: "keepalive"; readonly cursors: readonly string[] };

export async function* watch(
  calls: Calls,
  input: WatchInput,
  options: WatchOptions,
): AsyncGenerator<WatchEvent, void, undefined> {
  const { deadlineMs = calls.defaultDeadlineMs, silenceLimitMs = DEFAULT_SILENCE_LIMIT_MS, signal, onBreak } = options;
  const position = new Position(input);
  const openBy = performance.now() + deadlineMs;
  for (let failures = 1; ; failures++) {
    const begunAt = performance.now();
    let broken: unknown = new BatonClientError("UNAVAILABLE", "the broker ended the stream", {
      reason: "STREAM_ENDED",
    });
    try {
      const openWithinMs = position.isKnown ? silenceLimitMs : Math.max(1, openBy - begunAt);
      const limits = { openWithinMs: Math.min(openWithinMs, silenceLimitMs), silenceLimitMs, signal };
      for await (const { event } of untilSilent(calls, position.request(), limits)) {
        if (event.case === "draining") break;
        yield* position.follow(event);
      }
    } catch (error) {
      signal?.throwIfAborted();
      if (endsWatch(error)) throw error;
      broken = error;
    }
    const now = performance.now();
    if (now - begunAt >= LASTED_MS) failures = 1;
    const waitMs = Math.max(backoffMs(failures, BACKOFF), askedMs(broken));
    if (!position.isKnown && now + waitMs >= openBy) throw broken;
    if (position.isKnown) onBreak?.(broken);
    await pause(waitMs, signal);
  }
}

/** Up to where the user has seen each queue's events. */
class Position {
  readonly #input: WatchInput;
  /** By queue, at most one for each; empty until the broker has said where the first stream begins. */
  readonly #cursors = new Map<string, string>();

  constructor(input: WatchInput) {
    this.#input = input;
  }

  get isKnown(): boolean {
    return this.#cursors.size > 0;
  }

  request(): MessageShape<typeof WatchRequestSchema> {
    const { queues, ids = [], resumeAfter = [] } = this.#input;
    const cursors = this.isKnown ? this.#cursors.values() : resumeAfter;
    return create(WatchRequestSchema, { queues: [...queues], ids: [...ids], resumeAfter: [...cursors] });
  }

  *follow(event: MessageShape<typeof WatchResponseSchema>["event"]): Generator<WatchEvent, void, undefined> {
    switch (event.case) {
      case "started": {
        // A later stream begins where this one's position is, and not where it says, which is the same or further on.
        if (this.isKnown) return;
        const { cursors } = event.value;
        this.#reach(cursors);
        yield { type: "started", cursors };
        return;
      }
      case "events":
        for (const message of event.value.events) {
          this.#cursors.set(message.queue, message.cursor);
          yield fromJobEvent(message);
        }
        return;
      case "gap": {
        const { queue, cursor } = event.value;
        this.#cursors.set(queue, cursor);
        yield { type: "gap", queue, cursor };
        return;
      }
      case "keepalive": {
        const { cursors } = event.value;
        this.#reach(cursors);
        yield { type: "keepalive", cursors };
        return;
      }
      case "draining":
      case undefined:
        return;
    }
  }

  /** One cursor for each queue, in their order. */
  #reach(cursors: readonly string[]): void {
    for (const [index, cursor] of cursors.entries()) {
      const queue = this.#input.queues[index];
      if (queue !== undefined) this.#cursors.set(queue, cursor);
    }
  }
}

/** Also what is no answer of a broker's: it is a fault of ours, or the user's input. */
function endsWatch(error: unknown): boolean {
  return !(error instanceof BatonClientError) || isFatal(error);
}

function askedMs(error: unknown): number {
  return error instanceof BatonClientError ? (error.retryAfterMs ?? 0) : 0;
}

type SilenceLimits = {
  readonly openWithinMs: number;
  readonly silenceLimitMs: number;
  readonly signal: AbortSignal | undefined;
};

/** The stream; it breaks with an error of its own when its first message does not come in time, or the next ones. */
async function* untilSilent(
  calls: Calls,
  request: MessageShape<typeof WatchRequestSchema>,
  { openWithinMs, silenceLimitMs, signal }: SilenceLimits,
): AsyncGenerator<MessageShape<typeof WatchResponseSchema>, void, undefined> {
  const abort = new AbortController();
  const silence = (limitMs: number) =>
    setTimeout(() => {
      const message = `nothing came on the stream for ${Math.round(limitMs)} ms, not even a keepalive`;
      abort.abort(new BatonClientError("UNAVAILABLE", message, { reason: "STREAM_SILENT" }));
    }, limitMs);
  let timer = silence(openWithinMs);
  const signals = signal === undefined ? abort.signal : AbortSignal.any([abort.signal, signal]);
  try {
    for await (const response of calls.connection.stream(JobService.method.watch, request, { signal: signals })) {
      // Not while the user looks at an event: only the broker's silence counts.
      clearTimeout(timer);
      yield response;
      timer = silence(silenceLimitMs);
    }
  } finally {
    clearTimeout(timer);
  }
}

function fromJobEvent(message: JobEventMessage): JobEvent {
  const { cursor, queue, id, transition, attempt, failures, workerId } = message;
  return {
    type: "event",
    cursor,
    queue,
    id,
    transition,
    state: stateName(message.state),
    occurredAt: date(message.occurredAt) ?? new Date(0),
    attempt,
    failures,
    workerId,
    runAt: date(message.runAt),
    progress: fromProgress(message.progress),
    ...jsonOf(JobEventSchema, message),
  };
}
