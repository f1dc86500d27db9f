/** What the TypeScript client does not offer, and these tests need: health, and a stream that nobody reads. */
import { type ClientHttp2Session, connect } from "node:http2";
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { SubscribeRequestSchema, WorkRequestSchema } from "../../gen/baton/v1/job_service_pb.js";
import {
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus,
  HealthCheckResponseSchema,
} from "../../gen/grpc/health/v1/health_pb.js";

type HealthStatus = keyof typeof HealthCheckResponse_ServingStatus;

const HEALTH_WITHIN_MS = 2_000;

export class RawClient {
  readonly #client: Client;

  constructor(address: string) {
    this.#client = new Client(address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });
  }

  health(service = ""): Promise<HealthStatus> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        "/grpc.health.v1.Health/Check",
        serializer(HealthCheckRequestSchema),
        deserializer(HealthCheckResponseSchema),
        create(HealthCheckRequestSchema, { service }),
        new Metadata(),
        { deadline: Date.now() + HEALTH_WITHIN_MS },
        (error, answer) => {
          if (error !== null || answer === undefined) reject(error);
          else resolve(HealthCheckResponse_ServingStatus[answer.status] as HealthStatus);
        },
      );
    });
  }

  close(): void {
    this.#client.close();
  }
}

/** Subscribes, and takes nothing of what comes. Destroy it to end the stream. */
export function subscribeAndNeverRead(
  address: string,
  request: MessageInitShape<typeof SubscribeRequestSchema>,
): ClientHttp2Session {
  const { session, stream, message } = neverRead(address, "Subscribe", SubscribeRequestSchema, request);
  stream.end(message);
  return session;
}

/** Opens a Work stream, and takes nothing of what comes. Destroy it to end the stream. */
export function workAndNeverRead(
  address: string,
  start: MessageInitShape<typeof SubscribeRequestSchema>,
): ClientHttp2Session {
  const request = { start: create(SubscribeRequestSchema, start) };
  const { session, stream, message } = neverRead(address, "Work", WorkRequestSchema, request);
  stream.write(message);
  return session;
}

/**
 * A call whose answers fill the connection's window, so that the broker has to wait. On bare HTTP/2, because grpc-js reads
 * ahead for a reader who does not.
 */
function neverRead<D extends DescMessage>(address: string, method: string, schema: D, request: MessageInitShape<D>) {
  const session = connect(`http://${address}`);
  session.on("error", () => {});
  const stream = session.request(
    {
      ":method": "POST",
      ":path": `/baton.v1.JobService/${method}`,
      "content-type": "application/grpc",
      te: "trailers",
    },
    { endStream: false },
  );
  stream.on("error", () => {});
  const message = toBinary(schema, create(schema, request));
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return { session, stream, message: Buffer.concat([prefix, message]) };
}

const serializer =
  <D extends DescMessage>(schema: D) =>
  (message: MessageShape<D>) =>
    Buffer.from(toBinary(schema, message));

const deserializer =
  <D extends DescMessage>(schema: D) =>
  (bytes: Buffer) =>
    fromBinary(schema, bytes);
