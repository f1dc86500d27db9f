/**
 * Brings releases to a broker, whatever becomes of the stream.
 *
 * A release goes out on its job's stream. Where that has ended, or ends before the answer came, or answers that Redis is
 * away, it goes out by ReleaseMany, which is repeated while the broker is unavailable: a release can be repeated with
 * the token that won, and has the same answer. Those that are ready in one turn of the event loop go out in one call.
 */
import type { ReleaseRequest } from "../../gen/baton/v1/job_service_pb.js";
import type { BatonClient } from "./client.ts";
import { BatonClientError, isUnavailable } from "./error.ts";
import { bytesOf, LIMIT_BYTES, type PendingRelease, type ReleaseAnswer, takeBatch } from "./release-batch.ts";
import type { WorkStream } from "./work-stream.ts";

export class Releaser {
  readonly #client: BatonClient;
  /** At most one for each job that the worker holds. */
  #pending: PendingRelease[] = [];

  constructor(client: BatonClient) {
    this.#client = client;
  }

  /** `settle` is called once: what went wrong stands in the answer. */
  release(stream: WorkStream, request: ReleaseRequest, settle: (answer: ReleaseAnswer) => void): void {
    const bytes = bytesOf(request);
    // One that is larger than the broker takes would end the stream with all that is on it.
    if (!stream.isUp || bytes > LIMIT_BYTES) {
      this.#call({ request, bytes, settle });
      return;
    }
    stream.release({
      request,
      bytes,
      settle: (answer) => {
        const isAnswered = answer !== undefined && (answer.ok || !isUnavailable(answer.error));
        if (isAnswered) settle(answer);
        else this.#call({ request, bytes, settle });
      },
    });
  }

  #call(release: PendingRelease): void {
    this.#pending.push(release);
    if (this.#pending.length > 1) return;
    setImmediate(() => {
      const pending = this.#pending;
      this.#pending = [];
      while (pending.length > 0) void this.#send(takeBatch(pending));
    });
  }

  async #send(batch: readonly PendingRelease[]): Promise<void> {
    const answers = await this.#ask(batch);
    for (const [index, { settle }] of batch.entries()) settle(answers[index] ?? failed("no answer for this release"));
  }

  async #ask(batch: readonly PendingRelease[]): Promise<ReleaseAnswer[]> {
    try {
      return await this.#client.releaseRequests(batch.map(({ request }) => request));
    } catch (error) {
      const answer = error instanceof BatonClientError ? ({ ok: false, error } as const) : failed(String(error));
      return batch.map(() => answer);
    }
  }
}

function failed(message: string): ReleaseAnswer {
  return { ok: false, error: new BatonClientError("INTERNAL", message) };
}
