/** One comparison that has been run: what every report of it is made of. */
import { shown, verdict } from "../support/report.ts";
import type { Outcome } from "./compare.ts";
import type { Comparison, ComparisonGoal, Size } from "./comparison.ts";
import { isCost, OWN, type Row, rowsOf, unitOf } from "./rows.ts";

export type Result = {
  readonly name: string;
  readonly title: string;
  readonly outcomes: ReadonlyMap<string, Outcome>;
  readonly rows: readonly Row[];
  /** One sentence for each goal. */
  readonly goals: readonly string[];
};

export function resultOf(
  name: string,
  { title, goals }: Comparison,
  size: Size,
  outcomes: ReadonlyMap<string, Outcome>,
): Result {
  const rows = rowsOf(name, outcomes);
  return { name, title: title(size), outcomes, rows, goals: goals.map((goal) => sentence(goal, rows)) };
}

/** The labels of a result that are no costs, in their order. */
export function labelsOf({ rows }: Pick<Result, "rows">): string[] {
  return [...new Set(rows.map(({ unit }) => unit))].filter((label) => !isCost(label));
}

export function rowOf({ rows }: Pick<Result, "rows">, system: string, label: string): Row | undefined {
  return rows.find((row) => row.system === system && row.unit === label);
}

/** What a job costs, such as "broker 15.5, redis 9.0, client 9.1"; empty when it is not known. */
export function costsOf({ rows }: Pick<Result, "rows">, system: string): string {
  const costs = rows.filter((row) => row.system === system && isCost(row.unit));
  const parts = costs.map(({ unit, median }) => `${/\((.*)\)/.exec(unit)?.[1]} ${shown(median, unitOf(unit))}`);
  return parts.join(", ");
}

function sentence({ label, over, goal }: ComparisonGoal, rows: readonly Row[]): string {
  const row = rowOf({ rows }, over ?? OWN, label);
  const value = over === undefined ? row?.median : row?.ratio;
  const what = over === undefined ? `${OWN}'s ${label}` : `${label}, ${OWN} : ${over}`;
  if (value === undefined || value === null) return `${what}: not measured`;
  const show = (number: number) => shown(number, "ratio");
  return `${what}: ${show(value)}, ${verdict(value, goal, show)}`;
}
