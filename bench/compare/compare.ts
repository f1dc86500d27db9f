/**
 * Runs one comparison: every system started fresh, each warmed up, and then rounds in turns A B C A B C, so that whatever
 * else the machine does meets all of them.
 *
 * A system that is missing, or that does not start or breaks down, is told as such, and the others go on without it.
 */
import { resolve } from "node:path";
import { Missing, type System } from "../systems/system.ts";
import type { Comparison, Measure, Round, Size } from "./comparison.ts";
import { type Contender, startContender } from "./contender.ts";

/** How one system came through. */
export type Outcome =
  | { readonly kind: "measured"; readonly version: string; readonly durability: string; readonly rounds: Rounds }
  /** It cannot take part, by its nature; it is no fault. */
  | { readonly kind: "left out"; readonly reason: string }
  | { readonly kind: "missing"; readonly reason: string }
  | { readonly kind: "failed"; readonly reason: string };

/** The measures of each round. */
export type Rounds = readonly (readonly Measure[])[];

export type CompareOptions = {
  readonly size: Size;
  /** Each system's profiles go to a folder of its name in this one. */
  readonly profileFolder?: string | undefined;
  readonly signal: AbortSignal;
};

/** In the order of the systems. */
export async function compare(
  comparison: Comparison,
  systems: readonly System[],
  options: CompareOptions,
): Promise<ReadonlyMap<string, Outcome>> {
  const outcomes = new Map<string, Outcome>();
  const groups = comparison.inTurns ? [systems] : systems.map((system) => [system]);
  for (const group of groups) await compareInTurns(comparison, group, options, outcomes);
  return new Map(systems.map(({ name }) => [name, outcomes.get(name) ?? leftOut("it was not asked")]));
}

async function compareInTurns(
  comparison: Comparison,
  systems: readonly System[],
  { size, profileFolder, signal }: CompareOptions,
  outcomes: Map<string, Outcome>,
): Promise<void> {
  const contenders = new Map<string, Contender>();
  const prepared = new Map<string, Round>();
  const measured = new Map<string, (readonly Measure[])[]>();

  async function start(system: System): Promise<void> {
    const unable = whyNot(comparison, system);
    if (unable !== undefined) {
      outcomes.set(system.name, leftOut(unable));
      return;
    }
    const folder = profileFolder && resolve(profileFolder, system.name);
    try {
      const { durability } = comparison;
      const contender = await startContender(system, { durability, profileFolder: folder, signal });
      if (comparison.needsRedis && !contender.redisBytes) {
        await contender.stop();
        outcomes.set(system.name, leftOut("it has no Redis"));
      } else {
        contenders.set(system.name, contender);
      }
    } catch (error) {
      outcomes.set(system.name, { kind: error instanceof Missing ? "missing" : "failed", reason: messageOf(error) });
    }
  }

  /** Does a part of each one's work, one after the other; who fails is out. */
  async function forEach(part: (name: string, contender: Contender) => Promise<void>): Promise<void> {
    for (const contender of contenders.values()) contender.pause();
    // Not in the order in which they happened to start.
    for (const { name } of systems) {
      const contender = contenders.get(name);
      if (!contender) continue;
      signal.throwIfAborted();
      try {
        contender.resume();
        await part(name, contender);
        contender.pause();
      } catch (error) {
        signal.throwIfAborted();
        const reason = [messageOf(error), contender.lastWords()].filter((words) => words !== "").join("\n");
        outcomes.set(name, { kind: "failed", reason });
        contenders.delete(name);
        await contender.stop().catch(() => {});
      }
    }
  }

  try {
    await Promise.all(systems.map(start));
    await forEach(async (name, contender) => {
      prepared.set(name, await comparison.prepare(contender, size));
      measured.set(name, []);
    });
    const rounds = comparison.rounds?.(size) ?? size.rounds;
    for (let n = 0; n < rounds; n++) {
      await forEach(async (name) => {
        const measures = await prepared.get(name)?.();
        if (measures) measured.get(name)?.push(measures);
      });
    }
    for (const [name, { version, durability }] of contenders) {
      outcomes.set(name, { kind: "measured", version, durability, rounds: measured.get(name) ?? [] });
    }
  } finally {
    await Promise.all([...contenders.values()].map((contender) => contender.stop().catch(console.error)));
  }
}

/** Why a system cannot take part, as far as it is known before it starts. */
function whyNot({ needs, except = {} }: Comparison, { name, operations }: System): string | undefined {
  const lacks = needs.filter((ability) => !operations.has(ability));
  if (lacks.length > 0) return `it has no ${lacks.join(", ")}`;
  return except[name];
}

function leftOut(reason: string): Outcome {
  return { kind: "left out", reason };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
