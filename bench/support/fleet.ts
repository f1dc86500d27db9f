/** Many workers' streams, in processes of their own, so that the time which they need is not the producer's. */
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { within } from "../../test/support/wait.ts";
import { end, launch } from "./node-process.ts";
import type { StreamKind } from "./open-worker.ts";

export type FleetOptions = {
  readonly address: string;
  readonly kind: StreamKind;
  readonly connections: number;
  readonly streams: number;
  /** Each stream is at one of them, in turn. */
  readonly queues: readonly string[];
  readonly maxOutstanding: number;
};

/** What a process of the fleet says. */
export type FleetAnswer =
  | { readonly kind: "open" }
  | { readonly kind: "arrived"; readonly latenciesMs: readonly number[] };

export type Fleet = {
  /** From put to arrival, of the jobs that have come since it was last asked. */
  latenciesMs(): Promise<number[]>;
  close(): Promise<void>;
};

const PROCESSES = 2;
const OPEN_WITHIN_MS = 60_000;
const TELL_WITHIN_MS = 10_000;

/** Resolves when all streams are open. */
export async function openFleet(options: FleetOptions): Promise<Fleet> {
  const share = {
    ...options,
    connections: options.connections / PROCESSES,
    streams: options.streams / PROCESSES,
  };
  const script = join("bench", "support", "fleet-process.ts");
  const children = Array.from({ length: PROCESSES }, () => {
    const child = launch({ script, args: [JSON.stringify(share)] }, "inherit");
    child.stdout?.pipe(process.stderr);
    return child;
  });
  const close = async () => {
    await Promise.all(children.map(end));
  };
  try {
    await Promise.all(children.map((child) => answerOf(child, "open", OPEN_WITHIN_MS)));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    close,
    async latenciesMs() {
      const answers = children.map((child) => {
        const answer = answerOf(child, "arrived", TELL_WITHIN_MS);
        child.send("tell");
        return answer;
      });
      return (await Promise.all(answers)).flatMap(({ latenciesMs }) => latenciesMs);
    },
  };
}

async function answerOf<K extends FleetAnswer["kind"]>(
  child: ChildProcess,
  kind: K,
  withinMs: number,
): Promise<Extract<FleetAnswer, { kind: K }>> {
  const { promise, resolve, reject } = Promise.withResolvers<FleetAnswer>();
  const onExit = () => reject(new Error("a process of the fleet has ended"));
  child.once("message", resolve);
  child.once("exit", onExit);
  try {
    const answer = await within(promise, { what: `the fleet to say "${kind}"`, withinMs });
    if (answer.kind !== kind) throw new Error(`the fleet says "${answer.kind}" instead of "${kind}"`);
    return answer as Extract<FleetAnswer, { kind: K }>;
  } finally {
    child.off("message", resolve);
    child.off("exit", onExit);
  }
}
