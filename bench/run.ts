/**
 * `npm run bench`: runs the workloads one after the other and prints their figures. Every process that takes part (the
 * brokers, their Redis, the clients) is started for one workload and ended with it.
 */
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { compare } from "./compare/compare.ts";
import { COMPARISONS } from "./compare/comparisons.ts";
import { loadSystems, SIZES, systemNames } from "./compare/lineup.ts";
import { type Result, resultOf } from "./compare/result.ts";
import { rowsOfFigures } from "./compare/rows.ts";
import { tableOf } from "./compare/table.ts";
import { describeMachine, load } from "./support/machine.ts";
import { type MeasureOptions, measure } from "./support/measure.ts";
import { type BenchOptions, HELP, readOptions } from "./support/options.ts";
import { workloadReport } from "./support/report.ts";
import { type Report, writeReport } from "./support/write-report.ts";

/** Above this, something else is running, and takes part in the figures. */
const QUIET_LOAD = 0.5;
const INSTALL = fileURLToPath(new URL("./install.sh", import.meta.url));

async function run(options: BenchOptions, signal: AbortSignal): Promise<void> {
  const machine = await describeMachine();
  const report: Report = {
    takenAt: new Date(),
    short: options.short,
    machine,
    load: load(),
    results: [],
    ownRows: [],
    ownFailures: [],
  };
  console.log(`${machine.cores} × ${machine.cpu}, Node ${machine.node}, Redis ${machine.redis}`);
  console.log(`load before: ${report.load.toFixed(2)}${report.load > QUIET_LOAD ? ", the machine is busy" : ""}`);
  console.log("medians, the least and greatest of the rounds, and ×: how many times the system's median Baton's is");
  for (const name of options.workloads) {
    const profileFolder = options.profileFolder && resolve(options.profileFolder, name);
    const { short } = options;
    if (Object.hasOwn(COMPARISONS, name)) {
      const result = await runComparison(name, options, profileFolder, signal);
      report.results.push(result);
      console.log(`\n${tableOf(result)}`);
    } else {
      await runOwn(name, { short, profileFolder, signal }, report);
    }
  }
  await writeReport(report, options);
  const outcomes = report.results.flatMap((result) => [...result.outcomes.values()]);
  if (report.ownFailures.length > 0 || outcomes.some(({ kind }) => kind === "failed")) process.exitCode = 1;
}

/** One that fails does not take with it what the others have measured. */
async function runOwn(name: string, options: MeasureOptions, report: Report): Promise<void> {
  try {
    const { title, figures } = await measure(name, options);
    report.ownRows.push(...rowsOfFigures(name, figures));
    console.log(`\n${workloadReport(`${name}: ${title}`, figures)}`);
  } catch (error) {
    options.signal.throwIfAborted();
    const reason = error instanceof Error ? error.message : String(error);
    report.ownFailures.push({ workload: name, reason });
    console.log(`\n${name}: failed: ${reason}`);
  }
}

async function runComparison(
  name: string,
  { systems: chosen, short }: BenchOptions,
  profileFolder: string | undefined,
  signal: AbortSignal,
): Promise<Result> {
  const comparison = COMPARISONS[name];
  if (!comparison) throw new Error(`there is no comparison "${name}"`);
  const systems = await loadSystems(systemNames(comparison, chosen, short));
  const size = short ? SIZES.short : SIZES.full;
  return resultOf(name, comparison, size, await compare(comparison, systems, { size, profileFolder, signal }));
}

/** The first signal ends everything in order; the second at once, and then what is left ends by itself. */
function abortOnSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => controller.abort(new Error(`ended by ${name}`)));
  }
  return controller.signal;
}

try {
  const command = readOptions(process.argv.slice(2));
  if (command.kind === "run") await run(command.options, abortOnSignal());
  else if (command.kind === "help") console.log(HELP);
  else process.exitCode = spawnSync("sh", [INSTALL], { stdio: "inherit" }).status ?? 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
