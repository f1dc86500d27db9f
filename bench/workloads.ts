/** All workloads, in the order in which they run. To add one: write its file, and name it here. */
import type { Workload } from "./support/workload.ts";

export const WORKLOADS: Readonly<Record<string, () => Promise<Workload>>> = {
  put: async () => (await import("./put.ts")).put,
  "life-cycle": async () => (await import("./life-cycle.ts")).lifeCycle,
  work: async () => (await import("./work.ts")).work,
  delivery: async () => (await import("./delivery.ts")).delivery,
  streams: async () => (await import("./streams.ts")).workStreams,
  "streams-subscribe": async () => (await import("./streams.ts")).subscribeStreams,
  crash: async () => (await import("./crash.ts")).crash,
  renewals: async () => (await import("./renewals.ts")).renewals,
  backlog: async () => (await import("./backlog.ts")).backlog,
  memory: async () => (await import("./memory.ts")).memory,
};
