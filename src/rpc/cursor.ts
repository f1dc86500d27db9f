/**
 * Cursors of Watch: an event's place in its queue's history, as opaque text. A cursor is good at any broker of its
 * namespace. It begins with what its queue hashes to and ends with a checksum, so that one of another queue, or one that
 * was made up, is refused and not misread. The event's time tells it from another one that has its number since Redis
 * lost some. It is no secret: whoever may watch the queue may begin anywhere.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { PastEvent } from "../broker/watched-queue.ts";

const TAG_BYTES = 8;
/** Which lasts for 2^48 events. */
const NUMBER_BYTES = 6;
const TIME_BYTES = 6;
const CHECKSUM_BYTES = 4;
const CHECKED_BYTES = TAG_BYTES + NUMBER_BYTES + TIME_BYTES;
const CURSOR_BYTES = CHECKED_BYTES + CHECKSUM_BYTES;
const BASE64URL = /^[A-Za-z0-9_-]+$/;

/** The cursors of one queue. */
export class Cursors {
  readonly #tag: Buffer;

  constructor(namespace: string, queue: string) {
    this.#tag = createHash("sha256").update(`${namespace}\0${queue}`).digest().subarray(0, TAG_BYTES);
  }

  encode({ number, atMs }: PastEvent): string {
    const bytes = Buffer.alloc(CURSOR_BYTES);
    this.#tag.copy(bytes);
    bytes.writeUIntBE(number, TAG_BYTES, NUMBER_BYTES);
    bytes.writeUIntBE(atMs, TAG_BYTES + NUMBER_BYTES, TIME_BYTES);
    bytes.writeUInt32BE(checksum(bytes), CHECKED_BYTES);
    return bytes.toString("base64url");
  }

  /** Undefined for what is no cursor of this queue. */
  decode(cursor: string): PastEvent | undefined {
    // A length that is a multiple of 3 leaves no bits over, so that each cursor has one text.
    if (cursor.length !== (CURSOR_BYTES / 3) * 4 || !BASE64URL.test(cursor)) return undefined;
    const bytes = Buffer.from(cursor, "base64url");
    if (!bytes.subarray(0, TAG_BYTES).equals(this.#tag)) return undefined;
    if (bytes.readUInt32BE(CHECKED_BYTES) !== checksum(bytes)) return undefined;
    return {
      number: bytes.readUIntBE(TAG_BYTES, NUMBER_BYTES),
      atMs: bytes.readUIntBE(TAG_BYTES + NUMBER_BYTES, TIME_BYTES),
    };
  }
}

function checksum(bytes: Buffer): number {
  return crc32(bytes.subarray(0, CHECKED_BYTES));
}
