/**
 * Sends releases in batches: those that are ready in one turn of the event loop go out in one ReleaseMany, because a
 * message costs more than a release in it. `hold` keeps them back, so that a stream's credit fills up (see stop).
 */
import type { ReleaseRequest } from "../../gen/baton/v1/job_service_pb.js";
import type { BatonClient } from "./client.ts";
import { BatonClientError } from "./error.ts";
import type { BatchResult, ReleaseResult } from "./output.ts";

/** The contract's limit on a batch, and what keeps it well below the broker's limit on a message. */
const BATCH_LIMIT = 1_000;
const BATCH_LIMIT_BYTES = 4 * 1024 * 1024;

type Pending = { readonly request: ReleaseRequest; readonly settle: (result: BatchResult<ReleaseResult>) => void };

export class Releaser {
  readonly #client: BatonClient;
  /** At most one for each job that the worker holds. */
  #pending: Pending[] = [];
  #scheduled = false;
  #held = false;
  #underWay = 0;

  constructor(client: BatonClient) {
    this.#client = client;
  }

  /** How many releases were sent that have no answer yet. */
  get underWay(): number {
    return this.#underWay;
  }

  /** Never rejects: what went wrong stands in the result. */
  add(request: ReleaseRequest): Promise<BatchResult<ReleaseResult>> {
    return new Promise((settle) => {
      this.#pending.push({ request, settle });
      this.#schedule();
    });
  }

  hold(): void {
    this.#held = true;
  }

  resume(): void {
    this.#held = false;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#held || this.#pending.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#held) return;
      const pending = this.#pending;
      this.#pending = [];
      for (const batch of inBatches(pending)) void this.#send(batch);
    });
  }

  async #send(batch: readonly Pending[]): Promise<void> {
    this.#underWay += batch.length;
    try {
      const results = await this.#client.releaseRequests(batch.map(({ request }) => request));
      this.#underWay -= batch.length;
      for (const [index, { settle }] of batch.entries()) settle(results[index] ?? failed("no answer for this release"));
    } catch (error) {
      this.#underWay -= batch.length;
      const result = error instanceof BatonClientError ? ({ ok: false, error } as const) : failed(String(error));
      for (const { settle } of batch) settle(result);
    }
  }
}

function* inBatches(pending: readonly Pending[]): Generator<Pending[]> {
  let batch: Pending[] = [];
  let batchBytes = 0;
  for (const item of pending) {
    const bytes = resultBytes(item.request);
    if (batch.length > 0 && (batch.length >= BATCH_LIMIT || batchBytes + bytes > BATCH_LIMIT_BYTES)) {
      yield batch;
      batch = [];
      batchBytes = 0;
    }
    batch.push(item);
    batchBytes += bytes;
  }
  if (batch.length > 0) yield batch;
}

/** What makes a release large: its result. The rest is bounded to a few KiB. */
function resultBytes({ outcome }: ReleaseRequest): number {
  if (outcome.case === "failed") return outcome.value.message.length;
  if (outcome.case !== "completed") return 0;
  const content = outcome.value.result?.content;
  if (content?.case === "text") return Buffer.byteLength(content.value);
  return content?.case === "data" ? content.value.length : 0;
}

function failed(message: string): BatchResult<never> {
  return { ok: false, error: new BatonClientError("INTERNAL", message) };
}
