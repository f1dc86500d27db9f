/**
 * What comes on a call that has more than one answer, in the order in which it came. A reader that is slower than the
 * broker has the connection told to stop; messages that came before an error are handed out before it is thrown, because
 * they may hold jobs.
 */

/** How many messages wait for a slow reader. */
const LIMIT = 64;

type Call<T> = {
  on(event: "data", listener: (message: T) => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
  on(event: "end", listener: () => void): unknown;
  pause(): unknown;
  resume(): unknown;
};

export class Inbox<T> {
  readonly #call: Call<T>;
  readonly #messages: T[] = [];
  #ended = false;
  #failure: unknown;
  #wake = Promise.withResolvers<void>();

  constructor(call: Call<T>) {
    this.#call = call;
    call.on("data", (message) => {
      this.#messages.push(message);
      if (this.#messages.length >= LIMIT) call.pause();
      this.#wake.resolve();
    });
    call.on("error", (error) => {
      this.#failure = error;
      call.resume();
    });
    call.on("end", () => {
      this.#ended = true;
      this.#wake.resolve();
    });
  }

  /** Nothing more will come. */
  get hasEnded(): boolean {
    return this.#ended;
  }

  /** What the call failed with, once it has ended. */
  get failure(): unknown {
    return this.#failure;
  }

  /** The next message; undefined: the call has ended. */
  async next(): Promise<T | undefined> {
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined || this.#ended) return message;
      this.#call.resume();
      await this.#wake.promise;
      this.#wake = Promise.withResolvers<void>();
    }
  }
}
