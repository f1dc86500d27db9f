/** The process of one workload: `run-workload.ts NAME STAGE-AS-JSON`. Its figures go to the benchmark by IPC. */
import { WORKLOADS } from "../workloads.ts";
import type { Stage } from "./workload.ts";

const [name = "", stage = ""] = process.argv.slice(2);
const load = WORKLOADS[name];
if (!load) throw new Error(`there is no workload ${name}`);
const workload = await load();
const figures = await workload.run(JSON.parse(stage) as Stage);
process.send?.({ title: workload.title, figures });
