/**
 * The process of a part of many workers: `fleet-process.ts OPTIONS-AS-JSON`. Says "open" when all of its streams are, then
 * completes each job as it comes; when it is asked to "tell", it says how long those took that have come since.
 */
import { once } from "node:events";
import type { FleetAnswer, FleetOptions } from "./fleet.ts";
import { LeanClient } from "./lean-client.ts";
import { openWorker } from "./open-worker.ts";
import { sincePut } from "./timed-jobs.ts";

/** Streams that are being opened at the same time. */
const OPENING = 50;

const options = JSON.parse(process.argv[2] ?? "") as FleetOptions;
const clients = Array.from({ length: options.connections }, () => new LeanClient(options.address));
let latenciesMs: number[] = [];

function say(answer: FleetAnswer): void {
  process.send?.(answer);
}

function fail(error: unknown): void {
  console.error(error);
  process.exit(1);
}

let opened = 0;
async function openSome(): Promise<void> {
  while (opened < options.streams) {
    const n = opened++;
    const client = clients[n % clients.length] as LeanClient;
    const queue = options.queues[n % options.queues.length] as string;
    const worker = openWorker(client, {
      kind: options.kind,
      queue,
      maxOutstanding: options.maxOutstanding,
      onFailure: fail,
      onJobs(jobs, { complete }) {
        for (const job of jobs) {
          latenciesMs.push(sincePut(job.id));
          complete(job).catch(fail);
        }
      },
    });
    await worker.started;
  }
}

process.on("message", () => {
  say({ kind: "arrived", latenciesMs });
  latenciesMs = [];
});
await Promise.all(Array.from({ length: OPENING }, openSome)).catch(fail);
say({ kind: "open" });
await once(process, "SIGTERM");
process.exit(0);
