/** What rounds have in common: how many jobs they take, and what is told of them. */
import type { Measure, Round, Size } from "./comparison.ts";
import type { Measured, Part } from "./contender.ts";

/** Enough to tell how fast a system is, roughly. */
const FIRST_JOBS = 5_000;
/** Of payload, in one round: what all systems of a comparison hold at the same time must fit into a small machine. */
const MOST_BYTES = 256e6;
const PARTS: readonly Part[] = ["broker", "redis", "client"];

/**
 * Rounds of so many jobs as this system does in a round's time, by what it did in the round before: a slow system would
 * need minutes for what a fast one does in a second. The first ones warm it up.
 */
export async function paced(
  { roundMs, warmUpMs }: Size,
  { payloadBytes, batch }: { readonly payloadBytes: number; readonly batch: number },
  doJobs: (jobs: number) => Promise<Measured>,
): Promise<() => Promise<Measured>> {
  const most = Math.floor(MOST_BYTES / payloadBytes / batch) * batch;
  let jobs = FIRST_JOBS;
  const round = async () => {
    const measured = await doJobs(jobs);
    const batches = Math.ceil((measured.perSecond * roundMs) / 1_000 / batch);
    jobs = Math.min(most, batches * batch);
    return measured;
  };
  for (let warmMs = 0; warmMs < warmUpMs; ) warmMs += (await round()).elapsedMs;
  // What has waited for its turn is cold: of two rounds the second counts.
  return async () => {
    await round();
    return await round();
  };
}

/** The usual measures: how fast, and what a job costs whom. */
export function speedOf(round: () => Promise<Measured>): Round {
  return async () => speed(await round());
}

export function speed({ perSecond, cpu }: Measured): Measure[] {
  const costs = PARTS.flatMap((name): Measure[] => {
    const value = cpu[name];
    return value === undefined ? [] : [{ name, unit: "µs/job", value }];
  });
  return [{ name: "", unit: "jobs/s", value: perSecond }, ...costs];
}
