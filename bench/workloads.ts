/**
 * Baton's own workloads, which have nobody to compare with, in the order in which they run. To add one: write its file,
 * and name it here.
 */
import type { Workload } from "./support/workload.ts";

export const WORKLOADS: Readonly<Record<string, () => Promise<Workload>>> = {
  work: async () => (await import("./work.ts")).work,
  streams: async () => (await import("./streams.ts")).workStreams,
  "streams-subscribe": async () => (await import("./streams.ts")).subscribeStreams,
  crash: async () => (await import("./crash.ts")).crash,
  renewals: async () => (await import("./renewals.ts")).renewals,
  backlog: async () => (await import("./backlog.ts")).backlog,
};
