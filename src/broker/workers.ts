/**
 * The workers: who is connected to this broker, written down for all brokers to list, and who is to get no jobs.
 *
 * 1. Each stream is an entry from its beginning to its end; each worker that calls Reserve is one until it has not
 *    called for a while. Entries that are new are written soon, all of one moment in one go; every few seconds all of them
 *    are written again, and those of brokers that died are removed. Jobs cost nothing here.
 * 2. The quiet workers are held in memory, so that the hub can ask for each delivery. Brokers tell each other of
 *    changes, and read the whole set every few seconds, should a message have been lost; and count each other with it.
 */
import type { Logger } from "../model/log.ts";
import type { WorkerView } from "../model/worker.ts";
import { hostOf, languageOf } from "../model/worker-origin.ts";
import { WORKER_LIFE_MS, type WorkerPage, type WorkerRecord, type WorkerStore } from "../store/worker-store.ts";
import type { QueueShare } from "./consumer.ts";

/** Where a call comes from. */
export type Caller = { readonly peer: string; readonly userAgent: string };

/** An open stream, as far as the list goes. */
export type WorkerStream = {
  readonly workerId: string;
  readonly host: string;
  readonly language: string;
  readonly queues: readonly QueueShare[];
  readonly jobsInHand: number;
  /** It gets no more jobs, because its worker said so, or it is about to end. */
  readonly isQuiet: boolean;
};

/** The entry of a stream. */
export type StreamEntry = {
  /** What others see of it is no longer true: it is written anew soon. */
  changed(): void;
  /** To be called at its end. */
  closed(): void;
};

export type WorkersOptions = {
  readonly brokerId: string;
  readonly store: WorkerStore;
  /** Redis's time. */
  readonly now: () => Promise<number>;
  /** A worker has become quiet, or is no longer. */
  readonly onQuiet: (workerId: string, isQuiet: boolean) => void;
  readonly log: Logger;
};

type Entry = {
  readonly member: string;
  readonly workerId: string;
  readonly host: string;
  readonly language: string;
  readonly streaming: boolean;
  readonly openedAt: number;
  queues: readonly QueueShare[];
  /** undefined: it calls Reserve. */
  readonly stream: WorkerStream | undefined;
  /** Reserve calls under way. */
  calls: number;
  /** By performance.now(), as openedAt. */
  seenAt: number;
  /** By Redis's clock; known once it has been written. */
  connectedAtMs: number | undefined;
};

const RENEW_MS = 5_000;
/** What comes and goes within so long is written in one go. */
const GATHER_MS = 20;
const WRITTEN_AT_ONCE = 200;
/** Workers that call Reserve, as many as are remembered: those that called last. */
const MOST_CALLERS = 10_000;
/** A broker that stops does not wait longer for Redis: its entries then end by themselves. */
const LAST_WRITE_MS = 500;

export class Workers {
  readonly #options: WorkersOptions;
  readonly #entries = new Set<Entry>();
  /** By worker and host, the one that called last at the end. */
  readonly #callers = new Map<string, Entry>();
  readonly #unwritten = new Set<Entry>();
  #gone: string[] = [];
  #quiet: ReadonlySet<string> = new Set();
  /** What was heard while the whole set was being read. */
  #heard: Map<string, boolean> | undefined;
  #brokers = 1;
  #number = 0;
  #renewTimer: NodeJS.Timeout | undefined;
  #gatherTimer: NodeJS.Timeout | undefined;
  #isWriting = false;
  #written = Promise.resolve();
  #reading: Promise<void> | undefined;
  #failed = false;
  #stopped = false;

  constructor(options: WorkersOptions) {
    this.#options = options;
  }

  /** Resolves when it is known who is quiet: before that nobody may be served. Rejects when Redis does not answer. */
  async start(): Promise<void> {
    this.#options.store.follow(
      (workerId, isQuiet) => this.#hear(workerId, isQuiet),
      () => this.#refresh(),
    );
    await this.#readQuiet();
    this.#renewTimer ??= setInterval(() => {
      this.#write(true);
      this.#refresh();
    }, RENEW_MS);
  }

  /** Takes what is left of this broker's off the list. Safe to call twice, and before start. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#renewTimer);
    clearTimeout(this.#gatherTimer);
    for (const entry of [...this.#entries]) this.#remove(entry);
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, LAST_WRITE_MS);
    });
    await Promise.race([limit, this.#writeLast()]);
    clearTimeout(timer);
  }

  /** How many brokers there were when last counted, a few seconds ago. */
  get brokers(): number {
    return this.#brokers;
  }

  isQuiet(workerId: string): boolean {
    return this.#quiet.size > 0 && this.#quiet.has(workerId);
  }

  /** A stream has begun. */
  opened(stream: WorkerStream): StreamEntry {
    const { workerId, host, language, queues } = stream;
    const entry = this.#add({ workerId, host, language, queues, stream, streaming: true, calls: 0 });
    const changed = () => {
      if (!this.#entries.has(entry)) return;
      this.#unwritten.add(entry);
      this.#writeSoon();
    };
    return { changed, closed: () => this.#remove(entry) };
  }

  /** A Reserve has begun; what it returns is to be called at its end. */
  reserving(workerId: string, queues: readonly QueueShare[], caller: Caller): () => void {
    const host = hostOf(caller.peer);
    const key = `${workerId}\0${host}`;
    let entry = this.#callers.get(key);
    if (entry) this.#callers.delete(key);
    else {
      const language = languageOf(caller.userAgent);
      entry = this.#add({ workerId, host, language, queues, stream: undefined, streaming: false, calls: 0 });
    }
    this.#callers.set(key, entry);
    if (this.#callers.size > MOST_CALLERS) this.#forgetOldest();
    entry.queues = queues;
    entry.calls += 1;
    const own = entry;
    return () => {
      own.calls -= 1;
      own.seenAt = performance.now();
    };
  }

  /** Of all brokers, in the order of their ids; `queue`: only those at it, '' for all. */
  async list(queue: string, most: number, after: string | undefined): Promise<WorkerPage> {
    const { workers, last } = await this.#options.store.list(await this.#options.now(), queue, most, after);
    const isQuiet = ({ quiet, workerId }: WorkerView) => quiet || this.isQuiet(workerId);
    return { workers: workers.map((worker) => ({ ...worker, quiet: isQuiet(worker) })), last };
  }

  /** Whether that changed anything. */
  async setQuiet(workerId: string, isQuiet: boolean): Promise<boolean> {
    const changed = await this.#options.store.setQuiet(workerId, isQuiet, await this.#options.now());
    this.#hear(workerId, isQuiet);
    return changed;
  }

  #add(what: Omit<Entry, "member" | "openedAt" | "seenAt" | "connectedAtMs">): Entry {
    this.#number += 1;
    const member = [what.workerId, this.#options.brokerId, this.#number.toString(36)].join("\0");
    const now = performance.now();
    const entry: Entry = { ...what, member, openedAt: now, seenAt: now, connectedAtMs: undefined };
    this.#entries.add(entry);
    this.#unwritten.add(entry);
    this.#writeSoon();
    return entry;
  }

  #remove(entry: Entry): void {
    if (!this.#entries.delete(entry)) return;
    this.#unwritten.delete(entry);
    this.#gone.push(entry.member);
    this.#writeSoon();
  }

  #forgetOldest(): void {
    const [oldest] = this.#callers;
    if (!oldest) return;
    this.#callers.delete(oldest[0]);
    this.#remove(oldest[1]);
  }

  #writeSoon(): void {
    if (this.#stopped) return;
    this.#gatherTimer ??= setTimeout(() => {
      this.#gatherTimer = undefined;
      this.#write(false);
    }, GATHER_MS);
  }

  /** One at a time, so that what is gone is not written after it was removed. */
  #write(all: boolean): void {
    if (this.#isWriting) {
      // A renewal comes again by itself.
      if (!all) this.#writeSoon();
      return;
    }
    this.#isWriting = true;
    this.#written = this.#writeOnce(all)
      .then(() => {
        this.#failed = false;
      })
      .catch((error: unknown) => {
        // The next renewal writes what was not written; what was not removed ends by itself.
        const message = error instanceof Error ? error.message : String(error);
        if (!this.#failed) this.#options.log.warn("the list of workers is not kept", { error: message });
        this.#failed = true;
      })
      .finally(() => {
        this.#isWriting = false;
      });
  }

  async #writeOnce(all: boolean): Promise<void> {
    const { store } = this.#options;
    const gone = this.#gone;
    this.#gone = [];
    const nowMs = await this.#options.now();
    if (all) this.#dropCallersBefore(performance.now() - WORKER_LIFE_MS);
    const entries = all ? [...this.#entries] : [...this.#unwritten];
    this.#unwritten.clear();
    // Not all at once: there may be thousands, and the jobs of others wait meanwhile.
    for (let i = 0; i < entries.length; i += WRITTEN_AT_ONCE) {
      await store.write(entries.slice(i, i + WRITTEN_AT_ONCE).map((entry) => this.#record(entry, nowMs)));
    }
    // One that ended meanwhile is in the next list of those that are gone.
    await store.remove(gone);
    if (!all) return;
    await store.removeDead(nowMs);
    const quiet = new Set(entries.filter(({ workerId }) => this.isQuiet(workerId)).map(({ workerId }) => workerId));
    await store.keepQuiet([...quiet], nowMs);
  }

  async #writeLast(): Promise<void> {
    await this.#written;
    await this.#options.store.remove(this.#gone).catch(() => undefined);
  }

  #dropCallersBefore(limit: number): void {
    for (const [key, entry] of this.#callers) {
      if (entry.calls > 0 || entry.seenAt >= limit) continue;
      this.#callers.delete(key);
      this.#remove(entry);
    }
  }

  #record(entry: Entry, nowMs: number): WorkerRecord {
    const now = performance.now();
    entry.connectedAtMs ??= Math.round(nowMs - (now - entry.openedAt));
    const isThere = entry.streaming || entry.calls > 0;
    return {
      member: entry.member,
      workerId: entry.workerId,
      host: entry.host,
      language: entry.language,
      queues: entry.queues.map(({ name }) => name),
      jobsInHand: entry.stream?.jobsInHand ?? 0,
      connectedAtMs: entry.connectedAtMs,
      lastSeenMs: isThere ? nowMs : Math.round(nowMs - (now - entry.seenAt)),
      quiet: entry.stream?.isQuiet ?? false,
      streaming: entry.streaming,
      brokerId: this.#options.brokerId,
    };
  }

  #hear(workerId: string, isQuiet: boolean): void {
    this.#heard?.set(workerId, isQuiet);
    if (this.#quiet.has(workerId) === isQuiet) return;
    const quiet = new Set(this.#quiet);
    if (isQuiet) quiet.add(workerId);
    else quiet.delete(workerId);
    this.#replaceQuiet(quiet);
  }

  #refresh(): void {
    this.#readQuiet().catch((error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      if (!this.#failed) this.#options.log.warn("quiet workers not read", { error: message });
      this.#failed = true;
    });
  }

  #readQuiet(): Promise<void> {
    this.#reading ??= this.#readQuietOnce().finally(() => {
      this.#reading = undefined;
      this.#heard = undefined;
    });
    return this.#reading;
  }

  async #readQuietOnce(): Promise<void> {
    const { store, now } = this.#options;
    this.#heard = new Map();
    this.#brokers = await store.brokers();
    const quiet = await store.quietWorkers(await now());
    for (const [workerId, isQuiet] of this.#heard) {
      if (isQuiet) quiet.add(workerId);
      else quiet.delete(workerId);
    }
    this.#replaceQuiet(quiet);
  }

  #replaceQuiet(quiet: ReadonlySet<string>): void {
    const before = this.#quiet;
    this.#quiet = quiet;
    for (const workerId of before) if (!quiet.has(workerId)) this.#options.onQuiet(workerId, false);
    for (const workerId of quiet) if (!before.has(workerId)) this.#options.onQuiet(workerId, true);
  }
}
