/** The public face of the client. */
export { BatonClient, type BatonClientOptions, type CallOptions } from "./client.ts";
export { BatonClientError, type StatusCodeName, type Violation } from "./error.ts";
export {
  GiveBack,
  type Handler,
  type HandlerResult,
  JobAborted,
  type JobAbortedReason,
  PermanentError,
  RetryLater,
  type WorkerJob,
} from "./handler.ts";
export type {
  Outcome,
  PutInput,
  QueueInput,
  ReleaseInput,
  ReserveInput,
  RetryInput,
  SubscribeInput,
} from "./input.ts";
export type {
  BatchResult,
  DeleteResult,
  Job,
  JobStateName,
  PutResult,
  ReleaseResult,
  ReservedJob,
  RevokedReasonName,
  SubscribeEvent,
} from "./output.ts";
export { JobPayload, type PayloadInput } from "./payload.ts";
export { Worker, type WorkerErrorContext, type WorkerOptions } from "./worker.ts";
