/**
 * Batches, of which each item can fail by itself: what ended UNAVAILABLE and may be repeated is sent again, alone,
 * until the deadline. A call that fails as a whole fails for each of its items.
 */
import type {
  PutRequest,
  PutResponse,
  PutResult,
  ReleaseRequest,
  ReleaseResponse,
  ReleaseResult,
} from "../../gen/baton/v1/job_service_pb.js";
import { type RepeatLimits, repeatWhileUnavailable } from "./backoff.ts";
import { BatonClientError, fromStatus, isUnavailable } from "./error.ts";
import type { BatchResult } from "./output.ts";

type Send<I, R> = (items: I[], leftMs: number) => Promise<R[]>;

export function putBatch(
  requests: readonly PutRequest[],
  isRepeatable: (request: PutRequest) => boolean,
  send: Send<PutRequest, PutResult>,
  limits: RepeatLimits,
): Promise<BatchResult<PutResponse>[]> {
  return batch(
    requests,
    isRepeatable,
    send,
    ({ result }) => (result.case === "job" ? ok(result.value) : fail(result)),
    limits,
  );
}

export function releaseBatch(
  requests: readonly ReleaseRequest[],
  send: Send<ReleaseRequest, ReleaseResult>,
  limits: RepeatLimits,
): Promise<BatchResult<ReleaseResponse>[]> {
  const always = () => true;
  return batch(
    requests,
    always,
    send,
    ({ result }) => (result.case === "released" ? ok(result.value) : fail(result)),
    limits,
  );
}

async function batch<I, R, T>(
  items: readonly I[],
  isRepeatable: (item: I) => boolean,
  send: Send<I, R>,
  read: (result: R) => BatchResult<T>,
  limits: RepeatLimits,
): Promise<BatchResult<T>[]> {
  const settled: BatchResult<T>[] = new Array(items.length);
  let pending = items.map((item, index) => ({ item, index }));
  let answered = false;

  const attempt = async (leftMs: number): Promise<void> => {
    const sent = pending;
    try {
      const results = await send(
        sent.map(({ item }) => item),
        leftMs,
      );
      answered = true;
      for (const [position, { index }] of sent.entries()) {
        const result = results[position];
        settled[index] = result === undefined ? fail({ case: undefined }) : read(result);
      }
    } catch (error) {
      if (!(error instanceof BatonClientError)) throw error;
      for (const { index } of sent) settled[index] = { ok: false, error };
      if (!isUnavailable(error)) throw error;
    }
    pending = sent.filter(({ item, index }) => isRepeatable(item) && unavailable(settled[index]) !== undefined);
    const first = pending[0] === undefined ? undefined : unavailable(settled[pending[0].index]);
    if (first !== undefined) throw first;
  };

  try {
    await repeatWhileUnavailable(attempt, limits);
  } catch (error) {
    // What has an answer keeps it; where no call was answered, the whole batch has failed.
    if (!answered || !(error instanceof BatonClientError)) throw error;
  }
  const [first] = settled;
  if (!answered && first !== undefined && !first.ok) throw first.error;
  return settled;
}

function unavailable(result: BatchResult<unknown> | undefined): BatonClientError | undefined {
  return result?.ok === false && isUnavailable(result.error) ? result.error : undefined;
}

function ok<T>(value: T): BatchResult<T> {
  return { ok: true, value };
}

function fail(result: PutResult["result"] | ReleaseResult["result"]): BatchResult<never> {
  if (result.case === "error") return { ok: false, error: fromStatus(result.value) };
  const message = "the broker's answer holds no result for this item";
  return { ok: false, error: new BatonClientError("INTERNAL", message) };
}
