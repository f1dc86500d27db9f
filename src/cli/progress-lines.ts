/**
 * What a command says of its progress: lines such as `40 page 4 of 10`. Of what comes at once only the last line is read,
 * so that a command that writes in a tight loop costs little.
 */

/** Longer than a note may be. */
const LINE_LIMIT_BYTES = 2_048;
const LINE_FEED = 0x0a;
/** A number, with or without a percent sign, and a note. */
const LINE = /^\s*(?<percent>\d{1,3}(\.\d*)?)\s*%?(\s+(?<note>.*))?$/s;

export type ProgressListener = {
  /** `percent` is any number from 0 to 999. */
  onProgress(percent: number, note: string): void;
  /** Called once at most. */
  onMalformed(line: string): void;
};

export class ProgressLines {
  readonly #listener: ProgressListener;
  /** The beginning of a line whose end has not come. */
  #rest: Buffer = Buffer.alloc(0);
  #isMalformed = false;

  constructor(listener: ProgressListener) {
    this.#listener = listener;
  }

  add(chunk: Buffer): void {
    const bytes = Buffer.concat([this.#rest, chunk]);
    const end = bytes.lastIndexOf(LINE_FEED);
    this.#rest = bytes.subarray(end + 1, end + 1 + LINE_LIMIT_BYTES);
    if (end >= 0) this.#read(bytes.subarray(end === 0 ? 0 : bytes.lastIndexOf(LINE_FEED, end - 1) + 1, end));
  }

  /** A last line may have no end. */
  end(): void {
    this.#read(this.#rest);
    this.#rest = Buffer.alloc(0);
  }

  #read(bytes: Buffer): void {
    const line = bytes.subarray(0, LINE_LIMIT_BYTES).toString().trimEnd();
    if (line === "") return;
    const { percent, note = "" } = LINE.exec(line)?.groups ?? {};
    if (percent !== undefined) {
      this.#listener.onProgress(Number(percent), note);
    } else if (!this.#isMalformed) {
      this.#isMalformed = true;
      this.#listener.onMalformed(line);
    }
  }
}
