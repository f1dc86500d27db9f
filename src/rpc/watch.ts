import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type JobEventSchema,
  type WatchRequest,
  type WatchResponse,
  WatchResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { Cursor, HistoryEntry, WatchEvent } from "../broker/watch-stream.ts";
import type { PastEvent } from "../broker/watched-queue.ts";
import { JOB_STATES } from "../model/states.ts";
import { Checks } from "./checks.ts";
import { Cursors } from "./cursor.ts";
import type { CallContext } from "./handler.ts";
import { progressMessage } from "./job-message.ts";
import type { Limits } from "./limits.ts";

type CursorsByQueue = ReadonlyMap<string, Cursors>;

export async function* watch(
  broker: Broker,
  namespace: string,
  limits: Limits,
  request: WatchRequest,
  context: CallContext,
): AsyncGenerator<WatchResponse> {
  const checks = new Checks();
  const queues = checkQueues(checks, request.queues, limits.maxQueues);
  const cursors: CursorsByQueue = new Map(queues.map((queue) => [queue, new Cursors(namespace, queue)]));
  const ids = checkIds(checks, request, limits.maxBatch);
  const resumeAfter = checkResumeAfter(checks, request.resumeAfter, cursors);
  checks.done();
  const stream = broker.watch({ queues, ids, resumeAfter });
  // A reader that waits for the next event does not see its caller go; the stream must not outlive it.
  const onAbort = () => stream.close();
  context.signal.addEventListener("abort", onAbort, { once: true });
  if (context.signal.aborted) onAbort();
  try {
    for await (const event of stream) yield create(WatchResponseSchema, { event: eventMessage(cursors, event) });
  } finally {
    context.signal.removeEventListener("abort", onAbort);
  }
}

function checkQueues(checks: Checks, queues: readonly string[], maxQueues: number): string[] {
  checks.count("queues", queues.length, maxQueues);
  const seen = new Set<string>();
  return queues.slice(0, maxQueues).map((name, i) => {
    checks.queue(`queues[${i}]`, name);
    if (seen.has(name)) checks.refuse(`queues[${i}]`, `must be named once, and ${name} stands above already`);
    seen.add(name);
    return name;
  });
}

function checkIds(checks: Checks, { ids, queues }: WatchRequest, maxIds: number): ReadonlySet<string> {
  if (ids.length > maxIds) checks.refuse("ids", `must be at most ${maxIds} (--max-batch), and are ${ids.length}`);
  if (ids.length > 0 && queues.length > 1)
    checks.refuse("ids", `need exactly one queue, and there are ${queues.length}`);
  return new Set(ids.slice(0, maxIds).map((id, i) => checks.id(`ids[${i}]`, id)));
}

function checkResumeAfter(
  checks: Checks,
  resumeAfter: readonly string[],
  cursors: CursorsByQueue,
): ReadonlyMap<string, PastEvent> {
  const found = new Map<string, PastEvent>();
  // Among more than these one is refused in any case: there are not so many queues.
  for (const [i, cursor] of resumeAfter.slice(0, cursors.size + 1).entries()) {
    const [queue, event] = placeOf(cursor, cursors) ?? [];
    if (queue === undefined || event === undefined) {
      checks.refuse(`resume_after[${i}]`, "is no cursor of one of these queues");
    } else if (found.has(queue)) {
      checks.refuse(`resume_after[${i}]`, `is another cursor of queue ${queue}, of which one stands above already`);
    } else {
      found.set(queue, event);
    }
  }
  return found;
}

function placeOf(cursor: string, cursors: CursorsByQueue): [queue: string, event: PastEvent] | undefined {
  for (const [queue, its] of cursors) {
    const event = its.decode(cursor);
    if (event) return [queue, event];
  }
  return undefined;
}

type EventInit = NonNullable<MessageInitShape<typeof WatchResponseSchema>["event"]>;

function eventMessage(cursors: CursorsByQueue, event: WatchEvent): EventInit {
  const cursorOf = (queue: string, place: PastEvent) => cursors.get(queue)?.encode(place) ?? "";
  const encoded = (places: readonly Cursor[]) => places.map((place) => cursorOf(place.queue, place));
  switch (event.kind) {
    case "started":
      return { case: "started", value: { cursors: encoded(event.cursors) } };
    case "events": {
      const { queue, entries } = event;
      const events = entries.map((entry) => jobEvent(queue, cursorOf(queue, entry), entry));
      return { case: "events", value: { events } };
    }
    case "gap": {
      const { queue } = event.cursor;
      return { case: "gap", value: { queue, cursor: cursorOf(queue, event.cursor) } };
    }
    case "keepalive":
      return { case: "keepalive", value: { cursors: encoded(event.cursors) } };
    case "draining":
      return { case: "draining", value: { grace: durationFromMs(event.graceMs) } };
  }
}

function jobEvent(queue: string, cursor: string, entry: HistoryEntry): MessageInitShape<typeof JobEventSchema> {
  const { id, transition, state, atMs, attempt, failures, workerId, dueMs, progress } = entry;
  return {
    cursor,
    queue,
    id,
    transition,
    state: state === undefined ? 0 : JOB_STATES[state],
    occurredAt: timestampFromMs(atMs),
    attempt,
    failures,
    workerId,
    ...(dueMs > 0 && { runAt: timestampFromMs(dueMs) }),
    ...(progress && { progress: progressMessage({ ...progress, reportedAtMs: atMs }) }),
  };
}
