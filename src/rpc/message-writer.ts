/**
 * Writes the bytes of messages that the hot path answers with, job after job into one piece of memory: without an object
 * for each message, and without asking a schema for each field what it is.
 *
 * Whoever writes says first how many bytes may come (room()); against the end nothing is checked after that.
 */
import { WireType } from "@bufbuild/protobuf/wire";

/** The tag of a field: its number in the contract, and how it is written. All that are used here fit into one byte. */
export const delimited = (field: number): number => (field << 3) | WireType.LengthDelimited;
export const varint = (field: number): number => (field << 3) | WireType.Varint;

/** What a field takes beside its text or bytes: tag and length; or in all, if it is a number. */
export const FIELD_BYTES = 6;
/** Of UTF-8, for each of a text's UTF-16 units. */
export const UTF8_BYTES = 3;

const FIRST_BYTES = 64 * 1024;
/** Below this, a number is one byte. */
const ONE_BYTE = 0x80;
/** Shorter texts are written here: a call into Node's encoder takes longer. */
const SHORT_TEXT = 20;
/** google.protobuf.Timestamp */
const SECONDS = varint(1);
const NANOS = varint(2);

/** What stands in the message already. */
export type Written = { readonly at: number; readonly bytes: number };

export class MessageWriter {
  /** Kept for the next message, so it becomes as large as the largest. */
  #bytes = Buffer.allocUnsafe(FIRST_BYTES);
  #at = 0;

  /** What was written and not finished, because of an error, is forgotten. */
  begin(): void {
    this.#at = 0;
  }

  /** At most so many bytes more are written before the next call. */
  room(bytes: number): void {
    const needed = this.#at + bytes;
    if (needed <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(needed, 2 * this.#bytes.length));
    this.#bytes.copy(larger, 0, 0, this.#at);
    this.#bytes = larger;
  }

  /** A copy of all that was written since begin(). */
  finish(): Buffer {
    return Buffer.from(this.#bytes.subarray(0, this.#at));
  }

  /**
   * Begins a message within the message: what is written until close() is in it. Returns what close() wants to know.
   * `expected`: how long it will be at least; where its length then takes more bytes, the message is moved.
   */
  open(tag: number, expected = 0): number {
    this.#bytes[this.#at] = tag;
    this.#at += 1 + bytesOfNumber(expected);
    return this.#at;
  }

  close(from: number, expected = 0): void {
    const length = this.#at - from;
    const reserved = bytesOfNumber(expected);
    const more = bytesOfNumber(length) - reserved;
    if (more > 0) this.#bytes.copyWithin(from + more, from, this.#at);
    this.#at = from - reserved;
    this.#number(length);
    this.#at += length;
  }

  raw(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** Of at most 32 bits, never negative. */
  number(tag: number, value: number): void {
    this.#bytes[this.#at++] = tag;
    this.#number(value);
  }

  /** After 1970 and before the year 2106: there an int64 is written as a uint32 is. */
  time(tag: number, ms: number): void {
    const seconds = Math.floor(ms / 1_000);
    const message = this.open(tag);
    this.number(SECONDS, seconds);
    this.number(NANOS, (ms - seconds * 1_000) * 1_000_000);
    this.close(message);
  }

  bytes(tag: number, bytes: Uint8Array): void {
    this.number(tag, bytes.length);
    this.raw(bytes);
  }

  /** `expected`: as of open(). Returns where the text stands. */
  text(tag: number, text: string, expected = 0): Written {
    const field = this.open(tag, expected);
    this.part(text);
    const bytes = this.#at - field;
    this.close(field, expected);
    return { at: this.#at - bytes, bytes };
  }

  /** A part of a text; open() has begun it. */
  part(text: string): void {
    const { length } = text;
    const from = this.#at;
    if (length < SHORT_TEXT) {
      const bytes = this.#bytes;
      let i = 0;
      for (; i < length; i++) {
        const code = text.charCodeAt(i);
        if (code >= ONE_BYTE) break;
        bytes[from + i] = code;
      }
      if (i === length) {
        this.#at = from + length;
        return;
      }
    }
    this.#at = from + this.#bytes.write(text, from);
  }

  /** The same once more. */
  again({ at, bytes }: Written): void {
    this.#bytes.copyWithin(this.#at, at, at + bytes);
    this.#at += bytes;
  }

  #number(value: number): void {
    let left = value;
    while (left >= ONE_BYTE) {
      this.#bytes[this.#at++] = (left & (ONE_BYTE - 1)) | ONE_BYTE;
      left >>>= 7;
    }
    this.#bytes[this.#at++] = left;
  }
}

function bytesOfNumber(value: number): number {
  let bytes = 1;
  for (let left = value; left >= ONE_BYTE; left >>>= 7) bytes++;
  return bytes;
}
