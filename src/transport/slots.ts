/** How many streams may be open at once. Each holds memory for as long as its client likes, so there is a bound. */
import { BatonError } from "../model/errors.ts";

export class StreamSlots {
  readonly #limit: number;
  #taken = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  take(): void {
    if (this.#taken >= this.#limit) {
      const message = `this broker has ${this.#limit} streams open, which is its limit (--max-streams)`;
      throw new BatonError("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS", message, { retryAfterMs: 1_000 });
    }
    this.#taken += 1;
  }

  release(): void {
    this.#taken -= 1;
  }
}
