/** All systems, in the order of the report. To add one: write its file, and name it here. */
import type { System } from "./system.ts";

export const SYSTEMS: Readonly<Record<string, () => Promise<System>>> = {
  baton: async () => (await import("./baton.ts")).baton,
  bullmq: async () => (await import("./bullmq.ts")).bullmq,
  beanstalkd: async () => (await import("./beanstalkd.ts")).beanstalkd,
  jetstream: async () => (await import("./jetstream.ts")).jetstream,
  "jetstream-new": async () => (await import("./jetstream.ts")).jetstreamNew,
  rabbitmq: async () => (await import("./rabbitmq.ts")).rabbitmq,
  faktory: async () => (await import("./faktory.ts")).faktory,
  asynq: async () => (await import("./asynq.ts")).asynq,
  lua: async () => (await import("./lua.ts")).lua,
  echo: async () => (await import("./echo.ts")).echo,
};
