/** How a command that failed says so. */
import { BatonClientError } from "../client/index.ts";

/** For people: what went wrong, then each bad field on its own line. */
export function failureText(error: unknown): string {
  if (!(error instanceof BatonClientError)) return error instanceof Error ? error.message : String(error);
  const name = error.reason === undefined ? error.code : `${error.code}/${error.reason}`;
  // The message of a bad request is all of its fields in one line; each on its own reads better.
  const lines = [error.violations.length > 0 ? `the broker refused this (${name}):` : `${error.message} (${name})`];
  if (isUnreachable(error)) {
    // gRPC says it with a history of its attempts; what the system said, and where, is at its end.
    const [, cause, address] = /connect (\w+) (\S+?)\.?(?:\s|$)/.exec(error.message) ?? [];
    if (address !== undefined) lines[0] = `no broker answers at ${address} (${cause})`;
    lines.push("is a broker running there? baton serve starts one; --addr names another");
  }
  for (const { field, description } of error.violations) lines.push(`  ${field}: ${description}`);
  return lines.join("\n");
}

/** For programs. */
export function failureJson(error: unknown): string {
  if (!(error instanceof BatonClientError)) return JSON.stringify({ error: { message: failureText(error) } });
  const { code, reason, message, metadata, violations, retryAfterMs } = error;
  return JSON.stringify({ error: { code, reason, message, metadata, violations, retryAfterMs } });
}

/** No broker said it, so none was there to say it. */
function isUnreachable(error: BatonClientError): boolean {
  return error.code === "UNAVAILABLE" && error.reason === undefined;
}
