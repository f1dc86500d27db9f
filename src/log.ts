/**
 * The operator's log: one line for each message, on stderr, as text for people or as JSON for programs.
 * A value with a space, a quote, an equals sign or a line break is quoted, so that a line stays a line.
 */
import type { LogFields, Logger } from "./model/log.ts";

export type LogOptions = {
  readonly format: "text" | "json";
  readonly stream?: NodeJS.WritableStream;
};

type Level = "info" | "warn" | "error";

export function createLogger({ format, stream = process.stderr }: LogOptions): Logger {
  const line = format === "json" ? jsonLine : textLine;
  const write = (level: Level, message: string, fields: LogFields = {}): void => {
    stream.write(`${line(new Date().toISOString(), level, message, fields)}\n`);
  };
  return {
    info: (message, fields) => write("info", message, fields),
    warn: (message, fields) => write("warn", message, fields),
    error: (message, fields) => write("error", message, fields),
  };
}

function textLine(time: string, level: Level, message: string, fields: LogFields): string {
  const pairs = flatten(level, fields).map(([key, value]) => ` ${key}=${quoted(String(value))}`);
  return `${time} ${level} ${message.replace(/[\r\n]+/g, " ")}${pairs.join("")}`;
}

function jsonLine(time: string, level: Level, message: string, fields: LogFields): string {
  return JSON.stringify({ ...Object.fromEntries(flatten(level, fields)), time, level, message });
}

/** An Error becomes its message, and at level error its stack as well. */
function flatten(level: Level, fields: LogFields): [string, string | number | boolean][] {
  const flat: [string, string | number | boolean][] = [];
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    if (!(value instanceof Error)) {
      flat.push([key, value]);
      continue;
    }
    flat.push([key, value.message]);
    if (level === "error" && value.stack !== undefined) flat.push([`${key}Stack`, value.stack]);
  }
  return flat;
}

function quoted(value: string): string {
  return value === "" || /[\s"=]/.test(value) ? JSON.stringify(value) : value;
}
