/**
 * A worker that tests start as a process of its own, to be killed: says what it does as lines of JSON. What it is to do is
 * its argument, see worker-process.ts. Jobs are held until the text "finish" comes on stdin; when that ends, so does this.
 */
import { once } from "node:events";
import { BatonClient, Worker } from "../../src/client/index.ts";
import { WorkerOfAKind } from "./worker-of-a-kind.ts";
import type { WorkerLine, WorkerTask } from "./worker-process.ts";

const say = (line: WorkerLine) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** A stream that does nothing but hold so many jobs. */
async function hold(task: Extract<WorkerTask, { kind: "Work" | "Subscribe" }>): Promise<void> {
  const start = { queues: [{ name: task.queue }], maxOutstanding: task.concurrency };
  const worker = await WorkerOfAKind.open(task.kind, task.address, start);
  for (const { id, attempt } of await worker.got(task.concurrency)) say({ event: "run", id, attempt });
}

async function run(task: Extract<WorkerTask, { kind: "Worker" }>): Promise<void> {
  const finish = once(process.stdin, "data");
  const worker = new Worker(new BatonClient({ address: task.address }), {
    queues: [task.queue],
    concurrency: task.concurrency,
    leaseMs: task.leaseMs,
    maxReconnectDelayMs: 200,
    async handler({ id, attempt }, { signal }) {
      say({ event: "run", id, attempt });
      signal.addEventListener("abort", () => say({ event: "aborted", id, attempt }), { once: true });
      if (task.runMs === undefined) await finish;
      else await new Promise((resolve) => setTimeout(resolve, task.runMs));
    },
    onReleased: ({ id, attempt }, _outcome, { state }) => say({ event: "released", id, attempt, state }),
    onError: (error, { during, job }) => say({ event: "error", during, message: String(error), id: job?.id }),
  });
  await worker.start();
  await worker.closed;
}

const task = JSON.parse(process.argv[2] ?? "") as WorkerTask;
process.stdin.once("end", () => process.exit()).resume();
await (task.kind === "Worker" ? run(task) : hold(task));
