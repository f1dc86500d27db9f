/** A worker that takes jobs and keeps them, until it is killed: `crashing-worker.ts OPTIONS-AS-JSON`. */
import { LeanClient } from "./lean-client.ts";
import { openWorker, type StreamKind } from "./open-worker.ts";

export type CrashingWorkerOptions = {
  readonly address: string;
  readonly kind: StreamKind;
  readonly queue: string;
  readonly jobs: number;
};

const { address, kind, queue, jobs } = JSON.parse(process.argv[2] ?? "") as CrashingWorkerOptions;
let held = 0;
openWorker(new LeanClient(address), {
  kind,
  queue,
  maxOutstanding: jobs,
  onJobs(come) {
    held += come.length;
    if (held === jobs) process.send?.("holds all");
  },
  onFailure(error) {
    console.error(error);
    process.exit(1);
  },
});
