/** The verbs as fast-check commands: each runs on the real store and on the model, and compares the answers. */
import fc from "fast-check";
import { expect } from "vitest";
import type { Lease, NewJob, Outcome, RetryPolicy } from "../../../src/model/job.ts";
import type { Store } from "../../../src/store/store.ts";
import type { LifeCycle, ModelLease } from "./model.ts";

export type Real = {
  readonly store: Store;
  readonly queue: string;
  /** Every lease ever given, valid or not. */
  readonly leases: Lease[];
  calls: number;
};

type Command = fc.AsyncCommand<LifeCycle, Real>;

const CHANCE = 0.5;
/** By which lua/release.lua spreads the chance over a batch. */
const GOLDEN_RATIO = 0.6180339887498949;
const always = () => true;

function command(text: string, run: (model: LifeCycle, real: Real) => Promise<void>): Command {
  return { check: always, run, toString: () => text };
}

function put(jobs: readonly NewJob[], nonce: number, times: number): Command {
  const shown = jobs.map(({ spec: _, ...rest }) => rest);
  return command(`put ×${times} nonce ${nonce} ${JSON.stringify(shown)}`, async (model, { store, queue }) => {
    for (let i = 0; i < times; i++) {
      expect(await store.put(queue, jobs, nonce)).toEqual(model.put(jobs, nonce));
    }
  });
}

function reserve(counts: readonly number[], leaseMs: number, times: number): Command {
  return command(`reserve ×${times} ${counts} lease ${leaseMs}`, async (model, real) => {
    const claims = counts.map((count, i) => ({ count, leaseMs, workerId: `worker-${i}` }));
    const call = ++real.calls;
    let first: ModelLease[] = [];
    for (let i = 0; i < times; i++) {
      const answer = await real.store.reserve(real.queue, "caller", call, claims);
      const got = answer.jobs.map((jobs) => jobs.map(({ id, fence }) => ({ id, fence })));
      if (i > 0) {
        // The same call again: the same jobs.
        expect(got.flat()).toEqual(first);
        continue;
      }
      first = got.flat();
      const wanted = counts.reduce((sum, count) => sum + count, 0);
      const { leases, remaining } = model.reserve(wanted, leaseMs, "");
      expect(got.flat()).toEqual(leases);
      expect(answer.remaining).toBe(remaining);
      for (const [n, jobs] of answer.jobs.entries()) {
        expect(jobs.length).toBeLessThanOrEqual(counts[n] ?? 0);
        for (const { id, attempt, failures, leaseExpiresAtMs, putAtMs } of jobs) {
          const expected = model.jobs.get(id);
          const { atMs } = expected ?? {};
          if (expected) expected.worker = `worker-${n}`;
          expect({ attempt, failures, atMs: leaseExpiresAtMs, putAtMs }).toEqual({
            attempt: expected?.attempt,
            failures: expected?.failures,
            atMs,
            putAtMs: expected?.putAtMs,
          });
        }
      }
      real.leases.push(...answer.jobs.flat());
    }
  });
}

/** `picks` choose among all leases ever given, the newest first. */
function pickLeases(real: Real, picks: readonly number[]): Lease[] {
  if (real.leases.length === 0) return [{ queue: real.queue, id: "never", fence: 12345 }];
  return picks.map((pick) => real.leases.at(-1 - (pick % real.leases.length)) as Lease);
}

function release(picks: readonly number[], outcome: Outcome, times: number): Command {
  return command(`release ×${times} ${picks} ${JSON.stringify(outcome)}`, async (model, real) => {
    const releases = pickLeases(real, picks).map((lease) => ({ lease, outcome }));
    for (let i = 0; i < times; i++) {
      const answers = await real.store.release(real.queue, releases, { chance: CHANCE });
      const chances = releases.map((_, n) => (CHANCE + n * GOLDEN_RATIO) % 1);
      expect(answers).toEqual(releases.map(({ lease }, n) => model.release(lease, outcome, chances[n] as number)));
    }
  });
}

function extend(picks: readonly number[], leaseMs: number): Command {
  return command(`extend ${picks} by ${leaseMs}`, async (model, real) => {
    const leases = pickLeases(real, picks);
    const { ends } = await real.store.extend(real.queue, leases, leaseMs);
    const kept = ends.map((end) => (typeof end === "number" ? end : undefined));
    expect(kept).toEqual(leases.map((lease) => model.extend(lease, leaseMs)));
  });
}

function remove(id: string): Command {
  return command(`delete ${id}`, async (model, { store, queue }) => {
    expect(await store.delete(queue, id)).toBe(model.delete(id));
  });
}

export async function compareJob(id: string, model: LifeCycle, { store, queue }: Real): Promise<void> {
  const expected = model.get(id);
  const shown = await store.get(queue, id);
  expect(shown?.state).toBe(expected?.state);
  if (!shown || !expected) return;
  const { attempt, failures, putAtMs, worker: workerId } = expected;
  expect(shown).toMatchObject({ attempt, failures, putAtMs, workerId });
  expect(Buffer.from(shown.spec)).toEqual(Buffer.from(expected.job.spec));
  if (shown.state !== "READY") expect(shown.atMs).toBe(expected.atMs);
}

function get(id: string): Command {
  return command(`get ${id}`, (model, real) => compareJob(id, model, real));
}

function sweep(): Command {
  return command("sweep", async (model, { store, queue }) => {
    await store.sweep(queue);
    model.sweep();
  });
}

function pass(ms: number): Command {
  return command(`${ms} ms pass`, async (model) => {
    model.pass(ms);
  });
}

/** Times that meet each other often: a few values, on the same grid as the time that passes. */
const MOMENTS = [0, 1, 10, 20, 50, 100, 1_000] as const;
const moment = fc.constantFrom(...MOMENTS);
const later = fc.constantFrom(...MOMENTS.slice(1));
const id = fc.constantFrom("a", "b", "c", "d", "e é", "f{g}");
const once = fc.constantFrom(1, 1, 1, 2);

const retry: fc.Arbitrary<RetryPolicy> = fc.record({
  maxAttempts: fc.constantFrom(1, 2, 3),
  initialBackoffMs: moment,
  maxBackoffMs: fc.constantFrom(1_000, 5_000),
  multiplier: fc.constantFrom(1, 1.5, 2),
  jitter: fc.constantFrom(0, 0.2, 1),
});

const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 4 });

const newJob: fc.Arbitrary<NewJob> = fc.record({
  id,
  spec: fc.uint8Array({ maxLength: 8 }),
  priority: fc.constantFrom(0, 0, 0, 1, 9),
  delayMs: optional(moment),
  conflict: fc.constantFrom("reject" as const, "keep" as const, "replace" as const),
  leaseMs: optional(later),
  runTimeoutMs: optional(later),
  retentionMs: optional(moment),
  expiresInMs: optional(later),
  retry: optional(retry),
});

const outcome: fc.Arbitrary<Outcome> = fc.oneof(
  fc.constant({ kind: "completed" as const }),
  fc.record({
    kind: fc.constant("failed" as const),
    error: fc.constant(new Uint8Array()),
    permanent: fc.constantFrom(false, false, true),
    retryAfterMs: optional(moment),
    eventDetail: fc.constant(""),
  }),
  fc.record({ kind: fc.constant("returned" as const), delayMs: moment }),
  fc.constant({ kind: "undelivered" as const }),
);

const picks = fc.array(fc.nat({ max: 5 }), { minLength: 1, maxLength: 3 });

export const commands = [
  fc
    .tuple(fc.array(newJob, { minLength: 1, maxLength: 4 }), fc.nat({ max: 1_000_000 }), once)
    .map(([jobs, nonce, times]) => put(jobs, nonce * 10, times)),
  fc
    .tuple(fc.array(fc.constantFrom(0, 1, 2, 3), { minLength: 1, maxLength: 3 }), moment, once)
    .map(([counts, leaseMs, times]) => reserve(counts, leaseMs, times)),
  fc.tuple(picks, outcome, once).map(([which, how, times]) => release(which, how, times)),
  fc.tuple(picks, moment).map(([which, leaseMs]) => extend(which, leaseMs)),
  id.map(remove),
  id.map(get),
  fc.constant(null).map(sweep),
  later.map(pass),
];
