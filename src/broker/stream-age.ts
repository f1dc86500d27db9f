/** Streams that began together must not end together. */
const JITTER = 0.1;

/** How old a stream may become, of which that is the setting; undefined: as old as it likes. */
export function streamAge(maxStreamAgeMs: number): number | undefined {
  if (maxStreamAgeMs === 0) return undefined;
  return maxStreamAgeMs * (1 - JITTER + 2 * JITTER * Math.random());
}
