/**
 * The client that is measured with: grpc-js and the generated code, and nothing else. That is what a user writes who
 * wants throughput, and it leaves most of the machine to the broker.
 */
import {
  type DescMessage,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Client, type ClientDuplexStream, type ClientReadableStream, credentials, Metadata } from "@grpc/grpc-js";

/** Far more than any call of a benchmark takes. */
const DEADLINE_MS = 30_000;

export class LeanClient {
  readonly #client: Client;

  /** On a connection of its own. */
  constructor(address: string) {
    const options = { "grpc.enable_channelz": 0, "grpc.use_local_subchannel_pool": 1 };
    this.#client = new Client(address, credentials.createInsecure(), options);
  }

  /** A function that calls this method. */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
  ): (request: MessageShape<I>) => Promise<MessageShape<O>> {
    const path = pathOf(method);
    const serialize = (message: MessageShape<I>) => encode(method.input, message);
    const deserialize = (bytes: Buffer) => fromBinary(method.output, bytes);
    return (request) =>
      new Promise((resolve, reject) => {
        const options = { deadline: Date.now() + DEADLINE_MS };
        this.#client.makeUnaryRequest(
          path,
          serialize,
          deserialize,
          request,
          new Metadata(),
          options,
          (error, response) => {
            if (response === undefined) reject(error);
            else resolve(response);
          },
        );
      });
  }

  /** Open until it is cancelled, or the client is closed. */
  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
  ): ClientReadableStream<MessageShape<O>> {
    const serialize = (message: MessageShape<I>) => encode(method.input, message);
    const deserialize = (bytes: Buffer) => fromBinary(method.output, bytes);
    return this.#client.makeServerStreamRequest(pathOf(method), serialize, deserialize, request);
  }

  /** Likewise. */
  bidi<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
  ): ClientDuplexStream<MessageShape<I>, MessageShape<O>> {
    const serialize = (message: MessageShape<I>) => encode(method.input, message);
    const deserialize = (bytes: Buffer) => fromBinary(method.output, bytes);
    return this.#client.makeBidiStreamRequest(pathOf(method), serialize, deserialize);
  }

  close(): void {
    this.#client.close();
  }
}

export function pathOf(method: { readonly name: string; readonly parent: { readonly typeName: string } }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** grpc-js wants a Buffer; this one is a view of protobuf-es's own bytes. */
export function encode<D extends DescMessage>(schema: D, message: MessageShape<D>): Buffer {
  const bytes = toBinary(schema, message);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
