/**
 * The kinds of values that a person writes in a flag or a variable: how each is read, shown, and asked for again when
 * it is wrong. Settings and the command line read their values with the same kinds, so `5m` means the same everywhere.
 *
 * `parse` gives undefined for what it cannot read; `ask` then completes the sentence "write …".
 */

export type Kind<T> = {
  parse(text: string): T | undefined;
  show(value: T): string;
  /** What to write, as the end of a sentence that begins with "write". */
  readonly ask: string;
  /** What stands for the value in help: `--drain-grace DURATION`. */
  readonly placeholder: string;
};

const DURATION_UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const BYTE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
};

/** Reads `250ms`, `5s`, `1.5h`, `7d`, or a sum such as `1h30m`. A bare number has no unit and is refused, except 0. */
export function parseDuration(text: string): number | undefined {
  if (text === "0") return 0;
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) return undefined;
  let totalMs = 0;
  for (const [, number = "", unit = ""] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    totalMs += Number(number) * (DURATION_UNITS[unit] ?? Number.NaN);
  }
  const rounded = Math.ceil(totalMs);
  return Number.isSafeInteger(rounded) ? rounded : undefined;
}

/** The shortest exact way to write a duration in one unit: 600000 is `10m`. */
export function showDuration(ms: number): string {
  if (ms === 0) return "0";
  for (const unit of ["d", "h", "m", "s"]) {
    const size = DURATION_UNITS[unit] ?? 1;
    if (ms % size === 0) return `${ms / size}${unit}`;
  }
  return `${ms}ms`;
}

/** Reads `4096`, `64KiB`, `16MiB`, `1GiB`. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB)?$/.exec(text);
  if (match === null) return undefined;
  const bytes = Number(match[1]) * (BYTE_UNITS[match[2] ?? ""] ?? Number.NaN);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

export function showBytes(bytes: number): string {
  for (const unit of ["GiB", "MiB", "KiB"]) {
    const size = BYTE_UNITS[unit] ?? 1;
    if (bytes > 0 && bytes % size === 0) return `${bytes / size}${unit}`;
  }
  return String(bytes);
}

export function integer(least: number, most: number): Kind<number> {
  return {
    parse: (text) => (/^-?\d+$/.test(text) ? within(Number(text), least, most) : undefined),
    show: String,
    ask: `a whole number from ${least} to ${most}`,
    placeholder: "N",
  };
}

export function decimal(least: number, most: number): Kind<number> {
  return {
    parse: (text) => (/^-?\d+(\.\d+)?$/.test(text) ? within(Number(text), least, most) : undefined),
    show: String,
    ask: `a number from ${least} to ${most}`,
    placeholder: "N",
  };
}

export function bytes(least: number, most: number): Kind<number> {
  return {
    parse: (text) => within(parseBytes(text), least, most),
    show: showBytes,
    ask: `a size such as 64KiB or 16MiB, from ${showBytes(least)} to ${showBytes(most)}`,
    placeholder: "SIZE",
  };
}

export function duration(leastMs: number, mostMs: number): Kind<number> {
  return {
    parse: (text) => within(parseDuration(text), leastMs, mostMs),
    show: showDuration,
    ask: `a duration such as 500ms, 10s or 2m, from ${showDuration(leastMs)} to ${showDuration(mostMs)}`,
    placeholder: "DURATION",
  };
}

/** `host:port`, `[::1]:port`, or `unix:/path`; port 0 lets the system choose. */
export function address(example: string): Kind<string> {
  return {
    parse: (text) => (isAddress(text) ? text : undefined),
    show: (value) => value,
    ask: `host:port, such as ${example}, or unix:/path/of/socket`,
    placeholder: "HOST:PORT",
  };
}

export function choice<const T extends string>(...values: readonly T[]): Kind<T> {
  const last = values.at(-1) ?? "";
  return {
    parse: (text) => values.find((value) => value === text),
    show: (value) => value,
    ask: values.length > 1 ? `${values.slice(0, -1).join(", ")} or ${last}` : last,
    placeholder: values.join("|"),
  };
}

export function text(pattern: RegExp, ask: string, placeholder: string): Kind<string> {
  return { parse: (value) => (pattern.test(value) ? value : undefined), show: (value) => value, ask, placeholder };
}

/** A moment: anything that Date reads and that names its time zone. */
export const instant: Kind<Date> = {
  parse: (value) => {
    if (!/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})$/.test(value)) return undefined;
    const date = new Date(value);
    return Number.isNaN(date.getTime()) ? undefined : date;
  },
  show: (value) => value.toISOString(),
  ask: "a time with its zone, such as 2027-01-31T08:00:00Z",
  placeholder: "TIME",
};

function isAddress(value: string): boolean {
  if (value.startsWith("unix:")) return value.length > "unix:".length;
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(value);
  return match !== null && Number(match[3]) <= 65_535;
}

function within(value: number | undefined, least: number, most: number): number | undefined {
  return value !== undefined && value >= least && value <= most ? value : undefined;
}

/** The candidate that a person most likely meant: at most a third of its letters are different. */
export function nearest(written: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const distance = editDistance(written, candidate);
    if (distance < bestDistance && distance <= Math.max(1, Math.floor(candidate.length / 3))) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein's distance, cut off for texts too long to be a name. */
function editDistance(a: string, b: string): number {
  if (a.length > 100) return Number.POSITIVE_INFINITY;
  let row = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
