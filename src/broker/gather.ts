/**
 * Gathers what concurrent calls want of one queue into one script call: what comes in one turn of the event loop goes
 * together, in the order in which it came. Where one came alone the last time, and nothing is under way, the next goes
 * at once: it saves an idle queue the end of a turn. Of 64 unary Puts at a time, that made 0.62 of a bare echo's speed into 0.76,
 * and cost Redis 12 µs a call where it had cost 42.
 */
type Part<R> = {
  readonly from: number;
  readonly count: number;
  readonly resolve: (answers: readonly R[]) => void;
  readonly reject: (error: unknown) => void;
};

type Gathered<T, R> = { readonly items: T[]; readonly parts: Part<R>[] };

/** A larger script call gains nothing, and would let others wait. */
const MAX_ITEMS = 100;

export class Gather<T, R> {
  readonly #run: (key: string, items: readonly T[]) => Promise<readonly R[]>;
  readonly #gathered = new Map<string, Gathered<T, R>>();
  /** How many calls are under way. */
  #underWay = 0;
  #lastCameAlone = true;
  #scheduled = false;

  /** `run` answers for each item, in their order; `key`: what goes together, such as a queue. */
  constructor(run: (key: string, items: readonly T[]) => Promise<readonly R[]>) {
    this.#run = run;
  }

  /** The answers for these items; when the script call that they were part of fails, its error. */
  add(key: string, items: readonly T[]): Promise<readonly R[]> {
    // One that is full by itself needs nobody else's.
    if (items.length >= MAX_ITEMS && !this.#gathered.has(key)) return this.#run(key, items);
    return new Promise((resolve, reject) => {
      let gathered = this.#gathered.get(key);
      if (!gathered) {
        gathered = { items: [], parts: [] };
        this.#gathered.set(key, gathered);
      }
      gathered.parts.push({ from: gathered.items.length, count: items.length, resolve, reject });
      for (const item of items) gathered.items.push(item);
      if (gathered.items.length >= MAX_ITEMS) this.#flush(key);
      else if (this.#underWay === 0 && this.#lastCameAlone) queueMicrotask(() => this.#flush(key));
      else this.#schedule();
    });
  }

  /** Waits for no more. */
  flush(): void {
    for (const key of [...this.#gathered.keys()]) this.#flush(key);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.flush();
    });
  }

  #flush(key: string): void {
    const gathered = this.#gathered.get(key);
    if (!gathered) return;
    this.#gathered.delete(key);
    const { items, parts } = gathered;
    this.#lastCameAlone = parts.length === 1;
    this.#underWay++;
    this.#run(key, items).then(
      (answers) => {
        this.#underWay--;
        for (const { from, count, resolve } of parts) resolve(answers.slice(from, from + count));
      },
      (error: unknown) => {
        this.#underWay--;
        for (const { reject } of parts) reject(error);
      },
    );
  }
}
