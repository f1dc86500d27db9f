/** Another service as any gRPC client sees it, beside a RawClient's JobService and on the same connection. */
import {
  create,
  type DescMethodUnary,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { CallError, OpenCall, RawClient } from "./raw-client.ts";

export type MethodOf<S extends DescService> = {
  [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary ? K : never;
}[keyof S["method"]] &
  string;
type DescOf<S extends DescService, K extends MethodOf<S>> = S["method"][K] & DescMethodUnary;
export type RequestOf<S extends DescService, K extends MethodOf<S>> = MessageInitShape<DescOf<S, K>["input"]>;
export type ResponseOf<S extends DescService, K extends MethodOf<S>> = MessageShape<DescOf<S, K>["output"]>;

export class ServiceClient<S extends DescService> {
  readonly #client: RawClient;
  readonly #service: S;

  constructor(client: RawClient, service: S) {
    this.#client = client;
    this.#service = service;
  }

  start<K extends MethodOf<S>>(method: K, request: RequestOf<S, K>): OpenCall<ResponseOf<S, K>> {
    const { name, input, output } = this.#service.method[method] as DescMethodUnary;
    const bytes = toBinary(input, create(input, request as MessageInitShape<typeof input>));
    const { answer, cancel } = this.#client.startPath(`/${this.#service.typeName}/${name}`, bytes);
    const decoded = answer.then((it) =>
      "error" in it ? it : { response: fromBinary(output, it.response) as ResponseOf<S, K> },
    );
    return { answer: decoded, cancel };
  }

  /** For a call that should end well. */
  async good<K extends MethodOf<S>>(method: K, request: RequestOf<S, K>): Promise<ResponseOf<S, K>> {
    const answer = await this.start(method, request).answer;
    if ("response" in answer) return answer.response;
    throw new Error(`${method} failed: ${JSON.stringify(answer.error)}`);
  }

  /** For a call that should fail. */
  async bad<K extends MethodOf<S>>(method: K, request: RequestOf<S, K>): Promise<CallError> {
    const answer = await this.start(method, request).answer;
    if ("error" in answer) return answer.error;
    throw new Error(`${method} should have failed`);
  }
}
