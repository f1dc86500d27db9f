/** The command line of `npm run bench -- …`. */
import { parseArgs } from "node:util";
import { COMPARISONS, comparisonsWithGoals } from "../compare/comparisons.ts";
import { SYSTEMS } from "../systems/systems.ts";
import { WORKLOADS } from "../workloads.ts";

export type BenchOptions = {
  readonly short: boolean;
  /** Undefined: those that a workload is about. */
  readonly systems: readonly string[] | undefined;
  readonly jsonFile: string | undefined;
  readonly plotFile: string | undefined;
  readonly markdownFile: string | undefined;
  readonly profileFolder: string | undefined;
  readonly workloads: readonly string[];
  /** All comparisons of all systems, at full length: the results are kept, also when no file is named. */
  readonly isFull: boolean;
};

export type Command = { readonly kind: "help" | "install" } | { readonly kind: "run"; readonly options: BenchOptions };

const ALL_WORKLOADS = [...Object.keys(COMPARISONS), ...Object.keys(WORKLOADS)];
/** In place of the names of all workloads that have nobody to compare with. */
const OWN_WORKLOADS = "own";

export const HELP = `npm run bench -- [options] [workload …]

Measures this checkout's broker beside its peers and its limits. Everything is started fresh, in temporary folders and
on loopback, and ended. Without workloads: all that are compared, in 40 minutes.
Compared:    ${Object.keys(COMPARISONS).join(", ")}
Baton's own: ${Object.keys(WORKLOADS).join(", ")}; or ${OWN_WORKLOADS}, for all of these
Systems:     ${Object.keys(SYSTEMS).join(", ")}

  --install         installs the peers that are missing, and ends
  --systems A,B     only these systems; else all of them, and with --short those that Baton has a goal beside
  --short           fewer and shorter rounds, and only workloads with goals: about two minutes in all
  --json FILE       writes machine, versions and a row for each figure to FILE
  --plot FILE       draws what was compared, as SVG
  --markdown FILE   writes what was compared as a table in Markdown
  --profile FOLDER  writes CPU profiles of broker and clients, for Chrome's developer tools, to FOLDER/WORKLOAD
  --help            shows this

A run of all comparisons and systems, without --short, also writes its JSON and its plot to bench/results.`;

/** Throws with a sentence when something is wrong. */
export function readOptions(args: readonly string[]): Command {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      short: { type: "boolean", default: false },
      systems: { type: "string" },
      json: { type: "string" },
      plot: { type: "string" },
      markdown: { type: "string" },
      profile: { type: "string" },
      install: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return { kind: "help" };
  if (values.install) return { kind: "install" };
  const systems = values.systems?.split(",");
  checkNames("system", systems ?? [], Object.keys(SYSTEMS));
  checkNames("workload", positionals, [...ALL_WORKLOADS, OWN_WORKLOADS]);
  const named = positionals.flatMap((name) => (name === OWN_WORKLOADS ? Object.keys(WORKLOADS) : name));
  const byDefault = values.short ? comparisonsWithGoals() : Object.keys(COMPARISONS);
  const options = {
    short: values.short,
    systems,
    jsonFile: values.json,
    plotFile: values.plot,
    markdownFile: values.markdown,
    profileFolder: values.profile,
    workloads: named.length > 0 ? named : byDefault,
    isFull: !values.short && systems === undefined && positionals.length === 0,
  };
  return { kind: "run", options };
}

function checkNames(what: string, names: readonly string[], known: readonly string[]): void {
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`there is no ${what} "${unknown}": name some of ${known.join(", ")}`);
}
