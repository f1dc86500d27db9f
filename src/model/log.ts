/** What the rooms may say to the operator. `src/log.ts` writes it; tests may pass one that collects. */
export type Logger = {
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
};

/** Never payloads, headers or credentials. An Error shows as its message (and its stack, at level error). */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined | Error>>;
