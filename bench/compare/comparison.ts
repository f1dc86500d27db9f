/** What a comparison is: the same work for every system, and what is measured of it. */
import type { Goal, Unit } from "../support/workload.ts";
import type { Ability, Durability } from "../systems/system.ts";
import type { Contender } from "./contender.ts";

/** How much is done. A short run takes two minutes in all. */
export type Size = {
  readonly short: boolean;
  readonly rounds: number;
  readonly roundMs: number;
  /**
   * Of work, before anything counts. Node compiles what it has seen run: a job's life cycle takes Baton's broker 50 µs in
   * the first half of a second, 20 in the third second, and 13 from the fourth on; bare echo is there after two.
   */
  readonly warmUpMs: number;
};

/** One value of one round. */
export type Measure = {
  /** Empty for the only one, or the first, of its unit. */
  readonly name: string;
  readonly unit: Unit;
  readonly value: number;
};

/**
 * Does one round, and leaves nothing that would be in the way of the next. Where all jobs are finished there is nothing to
 * clear: to have its Redis emptied meanwhile is no part of a broker's daily work.
 */
export type Round = () => Promise<readonly Measure[]>;

/** What Baton's median must be: of one measure alone, or over that of another system. */
export type ComparisonGoal = { readonly label: string; readonly over?: string; readonly goal: Goal };

export type Comparison = {
  /** What is measured, in one line. */
  readonly title: (size: Size) => string;
  readonly durability: Durability;
  readonly needs: readonly Ability[];
  /** Systems that are left out, each with why. */
  readonly except?: Readonly<Record<string, string>>;
  /** Only systems that keep their jobs in a Redis. */
  readonly needsRedis?: boolean;
  /** In turns A B C A B C. Else each system is started, does all of its rounds, and is ended before the next one is. */
  readonly inTurns: boolean;
  /** Default: as many as the run's size says. */
  readonly rounds?: (size: Size) => number;
  readonly goals: readonly ComparisonGoal[];
  /** Warms up, and makes ready what the rounds need. */
  prepare(contender: Contender, size: Size): Promise<Round>;
};

/** How a measure is named in rows, tables and goals: "jobs/s", "ms (p50)". */
export function labelOf({ name, unit }: Pick<Measure, "name" | "unit">): string {
  return name === "" ? unit : `${unit} (${name})`;
}
