/**
 * Reads the bytes of a message where the hot path knows what nearly all requests look like, so that no object is made for
 * each message within. It says when it finds anything else; then the generated code reads the same bytes.
 */
import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";

const NONE = -1;
/** Four bytes of a number: as long as any message, or part of one, can be. */
const MOST_SHIFT = 21;
/** What is printed in ASCII: no text of it can be bad UTF-8, and none has control characters. */
const FIRST_PRINTED = 0x20;
const LAST_PRINTED = 0x7e;

/**
 * A message within a message. Undefined when the generated code refuses these bytes: then it is to read the whole, and say
 * what is wrong. (It reads beyond the end of a part that is cut off within a field.)
 */
export function partOf<D extends DescMessage>(schema: D, bytes: Buffer): MessageShape<D> | undefined {
  try {
    return fromBinary(schema, bytes);
  } catch {
    return undefined;
  }
}

export class MessageReader {
  readonly bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  /** Goes behind this tag, which is one byte, if it stands here, before `end`. */
  skip(tag: number, end: number): boolean {
    if (this.at >= end || this.bytes[this.at] !== tag) return false;
    this.at += 1;
    return true;
  }

  /** Behind the field of which the length stands here; negative when it does not end before `end`. */
  endOfField(end: number): number {
    const length = this.number(end);
    const to = this.at + length;
    return length < 0 || to > end ? NONE : to;
  }

  /** The number that stands here; negative when there is none of at most 28 bits. */
  number(end: number): number {
    let value = 0;
    for (let shift = 0; shift <= MOST_SHIFT && this.at < end; shift += 7) {
      const byte = this.bytes[this.at++] as number;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return NONE;
  }

  /** The text of which the length stands here; undefined unless it is printable ASCII. `like`: what it may well be. */
  text(end: number, like = ""): string | undefined {
    const to = this.endOfField(end);
    if (to < 0) return undefined;
    const from = this.at;
    this.at = to;
    if (this.#says(from, to, like)) return like;
    for (let i = from; i < to; i++) {
      const byte = this.bytes[i] as number;
      if (byte < FIRST_PRINTED || byte > LAST_PRINTED) return undefined;
    }
    return this.bytes.toString("latin1", from, to);
  }

  #says(from: number, to: number, text: string): boolean {
    if (text.length !== to - from) return false;
    for (let i = from; i < to; i++) if (this.bytes[i] !== text.charCodeAt(i - from)) return false;
    return true;
  }
}
