/**
 * What is measured beside each other: Baton, what a user would pick instead, and the bare parts that bound them all.
 *
 * Each system is a server, started fresh in a folder of its own, and a client: a process of its own that holds producer
 * and worker, and does on command what every system is asked to do alike.
 */

/**
 * `everysec`: what is acknowledged is on disk within about a second, or as near to that as the system can be set.
 * `safest`: it is on disk before it is acknowledged, or as near to that as the system can be set.
 */
export type Durability = "everysec" | "safest";

export type StartOptions = {
  readonly durability: Durability;
  /** Empty, its own, and removed when it has ended. */
  readonly folder: string;
  /** Where CPU profiles go; undefined: none are taken. Systems that are not ours take none. */
  readonly profileFolder?: string | undefined;
};

export type Server = {
  /** What runs, as it goes into the report: "beanstalkd 1.12", "BullMQ 6.7.0, Redis 7.0.15". */
  readonly version: string;
  /** How the durability was set, in its own words: "appendfsync everysec", "-f 1000". */
  readonly durability: string;
  /** For its client, which alone reads it. */
  readonly address: string;
  /** Whose CPU time is told. A system without a process of one kind leaves it out. */
  readonly pids: { readonly broker?: number; readonly redis?: number };
  /** The path of its Redis's socket, if it has one: for figures of memory, and to clear it. */
  readonly redisSocket?: string;
  /** The last lines of its log. */
  lastWords(): string;
  stop(): Promise<void>;
};

export type System = {
  readonly name: string;
  readonly kind: "baton" | "peer" | "limit";
  /** What its client knows; a workload that needs another one leaves the system out, and says so. */
  readonly operations: ReadonlySet<Ability>;
  /** Throws Missing when it is not installed, and another error with its last words when it does not start. */
  start(options: StartOptions): Promise<Server>;
  /** The program that is its client: it reads operations from stdin and writes answers to stdout, a line of JSON each. */
  client(server: Server): { readonly command: string; readonly args: readonly string[] };
};

/** An operation, or a part of one. `due`: putMany knows `dueAtMs`. `retry`: putMany knows `willFail`, drain `retryAtMs`. */
export type Ability = Operation["op"] | "due" | "retry";

/** The system is not on this machine; the message says what is missing. It is reported as missing, never as beaten. */
export class Missing extends Error {}

/** What a client is asked to do. Jobs have an id of their own (a UUID) and random bytes as payload. */
export type Operation =
  /** Puts jobs, each in a call of its own, `concurrency` at a time, until the time is over. */
  | {
      readonly op: "put";
      readonly queue: string;
      readonly concurrency: number;
      readonly durationMs: number;
      readonly payloadBytes: number;
    }
  /** Puts so many jobs in batches, `calls` batches at a time, spread over the queues. */
  | ({
      readonly op: "putMany";
      readonly queues: readonly string[];
      /** The jobs may not be handed out before this time (ms since 1970); undefined: at once. */
      readonly dueAtMs?: number;
      /** Workers will fail each job once, and it is to be tried again. */
      readonly willFail?: boolean;
    } & Load)
  /** Workers wait on every queue; then so many jobs are put (as in putMany), handed out and finished, all at once. */
  | ({
      readonly op: "lifeCycle";
      readonly queues: readonly string[];
      /** How many workers share the queues; with fewer workers than queues each takes several. */
      readonly streams: number;
      /** Not more than so many jobs are put and unfinished. */
      readonly unfinished: number;
    } & Load)
  /** So many jobs wait already: workers take and finish them. The time runs from the workers' start, or from `fromMs`. */
  | {
      readonly op: "drain";
      readonly queues: readonly string[];
      readonly streams: number;
      readonly jobs: number;
      readonly fromMs?: number;
      /** Workers fail the jobs instead, so that each is to be tried again at this time. */
      readonly retryAtMs?: number;
    }
  /** Each job is put at its time, whether or not the one before has arrived, and finished when it has. */
  | {
      readonly op: "latency";
      readonly queue: string;
      readonly perSecond: number;
      readonly jobs: number;
      readonly payloadBytes: number;
    }
  /** Removes all jobs of these queues. Only for systems without a Redis, which is cleared as a whole. */
  | { readonly op: "clear"; readonly queues: readonly string[] };

export type Load = {
  readonly jobs: number;
  readonly batch: number;
  readonly calls: number;
  readonly payloadBytes: number;
};

export type Done = {
  readonly done: true;
  readonly jobs: number;
  readonly elapsedMs: number;
  /** Of the operation "latency" only: of every job, from the call that puts it until the worker's code has it. */
  readonly latenciesMs?: readonly number[];
};

export type Answer = Done | { readonly done: false; readonly error: string };

/** A client in TypeScript: the operations are made of these, by the same code for every system. */
export type Driver = {
  /** One job in a call of its own; resolves when the system has acknowledged it. */
  put(queue: string, job: Job): Promise<void>;
  /** The jobs of one batch, in the way that the system's documentation names for many; resolves when all are acknowledged. */
  putMany(queue: string, jobs: readonly Job[], dueAtMs?: number, willFail?: boolean): Promise<void>;
  /** Takes jobs and finishes each at once, in the fastest way that the documentation has; resolves when all workers wait. */
  work(options: WorkOptions): Promise<() => Promise<void>>;
  clear?(queues: readonly string[]): Promise<void>;
  close(): Promise<void>;
};

export type Job = { readonly id: string; readonly payload: Buffer };

export type WorkOptions = {
  readonly queues: readonly string[];
  readonly streams: number;
  /** Undefined when nobody wants to know. Told as soon as the worker's code has the job. */
  readonly onDelivered: ((id: string) => void) | undefined;
  /** Undefined: each job is finished. Else it is failed, and to be tried again at this time (ms since 1970). */
  readonly retryAtMs: number | undefined;
  /** So many jobs more are finished: their acknowledgement is confirmed, where the system confirms it, else written. */
  readonly onFinished: (jobs: number) => void;
  readonly onError: (error: unknown) => void;
};
