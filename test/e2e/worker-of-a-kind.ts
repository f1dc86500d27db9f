/**
 * A worker's stream by Work or by Subscribe, for tests whose statements hold for both: what it got and lost, and when. It
 * has a connection of its own, and goes on holding its jobs until it is told to release them.
 */
import type { EventEmitter } from "node:events";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { JobState, type ReservedJob } from "../../gen/baton/v1/job_pb.js";
import { type ReleaseResult, RevokedReason, type SubscribeRequestSchema } from "../../gen/baton/v1/job_service_pb.js";
import { RawClient, type Request, statusError } from "../rpc/raw-client.ts";
import { until } from "../support/wait.ts";
import { WorkStream } from "../support/work-stream.ts";

export const KINDS = ["Work", "Subscribe"] as const;
export type Kind = (typeof KINDS)[number];

export type StartInit = MessageInitShape<typeof SubscribeRequestSchema>;
export type Release = NonNullable<Request<"releaseMany">["releases"]>[number];

type Source = {
  jobs(): ReservedJob[];
  revoked(): { readonly leaseToken: string; readonly reason: RevokedReason }[];
  readonly call: EventEmitter;
  /** OK, or the code of the error with which the stream broke. */
  readonly ended: Promise<string>;
  release(releases: readonly Release[]): Promise<(ReleaseResult["result"] | undefined)[]>;
  close(): void;
};

type Seen = { readonly at: number };

const WITHIN_MS = 15_000;

export class WorkerOfAKind {
  readonly ended: Promise<string>;
  readonly #source: Source;
  /** By lease token; times are performance.now()'s. */
  readonly #arrived = new Map<string, Seen & { readonly job: ReservedJob }>();
  readonly #revoked = new Map<string, Seen & { readonly reason: string }>();
  readonly #released = new Set<string>();
  #mostInHand = 0;

  private constructor(source: Source) {
    this.#source = source;
    this.ended = source.ended;
    source.call.on("data", () => this.#look());
    this.#look();
  }

  /** Resolves when the stream has started. */
  static async open(kind: Kind, address: string, start: StartInit): Promise<WorkerOfAKind> {
    return new WorkerOfAKind(await (kind === "Work" ? openWork(address, start) : openSubscribe(address, start)));
  }

  get jobs(): readonly ReservedJob[] {
    return [...this.#arrived.values()].map(({ job }) => job);
  }

  get tokens(): string[] {
    return [...this.#arrived.keys()];
  }

  /** How many jobs it had at most that it had not yet asked to release. */
  get mostInHand(): number {
    return this.#mostInHand;
  }

  /** Lease token → why and when it was revoked. */
  get revoked(): ReadonlyMap<string, Seen & { readonly reason: string }> {
    return this.#revoked;
  }

  /** When the last job came. */
  get lastJobAt(): number {
    return Math.max(...[...this.#arrived.values()].map(({ at }) => at));
  }

  /** Until so many jobs have come; all that have. */
  async got(count: number): Promise<readonly ReservedJob[]> {
    await until(() => this.#arrived.size >= count, { what: `${count} jobs on a stream`, withinMs: WITHIN_MS });
    return this.jobs;
  }

  /** Until this lease is revoked. */
  async lost({ leaseToken }: Pick<ReservedJob, "leaseToken">): Promise<Seen & { readonly reason: string }> {
    return await until(() => this.#revoked.get(leaseToken), { what: "a revocation", withinMs: WITHIN_MS });
  }

  /** What became of each: its state, or the error's reason. Rejects when no answer comes. */
  async release(
    jobs: readonly Pick<ReservedJob, "leaseToken">[],
    outcome: Release["outcome"] = { case: "completed", value: {} },
  ): Promise<string[]> {
    for (const { leaseToken } of jobs) this.#released.add(leaseToken);
    const results = await this.#source.release(jobs.map(({ leaseToken }) => ({ leaseToken, outcome })));
    return results.map(outcomeOf);
  }

  close(): void {
    this.#source.close();
  }

  #look(): void {
    const at = performance.now();
    for (const job of this.#source.jobs().slice(this.#arrived.size)) this.#arrived.set(job.leaseToken, { job, at });
    for (const { leaseToken, reason } of this.#source.revoked().slice(this.#revoked.size)) {
      this.#revoked.set(leaseToken, { reason: RevokedReason[reason], at });
    }
    this.#mostInHand = Math.max(this.#mostInHand, this.#arrived.size - this.#released.size);
  }
}

/** A state's name, or an error's reason. */
export function outcomeOf(result: ReleaseResult["result"] | undefined): string {
  if (result?.case === "released") return JobState[result.value.state];
  if (result?.case === "error") return statusError(result.value).reason ?? "an error without a reason";
  return "no answer";
}

async function openWork(address: string, start: StartInit): Promise<Source> {
  const stream = await WorkStream.open(address, start);
  let sequence = 0;
  return {
    jobs: () => stream.jobs(),
    revoked: () => stream.revoked(),
    call: stream.call,
    ended: stream.ended.then(({ code }) => code),
    async release(releases) {
      const numbered = releases.map((release) => ({ ...release, sequence: ++sequence }));
      stream.send({ releases: numbered });
      const broken = stream.ended.then(({ code }) => {
        throw new Error(`the stream ended with ${code}`);
      });
      return await Promise.race([stream.answered(numbered.map((release) => release.sequence)), broken]);
    },
    close: () => stream.close(),
  };
}

async function openSubscribe(address: string, start: StartInit): Promise<Source> {
  // Else gRPC itself would repeat, on a new connection, what the broker has surely not seen.
  const client = new RawClient(address, { "grpc.enable_retries": 0 });
  const stream = client.subscribe(start);
  await stream.saw("started");
  return {
    jobs: () => stream.jobs(),
    revoked: () =>
      stream
        .all("revoked")
        .flatMap(({ leaseTokens, reason }) => leaseTokens.map((leaseToken) => ({ leaseToken, reason }))),
    call: stream.call,
    ended: stream.ended.then((error) => error?.code ?? "OK"),
    async release(releases) {
      const { results } = await client.good("releaseMany", { releases: [...releases] });
      return results.map(({ result }) => result);
    },
    close() {
      stream.cancel();
      client.close();
    },
  };
}
