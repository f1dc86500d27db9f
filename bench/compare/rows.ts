/** What comes out, as rows: one for each system and measure. Programs read them, and all that people read is made of them. */
import { median } from "../support/statistics.ts";
import type { Figure, Unit } from "../support/workload.ts";
import type { Outcome } from "./compare.ts";
import { labelOf } from "./comparison.ts";

export type Row = {
  readonly workload: string;
  readonly system: string;
  /** The measure's unit, and its name where a workload has several of that unit: "µs/job (broker)". */
  readonly unit: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Baton's median over this one; null when there is none of Baton. */
  readonly ratio: number | null;
};

/** What all others are compared with. */
export const OWN = "baton";
/** Of a value that is measured; more would be noise. */
const DIGITS = 6;

export function rowsOf(workload: string, outcomes: ReadonlyMap<string, Outcome>): Row[] {
  const valuesOf = new Map([...outcomes].map(([system, outcome]) => [system, valuesByLabel(outcome)]));
  const own = valuesOf.get(OWN);
  return [...valuesOf].flatMap(([system, labels]) =>
    [...labels].map(([unit, values]) => row({ workload, system, unit }, values, own?.get(unit))),
  );
}

/** Those of a workload that has nobody to compare with. */
export function rowsOfFigures(workload: string, figures: readonly Figure[]): Row[] {
  return figures.map((figure) => row({ workload, system: OWN, unit: labelOf(figure) }, figure.rounds, figure.rounds));
}

/** "µs/job (broker)": a cost, told beside the measure that it belongs to. */
export function isCost(label: string): boolean {
  return label.startsWith("µs/job");
}

/** The unit of a label, without the measure's name. */
export function unitOf(label: string): Unit {
  return label.replace(/ \(.*$/, "") as Unit;
}

function row(
  key: Pick<Row, "workload" | "system" | "unit">,
  values: readonly number[],
  own: readonly number[] | undefined,
): Row {
  return {
    ...key,
    median: rounded(median(values)),
    min: rounded(Math.min(...values)),
    max: rounded(Math.max(...values)),
    ratio: own ? rounded(median(own) / median(values)) : null,
  };
}

function valuesByLabel(outcome: Outcome): Map<string, number[]> {
  const values = new Map<string, number[]>();
  for (const measure of outcome.kind === "measured" ? outcome.rounds.flat() : []) {
    const label = labelOf(measure);
    const of = values.get(label) ?? [];
    of.push(measure.value);
    values.set(label, of);
  }
  return values;
}

function rounded(value: number): number {
  return Number(value.toPrecision(DIGITS));
}
