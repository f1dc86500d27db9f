/** What a run leaves behind in files: rows for programs, a plot and a table for people. */
import { mkdir, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { markdownOf } from "../compare/markdown.ts";
import { plotOf } from "../compare/plot.ts";
import type { Result } from "../compare/result.ts";
import { OWN, type Row } from "../compare/rows.ts";
import type { System } from "../systems/system.ts";
import { SYSTEMS } from "../systems/systems.ts";
import type { Machine } from "./machine.ts";
import type { BenchOptions } from "./options.ts";

export type Report = {
  readonly takenAt: Date;
  readonly short: boolean;
  readonly machine: Machine;
  /** Of the machine, before anything was started. */
  readonly load: number;
  readonly results: Result[];
  /** Of the workloads that have nobody to compare with. */
  readonly ownRows: Row[];
  readonly ownFailures: { readonly workload: string; readonly reason: string }[];
};

const RESULTS = fileURLToPath(new URL("../results", import.meta.url));

export async function writeReport(report: Report, options: BenchOptions): Promise<void> {
  const { jsonFile, plotFile, markdownFile } = options.isFull ? { ...kept(report), ...named(options) } : options;
  if (options.isFull) await mkdir(RESULTS, { recursive: true });
  if (jsonFile !== undefined) await write(jsonFile, `${JSON.stringify(jsonOf(report), undefined, 2)}\n`);
  if (plotFile !== undefined) await write(plotFile, await plot(report));
  if (markdownFile !== undefined) await write(markdownFile, markdownOf(report.results));
}

export function jsonOf({ takenAt, short, machine, load, results, ownRows, ownFailures }: Report) {
  return {
    takenAt: takenAt.toISOString(),
    short,
    machine,
    loadAtStart: load,
    versions: versionsOf(results),
    rows: [...results.flatMap(({ rows }) => rows), ...ownRows],
    goals: results.flatMap(({ name, goals }) => goals.map((goal) => `${name}: ${goal}`)),
    notMeasured: [
      ...results.flatMap(({ name, outcomes }) =>
        [...outcomes].flatMap(([system, outcome]) =>
          outcome.kind === "measured" ? [] : [{ workload: name, system, kind: outcome.kind, reason: outcome.reason }],
        ),
      ),
      ...ownFailures.map(({ workload, reason }) => ({ workload, system: OWN, kind: "failed", reason })),
    ],
  };
}

type Files = Pick<BenchOptions, "jsonFile" | "plotFile" | "markdownFile">;

/** Where a full run is kept: by its day and by the size of its machine. */
function kept({ takenAt, machine }: Report): Files {
  const base = `${RESULTS}/${takenAt.toISOString().slice(0, 10)}-${machine.cores}-cores`;
  return { jsonFile: `${base}.json`, plotFile: `${base}.svg`, markdownFile: undefined };
}

function named({ jsonFile, plotFile, markdownFile }: BenchOptions): Partial<Files> {
  return Object.fromEntries(
    Object.entries({ jsonFile, plotFile, markdownFile }).filter(([, file]) => file !== undefined),
  );
}

async function write(file: string, text: string): Promise<void> {
  await writeFile(file, text);
  console.log(`\nwritten: ${file}`);
}

/** What ran, and how it was set in each of the comparisons. */
function versionsOf(results: readonly Result[]): Record<string, { version: string; durability: string[] }> {
  const versions: Record<string, { version: string; durability: string[] }> = {};
  for (const [system, outcome] of results.flatMap(({ outcomes }) => [...outcomes])) {
    if (outcome.kind !== "measured") continue;
    const entry = versions[system] ?? { version: outcome.version, durability: [] };
    if (!entry.durability.includes(outcome.durability)) entry.durability.push(outcome.durability);
    versions[system] = entry;
  }
  return versions;
}

async function plot({ takenAt, machine, results }: Report): Promise<string> {
  const names = new Set(results.flatMap(({ outcomes }) => [...outcomes.keys()]));
  const kinds: Record<string, System["kind"]> = {};
  for (const name of names) {
    const system = await SYSTEMS[name]?.();
    if (system) kinds[name] = system.kind;
  }
  const caption = `${takenAt.toISOString().slice(0, 10)}, ${machine.cores} × ${machine.cpu}, Node ${machine.node}`;
  return plotOf(results, { caption, kinds });
}
