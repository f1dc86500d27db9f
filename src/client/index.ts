/** The public face of the client. */
export type { AwaitOptions } from "./await.ts";
export type { CallOptions } from "./calls.ts";
export { BatonClient, type BatonClientOptions, type ListedState } from "./client.ts";
export { BatonClientError, type StatusCodeName, type Violation } from "./error.ts";
export {
  GiveBack,
  type Handler,
  type HandlerContext,
  type HandlerResult,
  JobAborted,
  type JobAbortedReason,
  PermanentError,
  RetryLater,
  type WorkerJob,
} from "./handler.ts";
export type {
  ConcurrencyInput,
  Outcome,
  PutInput,
  QueueInput,
  ReleaseInput,
  ReserveInput,
  RetryInput,
  SubscribeInput,
  UniqueInput,
} from "./input.ts";
export type {
  BatchResult,
  CancelResult,
  DeleteResult,
  Job,
  JobProgress,
  JobStateName,
  Jsonable,
  PutResult,
  ReleaseResult,
  ReservedJob,
  RevokedReasonName,
  SubscribeEvent,
} from "./output.ts";
export type { Page, PageOptions } from "./page.ts";
export { JobPayload, type PayloadInput } from "./payload.ts";
export type {
  Counters,
  Queue,
  QueueChange,
  QueueModeName,
  QueueSettings,
  StateCounts,
  WorkerInfo,
} from "./queue-types.ts";
export type { Queues, WorkersOptions } from "./queues.ts";
export type {
  CatchUpName,
  OverlapName,
  Schedule,
  ScheduleInput,
  Template,
  TemplateInput,
} from "./schedule-types.ts";
export type { PutScheduleResult, Schedules } from "./schedules.ts";
export type { JobEvent, WatchEvent, WatchInput, WatchOptions } from "./watch.ts";
export { Worker } from "./worker.ts";
export type { WorkerErrorContext, WorkerOptions } from "./worker-options.ts";
