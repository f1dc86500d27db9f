/** Payloads, headers and results: their limits, and how they show in a completion event. */
import type { Payload } from "../../gen/baton/v1/job_pb.js";
import type { Checks } from "./checks.ts";
import type { Limits } from "./limits.ts";

const HEADER_KEY_BYTES = 255;
/** A larger result is not part of its completion event: Get has it. */
const EVENT_RESULT_BYTES = 64 * 1024;

export function checkPayload(checks: Checks, field: string, payload: Payload | undefined, limits: Limits): void {
  if (!payload) return;
  const bytes = contentBytes(payload.content);
  if (bytes > limits.maxPayloadBytes) {
    checks.refuse(field, `must be at most ${limits.maxPayloadBytes} bytes (--max-payload-bytes), and has ${bytes}`);
  }
  checks.name(`${field}.content_type`, payload.contentType);
}

export function checkHeaders(
  checks: Checks,
  field: string,
  headers: Readonly<Record<string, string>>,
  limits: Limits,
): void {
  const entries = Object.entries(headers);
  if (entries.length > limits.maxHeaders) {
    checks.refuse(field, `must be at most ${limits.maxHeaders} (--max-headers), and are ${entries.length}`);
  }
  let bytes = 0;
  for (const [key, value] of entries) {
    const keyBytes = Buffer.byteLength(key);
    if (keyBytes === 0 || keyBytes > HEADER_KEY_BYTES) {
      checks.refuse(field, `must have keys of 1 to ${HEADER_KEY_BYTES} bytes, and one has ${keyBytes}`);
    }
    bytes += keyBytes + Buffer.byteLength(value);
  }
  if (bytes > limits.maxHeaderBytes) {
    checks.refuse(field, `must be at most ${limits.maxHeaderBytes} bytes (--max-header-bytes), and are ${bytes}`);
  }
}

/** The members that a result adds to its completion event; they start with a comma. */
export function resultDetail(payload: Payload): string {
  if (contentBytes(payload.content) > EVENT_RESULT_BYTES) return `,"resultOmitted":true`;
  const { content, contentType } = payload;
  const shown =
    content.case === "data"
      ? { data: Buffer.from(content.value).toString("base64") }
      : { text: content.case === "text" ? content.value : "" };
  return `,"result":${JSON.stringify(contentType === "" ? shown : { ...shown, contentType })}`;
}

export function contentBytes(content: Payload["content"]): number {
  if (content.case === "data") return content.value.length;
  return content.case === "text" ? Buffer.byteLength(content.value) : 0;
}
