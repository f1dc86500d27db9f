/** Asks at intervals whether this broker can do its work, and tells when the answer changes. */
import type { Logger } from "../model/log.ts";

export type HealthWatchOptions = {
  /** Throws when Redis is away. */
  readonly ping: () => Promise<void>;
  readonly onChange: (serving: boolean) => void;
  readonly log: Logger;
};

/** A load balancer asks every few seconds; a Redis that was away for less than this was not away. */
const INTERVAL_MS = 500;

export class HealthWatch {
  readonly #options: HealthWatchOptions;
  #timer: NodeJS.Timeout | undefined;
  #asking: Promise<void> | undefined;
  #serving: boolean | undefined;
  #stopped = false;

  constructor(options: HealthWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#asking ??= this.#ask();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#asking;
  }

  async #ask(): Promise<void> {
    let serving = true;
    try {
      await this.#options.ping();
    } catch {
      serving = false;
    }
    if (this.#stopped) return;
    if (serving !== this.#serving) {
      if (this.#serving !== undefined || !serving) {
        this.#options.log.warn(serving ? "Redis is back: serving" : "Redis is away: not serving");
      }
      this.#serving = serving;
      this.#options.onChange(serving);
    }
    this.#timer = setTimeout(() => {
      this.#asking = this.#ask();
    }, INTERVAL_MS);
  }
}
