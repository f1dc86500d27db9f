/** Reads completion events: lua/lib/finish.lua writes them. Anybody may publish on their channel, so nothing is trusted. */
import type { Completion, CompletionError, CompletionResult } from "../model/completion.ts";

type Json = Readonly<Record<string, unknown>>;

/** Throws for what is no completion event. */
export function readCompletion(queue: string, text: string): Completion {
  const event = object(JSON.parse(text), "the event");
  const { state, reservedAtMs, result, error } = event;
  if (state !== "COMPLETED" && state !== "FAILED") throw new Error("a completion event without a final state");
  return {
    queue,
    id: string(event.id, "id"),
    state,
    attempt: count(event.attempt, "attempt"),
    failures: count(event.failures, "failures"),
    workerId: string(event.workerId, "workerId"),
    putAtMs: count(event.putAtMs, "putAtMs"),
    reservedAtMs: reservedAtMs === null ? undefined : count(reservedAtMs, "reservedAtMs"),
    finishedAtMs: count(event.finishedAtMs, "finishedAtMs"),
    result: result === undefined ? undefined : readResult(object(result, "result")),
    error: error === undefined ? undefined : readError(object(error, "error")),
  };
}

function readResult({ text, data, contentType = "" }: Json): CompletionResult {
  const content = data === undefined ? string(text, "text") : Buffer.from(string(data, "data"), "base64");
  return { content, contentType: string(contentType, "contentType") };
}

function readError({ type, message, permanent }: Json): CompletionError {
  return { type: string(type, "type"), message: string(message, "message"), permanent: permanent === true };
}

function object(value: unknown, name: string): Json {
  if (typeof value !== "object" || value === null) throw new Error(`${name} is no object`);
  return value as Json;
}

function string(value: unknown, name: string): string {
  if (typeof value !== "string") throw new Error(`a completion event whose ${name} is no text`);
  return value;
}

function count(value: unknown, name: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw new Error(`a completion event whose ${name} is no count`);
  }
  return value as number;
}
