/** A Work call as any gRPC client makes it: sends what it is told, even what is wrong, and lets all answers pile up. */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Client, type ClientDuplexStream, credentials, type ServiceError, status as StatusCode } from "@grpc/grpc-js";
import type { ReservedJob } from "../../gen/baton/v1/job_pb.js";
import {
  JobService,
  type ReleaseResult,
  type SubscribeRequestSchema,
  WorkRequestSchema,
  type WorkResponse,
  WorkResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import { until } from "./wait.ts";

export type WorkRequestInit = MessageInitShape<typeof WorkRequestSchema>;

export type WorkEnd = { readonly code: string; readonly message: string; readonly error: ServiceError | undefined };

const WITHIN_MS = 10_000;

export class WorkStream {
  readonly responses: WorkResponse[] = [];
  /** Code OK when the broker ended it well. */
  readonly ended: Promise<WorkEnd>;
  readonly call: ClientDuplexStream<Buffer, Buffer>;
  readonly #client: Client | undefined;
  #sequence = 0;

  /** `to`: an address, for a connection of its own, or a client to share one. */
  constructor(to: string | Client) {
    const options = { "grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1 };
    const client = typeof to === "string" ? new Client(to, credentials.createInsecure(), options) : to;
    this.#client = typeof to === "string" ? client : undefined;
    const asItIs = (bytes: Buffer) => bytes;
    this.call = client.makeBidiStreamRequest(`/${JobService.typeName}/Work`, asItIs, asItIs);
    this.call.on("data", (bytes: Buffer) => this.responses.push(fromBinary(WorkResponseSchema, bytes)));
    this.ended = new Promise((resolve) => {
      this.call.once("error", (error: ServiceError) =>
        resolve({ code: StatusCode[error.code] ?? "?", message: error.details, error }),
      );
      this.call.once("end", () => resolve({ code: "OK", message: "", error: undefined }));
    });
  }

  /** Opens a stream, and resolves when it has started. */
  static async open(
    to: string | Client,
    start: MessageInitShape<typeof SubscribeRequestSchema>,
    more: Omit<WorkRequestInit, "start"> = {},
  ): Promise<WorkStream> {
    const stream = new WorkStream(to);
    stream.send({ ...more, start } as WorkRequestInit);
    await stream.saw((response) => response.started, "started");
    return stream;
  }

  /** False when the connection takes no more for now. */
  send(request: WorkRequestInit | Uint8Array): boolean {
    const bytes =
      request instanceof Uint8Array ? request : toBinary(WorkRequestSchema, create(WorkRequestSchema, request));
    return this.call.write(Buffer.from(bytes));
  }

  /** Releases jobs as completed; the sequence numbers, in their order. */
  complete(...jobs: readonly Pick<ReservedJob, "leaseToken">[]): number[] {
    const releases = jobs.map(({ leaseToken }) => ({
      leaseToken,
      sequence: ++this.#sequence,
      outcome: { case: "completed", value: {} } as const,
    }));
    this.send({ releases });
    return releases.map(({ sequence }) => sequence);
  }

  jobs(): ReservedJob[] {
    return this.responses.flatMap(({ jobs }) => jobs);
  }

  /** Every lease that was revoked, with the reason's number. */
  revoked(): { readonly leaseToken: string; readonly reason: number }[] {
    return this.responses.flatMap(({ revoked }) =>
      revoked.flatMap(({ leaseTokens, reason }) => leaseTokens.map((leaseToken) => ({ leaseToken, reason }))),
    );
  }

  /** The answers to releases, by sequence number. */
  released(): Map<number, ReleaseResult["result"]> {
    const answers = new Map<number, ReleaseResult["result"]>();
    for (const response of this.responses) {
      for (const { sequences, result } of response.released) {
        for (const sequence of sequences) if (result) answers.set(sequence, result.result);
      }
    }
    return answers;
  }

  /** Until some answer has what `find` looks for, which is returned. */
  async saw<T>(find: (response: WorkResponse) => T | undefined | false, what: string): Promise<T> {
    return await until(
      () => {
        for (const response of this.responses) {
          const found = find(response);
          if (found !== undefined && found !== false) return found;
        }
        return undefined;
      },
      { what: `a Work stream to say "${what}"`, withinMs: WITHIN_MS },
    );
  }

  /** Until so many jobs have come; all that have. */
  async got(count: number): Promise<ReservedJob[]> {
    await until(() => this.jobs().length >= count, { what: `${count} jobs on a Work stream`, withinMs: WITHIN_MS });
    return this.jobs();
  }

  /** Until all these releases are answered; their answers, in that order. */
  async answered(sequences: readonly number[]): Promise<ReleaseResult["result"][]> {
    await until(
      () => {
        const answers = this.released();
        return sequences.every((sequence) => answers.has(sequence));
      },
      { what: `answers to ${sequences.length} releases`, withinMs: WITHIN_MS },
    );
    const answers = this.released();
    return sequences.map((sequence) => answers.get(sequence) as ReleaseResult["result"]);
  }

  /** Closes this side. */
  finish(): void {
    this.call.end();
  }

  /** Cancels the call, and closes the connection if it is this stream's own. */
  close(): void {
    this.call.cancel();
    this.#client?.close();
  }
}
