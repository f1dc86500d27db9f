/** A queue as the service shows it. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { BackoffCurve, type RetryPolicySchema } from "../../gen/baton/v1/job_pb.js";
import {
  type CountersSchema,
  type Queue,
  QueueMode as QueueModeMessage,
  QueueSchema,
  type QueueSettingsSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import type { ShownQueue } from "../broker/queues.ts";
import type { OwnRetryPolicy } from "../model/job.ts";
import type { Counters, QueueSettings } from "../model/queue.ts";

const MODES = {
  reliable: QueueModeMessage.RELIABLE,
  recoverable: QueueModeMessage.RECOVERABLE,
  simple: QueueModeMessage.SIMPLE,
} as const;

const CURVES = { exponential: BackoffCurve.EXPONENTIAL, exq: BackoffCurve.EXQ } as const;

export function queueMessage({ name, view, effective }: ShownQueue): Queue {
  const { counts, oldestReadyMs, totals, days, rates, settings, setAside } = view;
  return create(QueueSchema, {
    name,
    counts: {
      scheduled: BigInt(counts.SCHEDULED),
      ready: BigInt(counts.READY),
      held: BigInt(counts.HELD),
      reserved: BigInt(counts.RESERVED),
      retrying: BigInt(counts.RETRYING),
      completed: BigInt(counts.COMPLETED),
      failed: BigInt(counts.FAILED),
    },
    ...(oldestReadyMs !== undefined && { oldestReadyAge: durationFromMs(oldestReadyMs) }),
    totals: countersMessage(totals),
    days: days.map(({ date, counters }) => ({ date, counters: countersMessage(counters) })),
    rates,
    settings: settingsMessage(settings),
    effectiveSettings: settingsMessage(effective),
    setAside: BigInt(setAside),
  });
}

function countersMessage({ put, completed, failed, pulled }: Counters): MessageInitShape<typeof CountersSchema> {
  return { put: BigInt(put), completed: BigInt(completed), failed: BigInt(failed), pulled: BigInt(pulled) };
}

function settingsMessage(settings: QueueSettings): MessageInitShape<typeof QueueSettingsSchema> {
  const { paused, mode, leaseMs, retentionMs, retry, deadLetterMax, deadLetterAgeMs, historyMaxEvents } = settings;
  return {
    paused,
    ...(mode && { mode: MODES[mode] }),
    ...(leaseMs !== undefined && { leaseDuration: durationFromMs(leaseMs) }),
    ...(retentionMs !== undefined && { retention: durationFromMs(retentionMs) }),
    ...(retry && { retry: retryMessage(retry) }),
    ...(deadLetterMax !== undefined && { deadLetterMax }),
    ...(deadLetterAgeMs !== undefined && { deadLetterAge: durationFromMs(deadLetterAgeMs) }),
    ...(historyMaxEvents !== undefined && { historyMaxEvents }),
  };
}

function retryMessage(retry: OwnRetryPolicy): MessageInitShape<typeof RetryPolicySchema> {
  const { maxAttempts, initialBackoffMs, maxBackoffMs, multiplier, jitter, curve } = retry;
  return {
    ...(maxAttempts !== undefined && { maxAttempts }),
    ...(initialBackoffMs !== undefined && { initialBackoff: durationFromMs(initialBackoffMs) }),
    ...(maxBackoffMs !== undefined && { maxBackoff: durationFromMs(maxBackoffMs) }),
    ...(multiplier !== undefined && { multiplier }),
    ...(jitter !== undefined && { jitter }),
    ...(curve && { curve: CURVES[curve] }),
  };
}
