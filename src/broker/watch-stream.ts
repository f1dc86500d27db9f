/**
 * One Watch call: yields what happens in its queues, in the order in which it happens in each of them.
 *
 * It is read, not fed: whoever takes it asks for the next event, and only then the history is read, from where this
 * stream stands. So a slow reader holds one page at most, and one that the history overtakes is told of a gap.
 */
import type { HistoryEntry } from "../store/store.ts";
import { isUnavailable, soon } from "./waiting.ts";
import type { PastEvent, WatchedQueue } from "./watched-queue.ts";

export type { HistoryEntry };

/** An event's place in the history of its queue. */
export type Cursor = PastEvent & { readonly queue: string };

export type WatchEvent =
  | { readonly kind: "started"; readonly cursors: readonly Cursor[] }
  | { readonly kind: "events"; readonly queue: string; readonly entries: readonly HistoryEntry[] }
  | { readonly kind: "gap"; readonly cursor: Cursor }
  | { readonly kind: "keepalive"; readonly cursors: readonly Cursor[] }
  | { readonly kind: "draining"; readonly graceMs: number };

export type WatchOptions = {
  readonly queues: readonly string[];
  /** Only of these jobs; empty: of all. */
  readonly ids: ReadonlySet<string>;
  /** By queue; what is not there begins now. */
  readonly resumeAfter: ReadonlyMap<string, PastEvent>;
};

export type WatchContext = {
  /** The queue's history, kept until it is given back. */
  readonly take: (queue: string, onNews: () => void) => WatchedQueue;
  readonly giveBack: (queue: string, onNews: () => void) => void;
  readonly keepaliveMs: number;
  /** When it ends by itself; undefined: never. */
  readonly ageMs: number | undefined;
  readonly onClose: (stream: WatchStream) => void;
};

type Place = {
  readonly queue: string;
  readonly history: WatchedQueue;
  readonly onNews: () => void;
  /** The last event that has been read. */
  after: PastEvent;
  /** There may be more. */
  hasNews: boolean;
};

type State =
  | { readonly kind: "new" }
  | { readonly kind: "open" }
  /** What is in `events` is still taken, then it ends. */
  | { readonly kind: "draining" }
  | { readonly kind: "closed" };

export class WatchStream implements AsyncIterableIterator<WatchEvent> {
  readonly #options: WatchOptions;
  readonly #context: WatchContext;
  readonly #places: Place[];
  /** Not yet taken: one page, with the gap before it, and at most one of each other kind. */
  readonly #events: WatchEvent[] = [];
  readonly #keepalive: NodeJS.Timeout;
  readonly #ageing: NodeJS.Timeout | undefined;
  #state: State = { kind: "new" };
  #keepaliveDue = false;
  #wakeReader: (() => void) | undefined;

  constructor(options: WatchOptions, context: WatchContext) {
    this.#options = options;
    this.#context = context;
    this.#places = options.queues.map((queue) => this.#placeIn(queue));
    this.#keepalive = setInterval(() => this.#sayAlive(), context.keepaliveMs);
    if (context.ageMs !== undefined) this.#ageing = setTimeout(() => this.drain(0), context.ageMs);
  }

  /** Tells the reader, and ends. */
  drain(graceMs: number): void {
    if (this.#state.kind !== "new" && this.#state.kind !== "open") return;
    this.#setState({ kind: "draining" });
    this.#events.push({ kind: "draining", graceMs });
    this.#wakeReader?.();
  }

  /** Ends the stream, from whichever side. */
  close(): void {
    if (this.#state.kind === "closed") return;
    this.#setState({ kind: "closed" });
    clearInterval(this.#keepalive);
    clearTimeout(this.#ageing);
    this.#events.length = 0;
    for (const { queue, onNews } of this.#places) this.#context.giveBack(queue, onNews);
    this.#wakeReader?.();
    this.#context.onClose(this);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<WatchEvent>> {
    try {
      const event = await this.#next();
      if (!event) this.close();
      return event ? { done: false, value: event } : { done: true, value: undefined };
    } catch (error) {
      // Whoever iterates does not call return() after this.
      this.close();
      throw error;
    }
  }

  async return(): Promise<IteratorResult<WatchEvent>> {
    this.close();
    return { done: true, value: undefined };
  }

  /** Undefined: the stream has ended. */
  async #next(): Promise<WatchEvent | undefined> {
    if (this.#state.kind === "new") await this.#start();
    for (;;) {
      if (this.#state.kind === "closed") return undefined;
      const event = this.#events.shift() ?? this.#dueKeepalive();
      if (event) return event;
      if (this.#state.kind === "draining") return undefined;
      const place = this.#places.find(({ hasNews }) => hasNews);
      if (place) await this.#read(place);
      else await this.#news();
    }
  }

  #placeIn(queue: string): Place {
    const onNews = () => {
      place.hasNews = true;
      this.#wakeReader?.();
    };
    const history = this.#context.take(queue, onNews);
    const place: Place = { queue, history, onNews, after: { number: 0, atMs: 0 }, hasNews: true };
    return place;
  }

  /** First the bells, then where to begin: so nothing that follows is missed. */
  async #start(): Promise<void> {
    await soon(Promise.all(this.#places.map(({ history }) => history.listening)));
    await Promise.all(
      this.#places.map(async (place) => {
        // Also for a stream that resumes: it begins to be written now.
        const end = await place.history.end();
        place.after = this.#options.resumeAfter.get(place.queue) ?? end;
      }),
    );
    if (this.#state.kind === "closed") return;
    this.#events.unshift({ kind: "started", cursors: this.#cursors() });
    if (this.#state.kind === "new") this.#setState({ kind: "open" });
  }

  async #read(place: Place): Promise<void> {
    const { queue, history, after } = place;
    place.hasNews = false;
    try {
      const { from, isGap, last, entries } = await history.read(after);
      const gap = isGap ? { number: from, atMs: 0 } : undefined;
      const newest = entries.at(-1);
      place.after = newest ? { number: newest.number, atMs: newest.atMs } : (gap ?? after);
      place.hasNews ||= place.after.number < last;
      if (gap) this.#events.push({ kind: "gap", cursor: { queue, ...gap } });
      const wanted = this.#wanted(entries);
      if (wanted.length > 0) this.#events.push({ kind: "events", queue, entries: wanted });
      // The others come first the next time.
      this.#places.push(...this.#places.splice(this.#places.indexOf(place), 1));
    } catch (error) {
      // Redis is away: the reconnect, or the poll, says when to read again.
      if (!isUnavailable(error)) throw error;
    }
  }

  #wanted(entries: readonly HistoryEntry[]): readonly HistoryEntry[] {
    const { ids } = this.#options;
    return ids.size === 0 ? entries : entries.filter(({ id }) => ids.has(id));
  }

  async #news(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wakeReader = resolve;
    });
    this.#wakeReader = undefined;
  }

  /** For when all that has been read is taken: it says how far that reaches, also where nothing of it was wanted. */
  #dueKeepalive(): WatchEvent | undefined {
    if (!this.#keepaliveDue) return undefined;
    this.#keepaliveDue = false;
    return { kind: "keepalive", cursors: this.#cursors() };
  }

  #sayAlive(): void {
    this.#keepaliveDue = true;
    this.#wakeReader?.();
  }

  /** In the order in which the queues were named; the places change theirs. */
  #cursors(): Cursor[] {
    const reached = new Map(this.#places.map(({ queue, after }) => [queue, after]));
    return this.#options.queues.map((queue) => ({ queue, number: 0, atMs: 0, ...reached.get(queue) }));
  }

  #setState(state: State): void {
    this.#state = state;
  }
}
