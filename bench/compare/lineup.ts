/** Which systems take part in a comparison, and how long it takes. */
import type { System } from "../systems/system.ts";
import { SYSTEMS } from "../systems/systems.ts";
import type { Comparison, Size } from "./comparison.ts";
import { OWN } from "./rows.ts";

/** So that all systems in all comparisons take 40 minutes: most of it goes for starts, warm-ups and waits. */
export const SIZES: Readonly<Record<"short" | "full", Size>> = {
  short: { short: true, rounds: 3, roundMs: 700, warmUpMs: 1_300 },
  full: { short: false, rounds: 3, roundMs: 1_000, warmUpMs: 3_000 },
};

/** For a short run of a comparison without goals. */
const SHORT = [OWN, "bullmq", "beanstalkd", "jetstream", "lua", "echo"];

export function systemNames({ goals }: Comparison, chosen: readonly string[] | undefined, short: boolean): string[] {
  const inOrder = Object.keys(SYSTEMS);
  if (chosen) return inOrder.filter((name) => chosen.includes(name));
  if (!short) return inOrder;
  if (goals.length === 0) return SHORT;
  const beside = goals.flatMap(({ over }) => over ?? []);
  return inOrder.filter((name) => name === OWN || beside.includes(name));
}

export function loadSystems(names: readonly string[]): Promise<System[]> {
  return Promise.all(
    names.map((name) => {
      const load = SYSTEMS[name];
      if (!load) throw new Error(`there is no system "${name}"`);
      return load();
    }),
  );
}
