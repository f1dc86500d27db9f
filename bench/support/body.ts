/** For systems whose messages have no id of the producer's: it travels in front of the payload. */
import type { Job } from "../systems/system.ts";

/** A UUID as text. */
export const ID_BYTES = 36;

export function bodyOf({ id, payload }: Job): Buffer {
  const body = Buffer.allocUnsafe(ID_BYTES + payload.length);
  body.write(id, "latin1");
  payload.copy(body, ID_BYTES);
  return body;
}

export function idIn(body: Uint8Array): string {
  return Buffer.from(body.buffer, body.byteOffset, ID_BYTES).toString("latin1");
}
