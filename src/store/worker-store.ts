/**
 * Which workers there are, beside the queues: each broker writes down those that are connected to it, and again and
 * again, so that what was not renewed is known to be gone; and which workers are to get no jobs, of which brokers also
 * tell each other over pub/sub. Plain commands on a few keys, none of which a job's way touches.
 *
 * `names`: a sorted set of all members by name; `seen`: by when they were last known to be there (ms); `info`: a hash of
 * what there is to say of each. A member is a worker's id, its broker's and a number, with NUL in between, so that the
 * names stand in the order of the workers' ids. `quiet`: a sorted set of workers' ids, by when they were last seen.
 */
import type { Redis } from "ioredis";
import type { WorkerView } from "../model/worker.ts";
import type { Channels } from "./channels.ts";
import { workersKey } from "./keys.ts";
import { asBatonError } from "./script-runner.ts";

/** What is not renewed for so long is gone. */
export const WORKER_LIFE_MS = 30_000;
/** A worker stays quiet while it is there, and so long after. */
const QUIET_LIFE_MS = 86_400_000;
/** Members in one command. */
const PIECE = 500;
/** Members looked at for one page at most: with a filter, a page may have fewer workers than were asked for. */
const MOST_LOOKED_AT = 20 * PIECE;
/** A page has no more than this, by what is stored of its workers, so that it fits into the 4 MiB that clients accept. */
const PAGE_BYTES = 3.5 * 1024 * 1024;

/** `quiet`: this stream is, whether its worker is told to be or not. */
export type WorkerRecord = WorkerView & { readonly member: string };

export type WorkerPage = {
  readonly workers: readonly WorkerView[];
  /** Where the next page begins; undefined: there is none. */
  readonly last: string | undefined;
};

/** As written in `info`; `n`: the stream is quiet, else it is left out. */
type Info = {
  [K in "w" | "h" | "l" | "b"]: string;
} & { [K in "j" | "c" | "s"]: number } & { q: string[]; st: boolean; n?: boolean };

export class WorkerStore {
  readonly #redis: Redis;
  readonly #channels: Channels;
  readonly #names: string;
  readonly #seen: string;
  readonly #info: string;
  readonly #quiet: string;
  readonly #channel: string;

  constructor(redis: Redis, channels: Channels, namespace: string) {
    this.#redis = redis;
    this.#channels = channels;
    this.#names = workersKey(namespace, "names");
    this.#seen = workersKey(namespace, "seen");
    this.#info = workersKey(namespace, "info");
    this.#quiet = workersKey(namespace, "quiet");
    this.#channel = workersKey(namespace);
  }

  async write(records: readonly WorkerRecord[]): Promise<void> {
    for (let i = 0; i < records.length; i += PIECE) {
      const names: (string | number)[] = [];
      const seen: (string | number)[] = [];
      const info: string[] = [];
      for (const record of records.slice(i, i + PIECE)) {
        names.push(0, record.member);
        seen.push(record.lastSeenMs, record.member);
        info.push(record.member, JSON.stringify(infoOf(record)));
      }
      await this.#run((pipeline) =>
        pipeline
          .zadd(this.#names, ...names)
          .zadd(this.#seen, ...seen)
          .hset(this.#info, ...info),
      );
    }
  }

  async remove(members: readonly string[]): Promise<void> {
    for (let i = 0; i < members.length; i += PIECE) {
      const piece = members.slice(i, i + PIECE);
      await this.#run((pipeline) =>
        pipeline
          .zrem(this.#names, ...piece)
          .zrem(this.#seen, ...piece)
          .hdel(this.#info, ...piece),
      );
    }
  }

  /** Removes some of those that nobody has renewed. One whose broker was only slow is written anew by that. */
  async removeDead(nowMs: number): Promise<void> {
    const [dead] = await this.#run((pipeline) =>
      pipeline.zrange(this.#seen, "-inf", `(${nowMs - WORKER_LIFE_MS}`, "BYSCORE", "LIMIT", 0, PIECE),
    );
    await this.remove(dead as string[]);
  }

  /** Those that are there, in the order of their ids, `most` at most, after a member; `queue`: only those at it. */
  async list(nowMs: number, queue: string, most: number, after: string | undefined): Promise<WorkerPage> {
    const workers: WorkerView[] = [];
    let last = after;
    let bytes = 0;
    for (let looked = 0; looked < MOST_LOOKED_AT; looked += PIECE) {
      const piece = await this.#piece(last);
      for (const { member, info } of piece) {
        const worker = readInfo(info);
        const isListed =
          worker && worker.lastSeenMs >= nowMs - WORKER_LIFE_MS && (queue === "" || worker.queues.includes(queue));
        if (isListed) bytes += Buffer.byteLength(info);
        // One more than was asked for, or fits: there is a next page.
        if (isListed && (workers.length === most || bytes > PAGE_BYTES)) return { workers, last };
        if (isListed) workers.push(worker);
        last = member;
      }
      if (piece.length < PIECE) return { workers, last: undefined };
    }
    return { workers, last };
  }

  /** The next members after this one, and what is stored of each. */
  async #piece(after: string | undefined): Promise<{ readonly member: string; readonly info: string }[]> {
    const from = after === undefined ? "-" : `(${after}`;
    const [names] = await this.#run((pipeline) => pipeline.zrange(this.#names, from, "+", "BYLEX", "LIMIT", 0, PIECE));
    const members = names as string[];
    if (members.length === 0) return [];
    const [infos] = await this.#run((pipeline) => pipeline.hmget(this.#info, ...members));
    return members.map((member, i) => ({ member, info: (infos as (string | null)[])[i] ?? "" }));
  }

  /** Whether that changed anything. All brokers hear of it. */
  async setQuiet(workerId: string, quiet: boolean, nowMs: number): Promise<boolean> {
    const replies = await this.#run((pipeline) => {
      pipeline.zremrangebyscore(this.#quiet, "-inf", `(${nowMs - QUIET_LIFE_MS}`);
      if (quiet) pipeline.zadd(this.#quiet, nowMs, workerId);
      else pipeline.zrem(this.#quiet, workerId);
      return pipeline.publish(this.#channel, JSON.stringify({ workerId, quiet }));
    });
    return replies[1] === 1;
  }

  /** These quiet workers are there. */
  async keepQuiet(workerIds: readonly string[], nowMs: number): Promise<void> {
    for (let i = 0; i < workerIds.length; i += PIECE) {
      const entries = workerIds.slice(i, i + PIECE).flatMap((workerId) => [nowMs, workerId]);
      await this.#run((pipeline) => pipeline.zadd(this.#quiet, "XX", ...entries));
    }
  }

  /** All quiet workers. In pieces; what changes meanwhile may be in it or not. */
  async quietWorkers(nowMs: number): Promise<Set<string>> {
    const quiet = new Set<string>();
    let cursor = "0";
    do {
      const [reply] = await this.#run((pipeline) => pipeline.zscan(this.#quiet, cursor, "COUNT", PIECE));
      const [next, entries] = reply as [string, string[]];
      for (let i = 0; i < entries.length; i += 2) {
        if (Number(entries[i + 1]) >= nowMs - QUIET_LIFE_MS) quiet.add(entries[i] as string);
      }
      cursor = next;
    } while (cursor !== "0");
    return quiet;
  }

  /** How many brokers there are: all of them follow one channel. At least this one. */
  async brokers(): Promise<number> {
    const [reply] = await this.#run((pipeline) => pipeline.pubsub("NUMSUB", this.#channel));
    return Math.max(1, Number((reply as [string, number])[1]));
  }

  /** What brokers, this one too, say of quiet workers. `onGap`: some of it may have been missed. */
  follow(onQuiet: (workerId: string, quiet: boolean) => void, onGap: () => void): void {
    this.#channels.onGap(onGap);
    this.#channels.follow(this.#channel, (text) => {
      const { workerId, quiet } = JSON.parse(text) as { workerId: string; quiet: boolean };
      onQuiet(workerId, quiet);
    });
  }

  /** The replies of a few commands that go together. */
  async #run(fill: (pipeline: ReturnType<Redis["pipeline"]>) => unknown): Promise<unknown[]> {
    const pipeline = this.#redis.pipeline();
    fill(pipeline);
    const replies = await pipeline.exec().catch((error: unknown) => Promise.reject(asBatonError(error)));
    return (replies ?? []).map(([error, reply]) => {
      if (error) throw asBatonError(error);
      return reply;
    });
  }
}

function infoOf(record: WorkerRecord): Info {
  return {
    w: record.workerId,
    h: record.host,
    l: record.language,
    q: [...record.queues],
    j: record.jobsInHand,
    c: record.connectedAtMs,
    s: record.lastSeenMs,
    st: record.streaming,
    b: record.brokerId,
    ...(record.quiet && { n: true }),
  };
}

/** Undefined for what is none: it was removed between two commands, or is not ours. */
function readInfo(text: string): WorkerView | undefined {
  try {
    const { w, h, l, q, j, c, s, st, b, n = false } = JSON.parse(text) as Info;
    return {
      workerId: w,
      host: h,
      language: l,
      queues: q,
      jobsInHand: j,
      connectedAtMs: c,
      lastSeenMs: s,
      quiet: n,
      streaming: st,
      brokerId: b,
    };
  } catch {
    return undefined;
  }
}
