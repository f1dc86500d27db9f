/**
 * UpdateQueue: what is to change, from the settings and the mask. Each setting stands once, below, with its path in the
 * mask, whether a request sets it, and how it is read; those of `retry` are settings of their own.
 */
import { create } from "@bufbuild/protobuf";
import {
  QueueMode as QueueModeMessage,
  type QueueSettings as QueueSettingsMessage,
  QueueSettingsSchema,
  type UpdateQueueRequest,
  type UpdateQueueResponse,
  UpdateQueueResponseSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { OwnRetryPolicy } from "../model/job.ts";
import type { QueueChange, QueueMode, QueueSettings } from "../model/queue.ts";
import { Checks, LONGEST_LEASE_MS, LONGEST_MS, SHORTEST_LEASE_MS, YEAR_MS } from "./checks.ts";
import { queueMessage } from "./queue-message.ts";
import { checkRetry } from "./retry-policy.ts";

const MAX_DEAD_LETTER = 1_000_000_000;
const SHORTEST_DEAD_LETTER_AGE_MS = 1_000;
const FEWEST_EVENTS = 100;
const MOST_EVENTS = 1_000_000;
/** More than there are settings, by far. */
const MAX_PATHS = 100;

const MODES: ReadonlyMap<number, QueueMode | undefined> = new Map([
  [QueueModeMessage.UNSPECIFIED, undefined],
  [QueueModeMessage.RELIABLE, "reliable"],
  [QueueModeMessage.RECOVERABLE, "recoverable"],
  [QueueModeMessage.SIMPLE, "simple"],
]);

const PATHS = {
  paused: "paused",
  mode: "mode",
  lease_duration: "leaseMs",
  retention: "retentionMs",
  dead_letter_max: "deadLetterMax",
  dead_letter_age: "deadLetterAgeMs",
  history_max_events: "historyMaxEvents",
} as const satisfies Record<string, keyof QueueSettings>;

const RETRY_PATHS = {
  "retry.max_attempts": "maxAttempts",
  "retry.initial_backoff": "initialBackoffMs",
  "retry.max_backoff": "maxBackoffMs",
  "retry.multiplier": "multiplier",
  "retry.jitter": "jitter",
  "retry.curve": "curve",
} as const satisfies Record<string, keyof OwnRetryPolicy>;

const KNOWN_PATHS = [...Object.keys(PATHS), "retry", ...Object.keys(RETRY_PATHS)];

export async function updateQueue(broker: Broker, request: UpdateQueueRequest): Promise<UpdateQueueResponse> {
  const checks = new Checks();
  const queue = checks.queue("queue", request.queue);
  const settings = checkSettings(checks, request.settings ?? create(QueueSettingsSchema));
  const mask = checkMask(checks, request.updateMask?.paths ?? []);
  checks.done();
  const paths = mask.length > 0 ? mask : pathsSaid(settings);
  if (paths.length === 0) {
    checks.refuse(
      "update_mask.paths",
      "must name what to change, because settings sets nothing (paused=false is not told from none)",
    );
  }
  checks.done();
  const shown = await broker.queues.update(queue, changeOf(settings, paths));
  return create(UpdateQueueResponseSchema, { queue: queueMessage(shown) });
}

function checkSettings(checks: Checks, message: QueueSettingsMessage): QueueSettings {
  const { paused, mode, leaseDuration, retention, retry, deadLetterMax, deadLetterAge, historyMaxEvents } = message;
  if (deadLetterMax !== undefined) checks.integer("settings.dead_letter_max", deadLetterMax, 0, MAX_DEAD_LETTER);
  if (historyMaxEvents !== undefined) {
    checks.integer("settings.history_max_events", historyMaxEvents, FEWEST_EVENTS, MOST_EVENTS);
  }
  if (!MODES.has(mode)) checks.refuse("settings.mode", `must be one of RELIABLE, RECOVERABLE, SIMPLE, and is ${mode}`);
  return {
    paused,
    mode: MODES.get(mode),
    leaseMs: checks.duration("settings.lease_duration", leaseDuration, SHORTEST_LEASE_MS, LONGEST_LEASE_MS),
    retentionMs: checks.duration("settings.retention", retention, 0, YEAR_MS),
    retry: retry && checkRetry(checks, "settings.retry.", retry),
    deadLetterMax,
    deadLetterAgeMs: checks.duration(
      "settings.dead_letter_age",
      deadLetterAge,
      SHORTEST_DEAD_LETTER_AGE_MS,
      LONGEST_MS,
    ),
    historyMaxEvents,
  };
}

/** The paths that the mask names; `retry` stands for all of its fields. */
function checkMask(checks: Checks, mask: readonly string[]): readonly string[] {
  if (mask.length > MAX_PATHS) {
    checks.refuse("update_mask.paths", `must have at most ${MAX_PATHS} entries, and has ${mask.length}`);
    return [];
  }
  for (const [i, path] of mask.entries()) {
    if (!KNOWN_PATHS.includes(path)) {
      checks.refuse(`update_mask.paths[${i}]`, `must be one of ${KNOWN_PATHS.join(", ")}`);
    }
  }
  return mask.flatMap((path) => (path === "retry" ? Object.keys(RETRY_PATHS) : [path]));
}

/** The paths of what is set, for a request without a mask. A `paused` that is false cannot be told from none. */
function pathsSaid(settings: QueueSettings): readonly string[] {
  return [
    ...Object.entries(PATHS).filter(([, name]) => settings[name] !== undefined && settings[name] !== false),
    ...Object.entries(RETRY_PATHS).filter(([, name]) => settings.retry?.[name] !== undefined),
  ].map(([path]) => path);
}

/** null for what is named and not set: back to the broker's default. */
function changeOf(settings: QueueSettings, paths: readonly string[]): QueueChange {
  const named = new Set(paths);
  const changes = Object.entries(PATHS).flatMap(([path, name]) =>
    named.has(path) ? [[name, settings[name] ?? null]] : [],
  );
  const retry = Object.entries(RETRY_PATHS).flatMap(([path, name]) =>
    named.has(path) ? [[name, settings.retry?.[name] ?? null]] : [],
  );
  return {
    ...(Object.fromEntries(changes) as QueueChange),
    ...(retry.length > 0 && { retry: Object.fromEntries(retry) as NonNullable<QueueChange["retry"]> }),
  };
}
