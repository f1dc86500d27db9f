/** Tells those who have found nothing that there may be something now. */
export class Bell {
  #rings = 0;
  #waiting: (() => void)[] = [];

  /** To be read before one looks, and given to next(): so a ring in between is not missed. */
  get rings(): number {
    return this.#rings;
  }

  ring(): void {
    this.#rings++;
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Resolves when there has been another ring, or after so long, if that is given. */
  next(heard: number, withinMs: number | undefined): Promise<void> {
    if (this.#rings !== heard) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = withinMs === undefined ? undefined : setTimeout(resolve, withinMs);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
