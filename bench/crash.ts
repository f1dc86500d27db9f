/** How long the jobs of a worker that dies wait for the next: from kill -9 until all of them have been handed out again. */
import { once } from "node:events";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { JobService, PutManyRequestSchema } from "../gen/baton/v1/job_service_pb.js";
import { within } from "../test/support/wait.ts";
import type { CrashingWorkerOptions } from "./support/crashing-worker.ts";
import { newJob } from "./support/jobs.ts";
import { LeanClient } from "./support/lean-client.ts";
import { end, launch } from "./support/node-process.ts";
import { openWorker, type StreamKind } from "./support/open-worker.ts";
import type { Figure, Stage, Workload } from "./support/workload.ts";

const HELD = 100;
/** The default. */
const DISCONNECT_GRACE_MS = 2_000;
const GOAL_MS = DISCONNECT_GRACE_MS + 500;
const HOLD_WITHIN_MS = 10_000;
const RETURN_WITHIN_MS = 60_000;

export const crash: Workload = {
  title: `A worker with ${HELD} leases is killed: until another has all its jobs, disconnect_grace ${DISCONNECT_GRACE_MS} ms`,
  run,
};

async function run({ broker: { address }, short }: Stage): Promise<Figure[]> {
  const client = new LeanClient(address);
  const putMany = client.unary(JobService.method.putMany);

  /** In ms. */
  async function killOne(kind: StreamKind): Promise<number> {
    const queue = `bench-crash-${kind}`;
    await putMany(create(PutManyRequestSchema, { jobs: Array.from({ length: HELD }, () => newJob(queue)) }));
    const script = join("bench", "support", "crashing-worker.ts");
    const options: CrashingWorkerOptions = { address, kind, queue, jobs: HELD };
    const victim = launch({ script, args: [JSON.stringify(options)] }, "inherit");
    victim.stdout?.pipe(process.stderr);
    const { promise: allBack, resolve: onAllBack, reject: onFailure } = Promise.withResolvers<number>();
    allBack.catch(() => {});
    const completed: Promise<void>[] = [];
    try {
      await within(once(victim, "message"), { what: "a worker to hold its jobs", withinMs: HOLD_WITHIN_MS });
      const heir = openWorker(client, {
        kind,
        queue,
        maxOutstanding: HELD,
        onFailure,
        onJobs(jobs, { complete }) {
          if (jobs.some(({ attempt }) => attempt !== 2)) onFailure(new Error("a job came that was not the victim's"));
          completed.push(...jobs.map(complete));
          if (completed.length === HELD) onAllBack(performance.now());
        },
      });
      try {
        await heir.started;
        const killedAt = performance.now();
        victim.kill("SIGKILL");
        const backAt = await within(allBack, { what: "all jobs to come back", withinMs: RETURN_WITHIN_MS });
        await Promise.all(completed);
        return backAt - killedAt;
      } finally {
        heir.close();
      }
    } finally {
      await end(victim);
    }
  }

  try {
    const figures: Figure[] = [];
    for (const kind of ["Work", "Subscribe"] as const) {
      const rounds: number[] = [];
      for (let round = 0; round < (short ? 2 : 7); round++) rounds.push(await killOne(kind));
      figures.push({ name: kind, unit: "ms", rounds, goal: { atMost: GOAL_MS } });
    }
    return figures;
  } finally {
    client.close();
  }
}
