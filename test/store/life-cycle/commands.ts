/** The verbs as fast-check commands: each runs on the real store and on the model, and compares the answers. */
import fc from "fast-check";
import { expect } from "vitest";
import type { Lease, NewJob, Outcome, OwnRetryPolicy, Progress, Unique } from "../../../src/model/job.ts";
import type { QueueChange } from "../../../src/model/queue.ts";
import { JOB_STATES, type JobState } from "../../../src/model/states.ts";
import type { ByteBudget, Claim, Position, Store } from "../../../src/store/store.ts";
import type { LifeCycle, ModelLease } from "./model.ts";

export type Real = {
  readonly store: Store;
  readonly queue: string;
  /** Every lease ever given, valid or not. */
  readonly leases: Lease[];
  calls: number;
};

type Command = fc.AsyncCommand<LifeCycle, Real>;

/** `availableInMs`: from the moment of the call; undefined: only what is due. */
type Wish = {
  readonly count: number;
  readonly leaseMs: number;
  readonly availableInMs: number | undefined;
  readonly bytes: ByteBudget | undefined;
};

const CHANCE = 0.5;
/** By which lua/release.lua spreads the chance over a batch. */
const GOLDEN_RATIO = 0.6180339887498949;
const CANCELLED = Buffer.from("cancelled");
const EVENT_DETAIL = ',"error":{"type":"CANCELLED","message":"cancelled","permanent":false}';
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

function reserve(wishes: readonly Wish[], times: number): Command {
  return command(`reserve ×${times} ${JSON.stringify(wishes)}`, async (model, real) => {
    const claims = wishes.map(
      ({ count, leaseMs, availableInMs, bytes }, i): Claim => ({
        count,
        leaseMs,
        bytes,
        workerId: `worker-${i}`,
        availableByMs: availableInMs === undefined ? undefined : model.now + availableInMs,
      }),
    );
    const call = ++real.calls;
    let first: ModelLease[][] = [];
    for (let i = 0; i < times; i++) {
      const answer = await real.store.reserve(real.queue, "caller", call, claims);
      const got = answer.jobs.map((jobs) => jobs.map(({ id, fence }) => ({ id, fence })));
      if (first.flat().length > 0) {
        // The same call again: the same jobs. (Where there were none, it is as good as a new call.)
        expect(got).toEqual(first);
        continue;
      }
      first = got;
      const { leases, remaining, outgrown } = model.reserve(claims);
      expect(got).toEqual(leases);
      expect(answer).toMatchObject({ outgrown, remaining, pull: model.settings.mode === "simple" });
      expect(answer.nextDueMs).toBe(model.nextDueMs());
      for (const { id, attempt, failures, leaseExpiresAtMs, putAtMs, spec } of answer.jobs.flat()) {
        const expected = model.jobs.get(id);
        expect({ attempt, failures, atMs: leaseExpiresAtMs, putAtMs, spec: Buffer.from(spec) }).toEqual({
          attempt: expected?.attempt,
          failures: expected?.failures,
          atMs: expected?.atMs,
          putAtMs: expected?.putAtMs,
          spec: Buffer.from(expected?.job.spec ?? ""),
        });
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

function releaseLeases(leases: readonly Lease[], outcome: Outcome, announce: boolean) {
  return async (model: LifeCycle, { store, queue }: Real) => {
    const releases = leases.map((lease) => ({ lease, outcome }));
    const answers = await store.release(queue, releases, { chance: CHANCE, announce });
    const chances = leases.map((_, n) => (CHANCE + n * GOLDEN_RATIO) % 1);
    expect(answers).toEqual(model.release(leases, outcome, chances, announce));
  };
}

function release(picks: readonly number[], outcome: Outcome, announce: boolean, times: number): Command {
  return command(`release ×${times} ${picks} ${JSON.stringify(outcome)} ${announce}`, async (model, real) => {
    const leases = pickLeases(real, picks);
    for (let i = 0; i < times; i++) await releaseLeases(leases, outcome, announce)(model, real);
  });
}

/** With the token of a job that was pulled. */
function releasePulled(id: string, outcome: Outcome): Command {
  return command(`release pulled ${id} ${JSON.stringify(outcome)}`, async (model, real) => {
    await releaseLeases([{ queue: real.queue, id, fence: 0 }], outcome, false)(model, real);
  });
}

/** `holder` undefined: for whoever keeps the leases. */
function extend(picks: readonly number[], leaseMs: number, holder: number | undefined, takeOver: boolean): Command {
  const text = `${takeOver ? "take over" : "extend"} ${picks} by ${leaseMs} for ${holder ?? "whoever keeps it"}`;
  return command(text, async (model, real) => {
    const leases = pickLeases(real, picks).map((lease) => ({ ...lease, holder }));
    const { ends, bytes, nextDueMs } = await real.store.extend(real.queue, leases, leaseMs, { takeOver });
    expect(ends).toEqual(leases.map((lease) => model.extend(lease, leaseMs, holder, takeOver)));
    expect(bytes).toEqual(takeOver ? leases.map(({ id }) => model.jobs.get(id)?.job.spec.length ?? 0) : []);
    expect(nextDueMs).toBe(model.nextDueMs());
  });
}

function report(picks: readonly number[], reports: readonly Progress[], times: number): Command {
  return command(`report ×${times} ${picks} ${JSON.stringify(reports)}`, async (model, real) => {
    const leases = pickLeases(real, picks);
    const made = leases.map((lease, n) => ({ lease, progress: reports[n % reports.length] as Progress }));
    for (let i = 0; i < times; i++) {
      const stored = await real.store.reportProgress(real.queue, made);
      expect(stored).toEqual(made.map(({ lease, progress }) => model.report(lease, progress)));
    }
  });
}

function remove(id: string): Command {
  return command(`delete ${id}`, async (model, { store, queue }) => {
    expect(await store.delete(queue, id)).toBe(model.delete(id));
  });
}

function cancel(id: string): Command {
  return command(`cancel ${id}`, async (model, { store, queue }) => {
    expect(await store.cancel(queue, id, CANCELLED, EVENT_DETAIL)).toEqual(model.cancel(id, CANCELLED));
  });
}

function retry(ids: readonly string[]): Command {
  return command(`retry ${ids}`, async (model, { store, queue }) => {
    expect(await store.retry(queue, ids)).toEqual(model.retry(ids));
  });
}

function retryFailed(beforeMs: number, skip: number, most: number): Command {
  return command(`retry failed until ${beforeMs} ms ago, ${skip} to ${most}`, async (model, { store, queue }) => {
    const untilMs = model.now - beforeMs;
    expect(await store.retryFailed(queue, untilMs, skip, most)).toEqual(model.retryFailed(untilMs, skip, most));
  });
}

function purge(state: JobState, most: number): Command {
  return command(`purge ${most} ${state}`, async (model, { store, queue }) => {
    expect(await store.queues.purge(queue, state, most)).toEqual(model.purge(state, most));
  });
}

function requeue(most: number): Command {
  return command(`requeue ${most}`, async (model, { store, queue }) => {
    expect(await store.queues.requeue(queue, most)).toBe(model.requeue(most));
  });
}

function update(change: QueueChange): Command {
  return command(`update ${JSON.stringify(change)}`, async (model, { store, queue }) => {
    const { settings } = model;
    expect(await store.queues.update(queue, change)).toEqual({ before: settings, now: model.update(change) });
  });
}

export async function compareJob(id: string, model: LifeCycle, { store, queue }: Real): Promise<void> {
  const expected = model.get(id);
  const shown = await store.get(queue, id);
  expect(shown?.state).toBe(expected?.state);
  if (!shown || !expected) return;
  expect(shown).toMatchObject(model.view(expected));
  expect(Buffer.from(shown.spec)).toEqual(Buffer.from(expected.job.spec));
  expect(Buffer.from(shown.outcome ?? "")).toEqual(Buffer.from(expected.outcome));
}

function get(id: string): Command {
  return command(`get ${id}`, (model, real) => compareJob(id, model, real));
}

function list(state: JobState, pageSize: number): Command {
  return command(`list ${state} by ${pageSize}`, async (model, { store, queue }) => {
    const expected = model.list(state);
    const shown: string[] = [];
    let after: Position | undefined;
    do {
      const page = await store.list(queue, state, pageSize, after);
      for (const { spec } of page.jobs) shown.push(Buffer.from(spec).toString());
      expect(page.jobs.length).toBeLessThanOrEqual(pageSize);
      after = page.last;
    } while (after);
    expect(shown).toEqual(expected.map((id) => Buffer.from(model.jobs.get(id)?.job.spec ?? "").toString()));
  });
}

function sweep(): Command {
  return command("sweep", async (model, { store, queue }) => {
    const { nextDueMs, setAside, more } = await store.sweep(queue);
    model.sweep();
    expect({ nextDueMs, setAside, more }).toEqual({ nextDueMs: model.nextDueMs(), setAside: [], more: false });
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
/** Longer than a default lease, and than the first waits of the curve exq. */
const LONG_MS = 50_000;
const IDS = ["a", "b", "c", "d", "e é", "f{g}"] as const;
const id = fc.constantFrom(...IDS);
const once = fc.constantFrom(1, 1, 1, 2);
const state = fc.constantFrom(...(Object.keys(JOB_STATES) as JobState[]));

const sometimes = <T>(value: fc.Arbitrary<T>, oneIn = 4) =>
  fc.oneof({ weight: oneIn - 1, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value }) as fc.Arbitrary<
    T | undefined
  >;

const retryPolicy: fc.Arbitrary<OwnRetryPolicy> = fc.record({
  maxAttempts: sometimes(fc.constantFrom(1, 2, 3), 2),
  initialBackoffMs: sometimes(moment, 2),
  maxBackoffMs: sometimes(fc.constantFrom(10, 1_000, 5_000), 2),
  multiplier: sometimes(fc.constantFrom(1, 1.5, 2), 2),
  jitter: sometimes(fc.constantFrom(0, 0.2, 1), 2),
  curve: sometimes(fc.constantFrom("exponential" as const, "exq" as const), 2),
});

/** One key begins with the other. */
const concurrency = fc.record({ key: fc.constantFrom("k", "k1"), limit: fc.constantFrom(1, 1, 2, 3) });

const unique: fc.Arbitrary<Unique> = fc.oneof(
  fc.record(
    {
      key: fc.constantFrom("u", "v"),
      until: fc.constantFrom("start" as const, "success" as const),
      expiresInMs: later,
    },
    { requiredKeys: ["key", "until"] },
  ),
  fc.record({ key: fc.constantFrom("u", "v"), until: fc.constant("expiry" as const), expiresInMs: later }),
);

const newJob: fc.Arbitrary<NewJob> = fc
  .record({
    id,
    salt: fc.nat({ max: 99 }),
    priority: fc.constantFrom(0, 0, 0, 1, 9),
    delayMs: sometimes(moment),
    conflict: fc.constantFrom("reject" as const, "keep" as const, "replace" as const),
    leaseMs: sometimes(later),
    runTimeoutMs: sometimes(later),
    retentionMs: sometimes(moment),
    expiresInMs: sometimes(later),
    retry: sometimes(retryPolicy),
    concurrency: sometimes(concurrency, 2),
    unique: sometimes(unique, 3),
  })
  // By its spec a list shows which job it is.
  .map(({ salt, ...job }) => ({ ...job, spec: Buffer.from(`${job.id}\0${salt}`) }));

const outcome: fc.Arbitrary<Outcome> = fc.oneof(
  fc.record({ kind: fc.constant("completed" as const), result: sometimes(fc.constant(Buffer.from("result")), 2) }),
  fc.record({
    kind: fc.constant("failed" as const),
    error: fc.constantFrom(Buffer.alloc(0), Buffer.from("error")),
    permanent: fc.constantFrom(false, false, true),
    retryAfterMs: sometimes(moment),
    eventDetail: fc.constant(""),
  }),
  fc.record({ kind: fc.constant("returned" as const), delayMs: moment }),
  fc.constant({ kind: "undelivered" as const }),
  fc.constant({ kind: "pulled" as const }),
);

const orUnset = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: null, freq: 2 });

const change: fc.Arbitrary<QueueChange> = fc.oneof(
  fc.record({ paused: fc.constantFrom(true, false, null) }),
  fc.record({ mode: orUnset(fc.constantFrom("reliable" as const, "recoverable" as const, "simple" as const)) }),
  fc.record({ leaseMs: orUnset(later), retentionMs: orUnset(moment) }),
  fc.record({ deadLetterMax: orUnset(fc.constantFrom(0, 1, 2)), deadLetterAgeMs: orUnset(later) }),
  fc.record({
    retry: fc.record(
      {
        maxAttempts: orUnset(fc.constantFrom(1, 2, 3)),
        initialBackoffMs: orUnset(moment),
        maxBackoffMs: orUnset(later),
        curve: orUnset(fc.constantFrom("exponential" as const, "exq" as const)),
      },
      { requiredKeys: [] },
    ),
  }),
);

const picks = fc.array(fc.nat({ max: 5 }), { minLength: 1, maxLength: 3 });
/** Specs have 3 to 7 bytes. */
const bytes: fc.Arbitrary<ByteBudget> = fc.oneof(
  fc.record({ most: fc.constantFrom(0, 3, 4, 5, 8, 12), takesAny: fc.constant(false) }),
  fc.record({ most: fc.constantFrom(1, 4, 7, 9), takesAny: fc.constant(true) }),
);
const wish: fc.Arbitrary<Wish> = fc.record({
  count: fc.constantFrom(0, 1, 2, 3),
  leaseMs: fc.constantFrom(0, 0, 0, 10, 1_000),
  availableInMs: sometimes(moment),
  bytes: sometimes(bytes, 3),
});
/** Streams that take leases over; 0: the one that got it. */
const holder = fc.constantFrom(undefined, undefined, 0, 7, 2 ** 48 - 2);
const progress: fc.Arbitrary<Progress> = fc.record({
  percent: fc.constantFrom(0, 40, 100),
  note: fc.constantFrom("", "page 4", 'a "näh\\er"\n\u2028', "x".repeat(1_024)),
});

const puts = fc
  .tuple(fc.array(newJob, { minLength: 1, maxLength: 4 }), fc.nat({ max: 1_000_000 }), once)
  .map(([jobs, nonce, times]) => put(jobs, nonce * 10, times));
const reserves = fc
  .tuple(fc.array(wish, { minLength: 1, maxLength: 3 }), once)
  .map(([wishes, times]) => reserve(wishes, times));
const releases = fc
  .tuple(picks, outcome, fc.boolean(), once)
  .map(([which, how, announce, times]) => release(which, how, announce, times));

/** Those that move jobs along stand more than once: most steps of a sequence are theirs. */
export const commands = [
  ...[puts, puts, puts, reserves, reserves, reserves, releases, releases],
  fc.tuple(id, outcome).map(([which, how]) => releasePulled(which, how)),
  fc.tuple(picks, moment, holder).map(([which, leaseMs, keeper]) => extend(which, leaseMs, keeper, false)),
  fc.tuple(picks, moment, holder).map(([which, leaseMs, keeper]) => extend(which, leaseMs, keeper ?? 1, true)),
  fc
    .tuple(picks, fc.array(progress, { minLength: 1, maxLength: 2 }), once)
    .map(([which, reports, times]) => report(which, reports, times)),
  id.map(remove),
  id.map(cancel),
  fc.array(id, { minLength: 1, maxLength: 3 }).map(retry),
  fc
    .tuple(moment, fc.constantFrom(0, 0, 1), fc.constantFrom(1, 10))
    .map(([ms, skip, most]) => retryFailed(ms, skip, most)),
  fc.tuple(state, fc.constantFrom(1, 10)).map(([which, most]) => purge(which, most)),
  fc.constantFrom(1, 10).map(requeue),
  change.map(update),
  id.map(get),
  fc.tuple(state, fc.constantFrom(1, 2, 10)).map(([which, pageSize]) => list(which, pageSize)),
  fc.constant(null).map(sweep),
  later.map(pass),
  fc.constantFrom(...MOMENTS.slice(1), LONG_MS).map(pass),
];
