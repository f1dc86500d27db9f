/**
 * Work: two loops on one call. One takes what the worker says and has it done; the other, the generator itself, tells
 * what there is to say. They end together: the first one's error ends the second, whose end ends the first.
 */
import type { WorkRequest, WorkResponse } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { Work } from "../broker/work.ts";
import { badRequest } from "../model/errors.ts";
import { settleEach } from "./batch.ts";
import { Checks } from "./checks.ts";
import { checkCredit } from "./credit.ts";
import { checkExtend } from "./extend.ts";
import { firstRequest } from "./first-request.ts";
import type { CallContext } from "./handler.ts";
import type { Limits } from "./limits.ts";
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
  requests: AsyncIterable<WorkRequest>,
  context: CallContext,
): AsyncGenerator<WorkResponse> {
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
  { start }: WorkRequest,
  context: CallContext,
): Promise<Work> {
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
  first: WorkRequest,
  incoming: AsyncIterator<WorkRequest>,
): Promise<void> {
  try {
    hear(stream, namespace, limits, first);
    for (;;) {
      await stream.hasRoom();
      const { done, value } = await incoming.next();
      if (done === true) break;
      if (value.start) throw badRequest([{ field: "start", description: "must be in the first message only" }]);
      hear(stream, namespace, limits, value);
    }
    stream.finish();
  } catch (error) {
    stream.fail(error);
  }
}

function hear(stream: Work, namespace: string, limits: Limits, request: WorkRequest): void {
  const { credit, releases, extends: extensions, progress, quiet } = request;
  const checks = new Checks();
  const tokens = extensions.reduce((sum, { leaseTokens }) => sum + leaseTokens.length, 0);
  checkMost(checks, "releases", releases.length, limits.maxBatch);
  checkMost(checks, "extends", Math.max(extensions.length, tokens), limits.maxBatch);
  checkMost(checks, "progress", progress.length, limits.maxBatch);
  const newCredit = credit && checkCredit(checks, "credit.", credit, limits);
  checks.done();
  if (newCredit) stream.setCredit(newCredit);
  if (releases.length > 0) {
    const settled = settleEach(releases, (one, i) => checkRelease(one, namespace, limits, `releases[${i}].`));
    stream.release(
      settled.map((one, i) => ({ sequence: (releases[i] as (typeof releases)[number]).sequence, settled: one })),
    );
  }
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

/** What is wrong with an extend as a whole; of one without tokens it must be heard, too. */
function forEachToken<T>(answer: T, tokens: number): T[] {
  return new Array<T>(Math.max(1, tokens)).fill(answer);
}

function checkMost(checks: Checks, field: string, count: number, most: number): void {
  if (count > most) checks.refuse(field, `must be at most ${most} (--max-batch), and are ${count}`);
}
