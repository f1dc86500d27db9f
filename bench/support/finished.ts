/** How many jobs a worker has finished, and who waits for that. */
export class Finished {
  #count = 0;
  #failure: { readonly error: unknown } | undefined;
  #waiting: { readonly count: number; readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = [];

  get count(): number {
    return this.#count;
  }

  /** Resolves when so many are finished in all. */
  reached(count: number): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure.error);
    if (this.#count >= count) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waiting.push({ count, resolve, reject }));
  }

  add(jobs: number): void {
    this.#count += jobs;
    if (!this.#waiting.some(({ count }) => count <= this.#count)) return;
    const ready = this.#waiting.filter(({ count }) => count <= this.#count);
    this.#waiting = this.#waiting.filter(({ count }) => count > this.#count);
    for (const { resolve } of ready) resolve();
  }

  /** Nothing will be finished any more: all who wait are told, and all who come to wait. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}
