/**
 * Work: two loops on one call. One takes what the worker says and has it done; the other, the generator itself, tells
 * what there is to say. They end together: the first one's error ends the second, whose end ends the first.
 */
import type { WorkRequest } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { NumberedRelease, RefusedRelease, Work } from "../broker/work.ts";
import { badRequest } from "../model/errors.ts";
import { settleEach } from "./batch.ts";
import { Checks } from "./checks.ts";
import { checkCredit } from "./credit.ts";
import { checkExtend } from "./extend.ts";
import { firstRequest } from "./first-request.ts";
import type { CallContext } from "./handler.ts";
import type { Limits } from "./limits.ts";
import type { ReleaseBatch } from "./plain-release.ts";
import { checkRelease } from "./release.ts";
import { checkProgress } from "./report-progress.ts";
import { checkSubscription } from "./subscription.ts";
import { workResponse } from "./work-response.ts";

/** A stream that does not begin holds its place for nothing. */
const START_WITHIN_MS = 10_000;

export async function* work(
  broker: Broker,
  namespace: string,
  limits: Limits,
  requests: AsyncIterable<WorkRequest | ReleaseBatch>,
  context: CallContext,
): AsyncGenerator<Buffer> {
  const incoming = requests[Symbol.asyncIterator]();
  try {
    const first = await firstRequest(incoming, START_WITHIN_MS);
    if (!first) return;
    const stream = await begin(broker, namespace, limits, first, context);
    // A reader that waits for the next event does not see its caller go; the stream must not outlive it.
    const onAbort = () => stream.close();
    context.signal.addEventListener("abort", onAbort, { once: true });
    if (context.signal.aborted) onAbort();
    const listening = listen(stream, namespace, limits, first, incoming);
    try {
      for (let events = await stream.next(); events; events = await stream.next()) {
        yield workResponse(namespace, events);
      }
      stream.throwIfFailed();
    } finally {
      context.signal.removeEventListener("abort", onAbort);
      stream.close();
      await incoming.return?.();
      await listening;
    }
  } finally {
    await incoming.return?.();
  }
}

async function begin(
  broker: Broker,
  namespace: string,
  limits: Limits,
  first: WorkRequest | ReleaseBatch,
  context: CallContext,
): Promise<Work> {
  const start = "$typeName" in first ? first.start : undefined;
  if (!start)
    throw badRequest([{ field: "start", description: "is required in the first message, before anything else" }]);
  const checks = new Checks();
  const { options, leases } = checkSubscription(checks, "start.", start, namespace, limits, context);
  checks.done();
  const resumed = leases.length > 0 ? await broker.resume(leases, options.leaseMs) : undefined;
  return broker.work({ ...options, resumed });
}

/** Never rejects: what the worker must not say ends its stream. */
async function listen(
  stream: Work,
  namespace: string,
  limits: Limits,
  first: WorkRequest | ReleaseBatch,
  incoming: AsyncIterator<WorkRequest | ReleaseBatch>,
): Promise<void> {
  try {
    hear(stream, namespace, limits, first);
    for (;;) {
      await stream.hasRoom();
      const { done, value } = await incoming.next();
      if (done === true) break;
      if ("$typeName" in value && value.start)
        throw badRequest([{ field: "start", description: "must be in the first message only" }]);
      hear(stream, namespace, limits, value);
    }
    stream.finish();
  } catch (error) {
    stream.fail(error);
  }
}

function hear(stream: Work, namespace: string, limits: Limits, request: WorkRequest | ReleaseBatch): void {
  if ("$typeName" in request) {
    hearAll(stream, namespace, limits, request);
    return;
  }
  const checks = new Checks();
  checkMost(checks, "releases", request.releases.length, limits.maxBatch);
  checks.done();
  hearReleases(stream, namespace, limits, request);
}

function hearAll(stream: Work, namespace: string, limits: Limits, request: WorkRequest): void {
  const { credit, releases, extends: extensions, progress, quiet } = request;
  const checks = new Checks();
  const tokens = extensions.reduce((sum, { leaseTokens }) => sum + leaseTokens.length, 0);
  checkMost(checks, "releases", releases.length, limits.maxBatch);
  checkMost(checks, "extends", Math.max(extensions.length, tokens), limits.maxBatch);
  checkMost(checks, "progress", progress.length, limits.maxBatch);
  const newCredit = credit && checkCredit(checks, "credit.", credit, limits);
  checks.done();
  if (newCredit) stream.setCredit(newCredit);
  hearReleases(stream, namespace, limits, request);
  for (const [i, extension] of extensions.entries()) {
    const [checked] = settleEach([extension], () => checkExtend(extension, namespace, limits, `extends[${i}].`));
    if (checked && "ok" in checked) stream.extend(extension.sequence, checked.ok.leases, checked.ok.leaseMs);
    else if (checked) stream.extend(extension.sequence, forEachToken(checked, extension.leaseTokens.length), 0);
  }
  for (const [i, report] of progress.entries()) {
    const [checked] = settleEach([report], () => checkProgress(report, namespace, `progress[${i}].`));
    if (checked) stream.reportProgress(report.leaseToken, checked);
  }
  if (quiet !== undefined) stream.setQuiet(quiet);
}

function hearReleases(stream: Work, namespace: string, limits: Limits, { releases }: ReleaseBatch): void {
  if (releases.length === 0) return;
  const good: NumberedRelease[] = [];
  const refused: RefusedRelease[] = [];
  for (const [i, one] of releases.entries()) {
    const { sequence } = one;
    try {
      good.push("lease" in one ? one : { sequence, ...checkRelease(one, namespace, limits, `releases[${i}].`) });
    } catch (error) {
      refused.push({ sequence, error });
    }
  }
  stream.release(good, refused);
}

/** What is wrong with an extend as a whole; of one without tokens it must be heard, too. */
function forEachToken<T>(answer: T, tokens: number): T[] {
  return new Array<T>(Math.max(1, tokens)).fill(answer);
}

function checkMost(checks: Checks, field: string, count: number, most: number): void {
  if (count > most) checks.refuse(field, `must be at most ${most} (--max-batch), and are ${count}`);
}
