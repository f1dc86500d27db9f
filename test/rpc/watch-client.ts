/** Watch as any gRPC client sees it: checks nothing, and keeps what came where a test can see it. */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Client, type ClientReadableStream, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import {
  type JobEvent,
  JobService,
  WatchRequestSchema,
  type WatchResponse,
  WatchResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import { until } from "../support/wait.ts";
import { type CallError, statusError } from "./raw-client.ts";

export type WatchRequest = MessageInitShape<typeof WatchRequestSchema>;
type Answer = WatchResponse["event"];
export type AnswerOf<C extends Answer["case"]> = Extract<Answer, { case: C }>["value"];

const ANSWER_WITHIN_MS = 10_000;

export class WatchClient {
  readonly #client: Client;
  readonly #streams: Watched[] = [];

  constructor(address: string) {
    this.#client = new Client(address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });
  }

  open(request: WatchRequest): Watched {
    const call = this.#client.makeServerStreamRequest(
      `/${JobService.typeName}/Watch`,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => fromBinary(WatchResponseSchema, bytes),
      Buffer.from(toBinary(WatchRequestSchema, create(WatchRequestSchema, request))),
      new Metadata(),
      {},
    );
    const stream = new Watched(call);
    this.#streams.push(stream);
    return stream;
  }

  /** Resolves when the stream has started. */
  async started(request: WatchRequest): Promise<Watched> {
    const stream = this.open(request);
    await stream.saw("started");
    return stream;
  }

  /** With all its streams. */
  close(): void {
    for (const stream of this.#streams.splice(0)) stream.cancel();
    this.#client.close();
  }
}

export class Watched {
  readonly answers: Answer[] = [];
  /** Undefined when the broker ended it well. */
  readonly ended: Promise<CallError | undefined>;
  readonly #call: ClientReadableStream<WatchResponse>;

  constructor(call: ClientReadableStream<WatchResponse>) {
    this.#call = call;
    call.on("data", ({ event }: WatchResponse) => this.answers.push(event));
    this.ended = new Promise((resolve) => {
      call.once("error", ({ metadata, details }: ServiceError) => {
        const [bytes] = metadata.get("grpc-status-details-bin");
        const status = Buffer.isBuffer(bytes)
          ? fromBinary(StatusSchema, bytes)
          : create(StatusSchema, { message: details });
        resolve(statusError(status));
      });
      call.once("end", () => resolve(undefined));
    });
  }

  all<C extends Answer["case"]>(kind: C): AnswerOf<C>[] {
    return this.answers.flatMap((answer) => (answer.case === kind ? [answer.value as AnswerOf<C>] : []));
  }

  events(): JobEvent[] {
    return this.all("events").flatMap(({ events }) => events);
  }

  async saw<C extends Answer["case"]>(kind: C, count = 1): Promise<AnswerOf<C>> {
    await until(() => this.all(kind).length >= count, {
      what: `a stream to say "${kind}" ${count} times`,
      withinMs: ANSWER_WITHIN_MS,
    });
    return this.all(kind)[count - 1] as AnswerOf<C>;
  }

  /** Until so many events have come; all that have. */
  async got(count: number): Promise<JobEvent[]> {
    await until(() => this.events().length >= count, {
      what: `a stream to tell ${count} events`,
      withinMs: ANSWER_WITHIN_MS,
    });
    return this.events();
  }

  cancel(): void {
    this.#call.cancel();
  }
}
