/** The command line of `npm run bench -- …`. */
import { parseArgs } from "node:util";
import { WORKLOADS } from "../workloads.ts";

export type BenchOptions = {
  readonly short: boolean;
  readonly jsonFile: string | undefined;
  readonly profileFolder: string | undefined;
  readonly workloads: readonly string[];
};

export const HELP = `npm run bench -- [options] [workload …]

Measures this checkout's broker with a Redis of its own, in temporary folders and on loopback, and ends both.
Workloads: ${Object.keys(WORKLOADS).join(", ")} (all of them when none is named).

  --short           fewer and shorter rounds: about two minutes in all
  --json FILE       also writes everything, each round's values included, to FILE
  --profile FOLDER  writes CPU profiles of broker and client, for Chrome's developer tools, to FOLDER/WORKLOAD
  --help            shows this`;

/** Undefined when help is wanted; throws with a sentence when something is wrong. */
export function readOptions(args: readonly string[]): BenchOptions | undefined {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      short: { type: "boolean", default: false },
      json: { type: "string" },
      profile: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  const unknown = positionals.find((name) => !Object.hasOwn(WORKLOADS, name));
  if (unknown !== undefined) {
    throw new Error(`there is no workload ${unknown}: name some of ${Object.keys(WORKLOADS).join(", ")}`);
  }
  return {
    short: values.short,
    jsonFile: values.json,
    profileFolder: values.profile,
    workloads: positionals.length > 0 ? positionals : Object.keys(WORKLOADS),
  };
}
