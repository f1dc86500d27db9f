/** How many releases go into one message. */
import type { ReleaseRequest } from "../../gen/baton/v1/job_service_pb.js";
import type { BatchResult, ReleaseResult } from "./output.ts";

/** The contract's limit on a batch. */
const LIMIT = 1_000;
/** What keeps a message well below the broker's limit. */
export const LIMIT_BYTES = 4 * 1024 * 1024;

export type ReleaseAnswer = BatchResult<ReleaseResult>;

/** `Answer`: what else than the answer may settle it. */
export type PendingRelease<Answer = ReleaseAnswer> = {
  readonly request: ReleaseRequest;
  readonly bytes: number;
  readonly settle: (answer: Answer) => void;
};

/** Takes out the first that fit into one message together: at least one, where there are any. */
export function takeBatch<P extends Pick<PendingRelease, "bytes">>(pending: P[]): P[] {
  let [count, sum] = [0, 0];
  for (const { bytes } of pending) {
    if (count >= LIMIT || (count > 0 && sum + bytes > LIMIT_BYTES)) break;
    count += 1;
    sum += bytes;
  }
  return pending.splice(0, count);
}

/** What makes a release large: its result. The rest is bounded to a few KiB. */
export function bytesOf({ outcome }: ReleaseRequest): number {
  if (outcome.case === "failed") return outcome.value.message.length;
  if (outcome.case !== "completed") return 0;
  const content = outcome.value.result?.content;
  if (content?.case === "text") return Buffer.byteLength(content.value);
  return content?.case === "data" ? content.value.length : 0;
}
