/** All results as a table for a page in Markdown: a line for each measure, a column for each system. */
import { isLessBetter, shown } from "../support/report.ts";
import { costsOf, labelsOf, type Result, rowOf } from "./result.ts";
import { OWN, unitOf } from "./rows.ts";

const ABSENT = { measured: "–", "left out": "–", missing: "missing", failed: "failed" } as const;

export function markdownOf(results: readonly Result[]): string {
  const systems = [...new Set(results.flatMap(({ outcomes }) => [...outcomes.keys()]))];
  const speeds = results.flatMap((result) =>
    labelsOf(result).map((label) => {
      const better = isLessBetter(unitOf(label)) ? "less" : "more";
      return [`${result.name}, ${label}`, better, ...systems.map((name) => cell(result, name, label))];
    }),
  );
  const costs = results
    .filter((result) => systems.some((name) => costsOf(result, name) !== ""))
    .map((result) => [result.name, ...systems.map((name) => costsOf(result, name) || absence(result, name))]);
  const tables = [
    "Medians; in brackets, how many times the system's median Baton's is.",
    table(["workload, unit", "better", ...systems], speeds),
    ...(costs.length > 0 ? ["CPU time in µs for each job.", table(["workload", ...systems], costs)] : []),
    results.map(({ name, title }) => `- \`${name}\`: ${title}`).join("\n"),
  ];
  return `${tables.join("\n\n")}\n`;
}

function cell(result: Result, system: string, label: string): string {
  const row = rowOf(result, system, label);
  if (!row) return absence(result, system);
  const value = shown(row.median, unitOf(label));
  if (system === OWN) return `**${value}**`;
  return row.ratio === null ? value : `${value} (${row.ratio.toFixed(2)} ×)`;
}

function absence({ outcomes }: Result, system: string): string {
  return ABSENT[outcomes.get(system)?.kind ?? "left out"];
}

function table(head: readonly string[], lines: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const rule = `|${head.map((_, n) => (n === 0 ? "---" : "--:")).join("|")}|`;
  return [line(head), rule, ...lines.map(line)].join("\n");
}
