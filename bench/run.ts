/**
 * `npm run bench`: runs the workloads one after the other and prints their figures. Every process that takes part (the
 * broker, its Redis, the client, a server to compare with) is started for one workload and ended with it.
 */
import { writeFile } from "node:fs/promises";
import { describeMachine, load } from "./support/machine.ts";
import { type Measured, measure } from "./support/measure.ts";
import { type BenchOptions, HELP, readOptions } from "./support/options.ts";
import { workloadReport } from "./support/report.ts";

/** Above this, something else is running, and takes part in the figures. */
const QUIET_LOAD = 0.5;

async function run(options: BenchOptions, signal: AbortSignal): Promise<void> {
  const machine = await describeMachine();
  const loadAtStart = load();
  console.log(`${machine.cores} × ${machine.cpu}, Node ${machine.node}, Redis ${machine.redis} (appendfsync everysec)`);
  console.log(`load before: ${loadAtStart.toFixed(2)}${loadAtStart > QUIET_LOAD ? ", the machine is busy" : ""}`);
  console.log("medians, and the least and greatest of the rounds");
  const workloads: Measured[] = [];
  for (const name of options.workloads) {
    const measured = await measure(name, options, signal);
    workloads.push(measured);
    console.log(`\n${workloadReport(measured.title, measured.figures)}`);
  }
  if (options.jsonFile !== undefined) {
    const report = { takenAt: new Date().toISOString(), short: options.short, machine, loadAtStart, workloads };
    await writeFile(options.jsonFile, `${JSON.stringify(report, undefined, 2)}\n`);
  }
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
  const options = readOptions(process.argv.slice(2));
  if (options) await run(options, abortOnSignal());
  else console.log(HELP);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
