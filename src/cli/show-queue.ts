/** One queue for people: counts, counters, settings. */
import type { Counters, Queue, QueueSettings } from "../client/index.ts";
import { showDuration } from "../setting-values.ts";
import { roughly, showRows } from "./show.ts";
import { type Column, table } from "./table.ts";

type CountersRow = { readonly label: string } & Partial<Counters>;

const COUNTERS: readonly Column<CountersRow>[] = [
  { heading: "", of: ({ label }) => label },
  { heading: "PUT", of: ({ put }) => put ?? "" },
  { heading: "COMPLETED", of: ({ completed }) => completed ?? "" },
  { heading: "FAILED", of: ({ failed }) => failed ?? "" },
  { heading: "PULLED", of: ({ pulled }) => pulled ?? "" },
];

type SettingRow = { readonly name: string; readonly inForce: string; readonly isSet: boolean };

const SETTINGS: readonly Column<SettingRow>[] = [
  { heading: "SETTING", of: ({ name }) => name },
  { heading: "VALUE", of: ({ inForce }) => inForce },
  { heading: "", of: ({ isSet }) => (isSet ? "set" : "default") },
];

export function showQueue(queue: Queue, days: number): string {
  const { rates, totals, counts, oldestReadyAgeMs, setAside } = queue;
  const rounded = (rate: number) => Math.round(rate * 100) / 100;
  const counters: CountersRow[] = [
    { label: "a second", put: rounded(rates.put), completed: rounded(rates.completed), failed: rounded(rates.failed) },
    ...queue.days.slice(0, days).map(({ date, counters }) => ({ label: date, ...counters })),
    { label: "in total", ...totals },
  ];
  const states = Object.entries(counts).map(([name, count]) => ({ heading: name.toUpperCase(), of: () => count }));
  const parts = [
    showRows([
      ["queue", queue.name],
      ["paused", queue.settings.paused ? "yes" : "no"],
      ["oldest", oldestReadyAgeMs === undefined ? undefined : `READY for ${roughly(oldestReadyAgeMs)}`],
      ["unreadable", setAside === 0 ? undefined : `${setAside} records were set aside: see the broker's log`],
    ]),
    table(states, [counts]),
    table(COUNTERS, counters),
    table(SETTINGS, settingRows(queue)),
  ];
  return parts.join("\n\n");
}

/** In the names of baton queues set. */
function settingRows({ settings, effectiveSettings }: Queue): SettingRow[] {
  const set = written(settings);
  return Object.entries(written(effectiveSettings))
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ({ name, inForce: value ?? "", isSet: set[name] !== undefined }));
}

function written(settings: QueueSettings): Readonly<Record<string, string | undefined>> {
  const { retry } = settings;
  const duration = (ms: number | undefined) => (ms === undefined ? undefined : showDuration(ms));
  return {
    mode: settings.mode?.toLowerCase(),
    lease: duration(settings.leaseMs),
    retention: duration(settings.retentionMs),
    "max-attempts": retry?.maxAttempts?.toString(),
    "initial-backoff": duration(retry?.initialBackoffMs),
    "max-backoff": duration(retry?.maxBackoffMs),
    multiplier: retry?.multiplier?.toString(),
    jitter: retry?.jitter?.toString(),
    "backoff-curve": retry?.curve?.toLowerCase(),
    "dead-letter-max": settings.deadLetterMax?.toString(),
    "dead-letter-age": duration(settings.deadLetterAgeMs),
    "history-max-events": settings.historyMaxEvents?.toString(),
  };
}
