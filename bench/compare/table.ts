/** A result as lines of text for the terminal. */
import { isLessBetter, shown } from "../support/report.ts";
import { costsOf, labelsOf, type Result, rowOf } from "./result.ts";
import { OWN, unitOf } from "./rows.ts";

const WIDTHS = { system: 12, median: 10, spread: 22, ratio: 9, reason: 200 };

export function tableOf(result: Result): string {
  const blocks = labelsOf(result).flatMap((label, n) => block(result, label, n === 0));
  const goals = result.goals.map((goal) => `  ${goal}`);
  return [`${result.name}: ${result.title}`, ...blocks, ...absences(result), ...goals].join("\n");
}

function block(result: Result, label: string, withCosts: boolean): string[] {
  const show = (value: number) => shown(value, unitOf(label));
  const lines = [...result.outcomes.keys()].flatMap((system) => {
    const row = rowOf(result, system, label);
    if (!row) return [];
    const costs = withCosts ? costsOf(result, system) : "";
    const columns = [
      `    ${system.padEnd(WIDTHS.system)}`,
      show(row.median).padStart(WIDTHS.median),
      `  ${show(row.min)} to ${show(row.max)}`.padEnd(WIDTHS.spread),
      (system === OWN || row.ratio === null ? "" : `${row.ratio.toFixed(2)} ×`).padStart(WIDTHS.ratio),
      costs === "" ? "" : `  CPU µs/job: ${costs}`,
    ];
    return [columns.join(" ").trimEnd()];
  });
  return [`  ${label}${isLessBetter(unitOf(label)) ? ", less is better" : ""}`, ...lines];
}

/** Who was not measured, and why: its last line says most. */
function absences({ outcomes }: Result): string[] {
  return [...outcomes].flatMap(([system, outcome]) => {
    if (outcome.kind === "measured") return [];
    const lines = outcome.reason.trim().split("\n");
    const first = cut(lines[0] ?? "");
    const last = lines.length > 1 ? `\n      … ${cut(lines.at(-1)?.trim() ?? "")}` : "";
    return [`    ${system.padEnd(WIDTHS.system)} ${outcome.kind}: ${first}${last}`];
  });
}

function cut(line: string): string {
  return line.length > WIDTHS.reason ? `${line.slice(0, WIDTHS.reason)} …` : line;
}
