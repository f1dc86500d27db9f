/** The figures as people read them. */
import { median } from "./statistics.ts";
import type { Figure, Goal, Unit } from "./workload.ts";

const WIDTHS = { name: 32, median: 10, unit: 10, spread: 20 };

export function workloadReport(title: string, figures: readonly Figure[]): string {
  return [title, ...figures.map((figure) => `  ${line(figure)}`)].join("\n");
}

function line({ name, unit, rounds, goal }: Figure): string {
  const show = (value: number) => shown(value, unit);
  const middle = median(rounds);
  const spread = rounds.length > 1 ? `${show(Math.min(...rounds))} to ${show(Math.max(...rounds))}` : "";
  const columns = [
    name.padEnd(WIDTHS.name),
    show(middle).padStart(WIDTHS.median),
    (unit === "ratio" ? "" : unit).padEnd(WIDTHS.unit),
    spread.padEnd(WIDTHS.spread),
    goal ? verdict(middle, goal, show) : "",
  ];
  return columns.join(" ").trimEnd();
}

export function verdict(value: number, goal: Goal, show: (value: number) => string): string {
  const isMet = "atLeast" in goal ? value >= goal.atLeast : value <= goal.atMost;
  const wanted = "atLeast" in goal ? `at least ${show(goal.atLeast)}` : `at most ${show(goal.atMost)}`;
  return `goal: ${wanted}: ${isMet ? "reached" : "MISSED"}`;
}

/** Of all that is measured here, only speeds and ratios are better when they are greater. */
export function isLessBetter(unit: Unit): boolean {
  return unit !== "jobs/s" && unit !== "ratio";
}

/** A value as people read it, without its unit. */
export function shown(value: number, unit: Unit): string {
  switch (unit) {
    case "jobs/s":
    case "bytes/job":
    case "bytes/stream":
    case "connections":
      return Math.round(value).toLocaleString("en");
    case "ratio":
    case "ms":
      return value.toFixed(2);
    case "calls":
    case "% of a core":
    case "µs/job":
      return value.toFixed(1);
  }
}
