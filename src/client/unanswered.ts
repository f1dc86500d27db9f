/** What was sent on a stream and is still to be answered, by the number under which it was sent. */
export class Unanswered<T> {
  readonly #sent = new Map<number, T>();
  #next: number;

  constructor(first = 0) {
    this.#next = first;
  }

  /** The number is a uint32, and no other that is still to be answered. */
  add(item: T): number {
    while (this.#sent.has(this.#next)) this.#advance();
    const number = this.#next;
    this.#sent.set(number, item);
    this.#advance();
    return number;
  }

  /** undefined: nothing with this number is still to be answered. */
  take(number: number): T | undefined {
    const item = this.#sent.get(number);
    this.#sent.delete(number);
    return item;
  }

  /** All of them, which are then not expected any more. */
  takeAll(): T[] {
    const items = [...this.#sent.values()];
    this.#sent.clear();
    return items;
  }

  #advance(): void {
    this.#next = (this.#next + 1) >>> 0;
  }
}
