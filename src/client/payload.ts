/** Payloads and results: what a user may pass in, and what comes out. */
import { create } from "@bufbuild/protobuf";
import { type Payload, PayloadSchema } from "../../gen/baton/v1/job_pb.js";

/**
 * A payload or a result: text, bytes, or a value that is sent as JSON, alone or with its media type. A JobPayload is
 * sent on as it came.
 */
export type PayloadInput =
  | string
  | Uint8Array
  | JobPayload
  | { readonly text: string; readonly contentType?: string | undefined }
  | { readonly data: Uint8Array; readonly contentType?: string | undefined }
  /** Its media type is `application/json` unless it says otherwise. */
  | { readonly json: unknown; readonly contentType?: string | undefined };

/** A payload or a result, as it arrived. */
export class JobPayload {
  readonly #payload: Payload | undefined;

  /** @internal */
  constructor(payload: Payload | undefined) {
    this.#payload = payload;
  }

  /** The media type that its sender named; empty when it named none. */
  get contentType(): string {
    return this.#payload?.contentType ?? "";
  }

  /** The bytes, exactly as they were sent; of a text, its UTF-8. */
  bytes(): Uint8Array {
    const content = this.#payload?.content;
    if (content?.case === "text") return new TextEncoder().encode(content.value);
    return content?.case === "data" ? content.value : new Uint8Array();
  }

  /** The text; of bytes, their UTF-8, with U+FFFD in place of what is none. */
  text(): string {
    const content = this.#payload?.content;
    if (content?.case === "data") return new TextDecoder().decode(content.value);
    return content?.case === "text" ? content.value : "";
  }

  /** The value that the text holds as JSON. Throws a SyntaxError when it holds none. */
  json(): unknown {
    return JSON.parse(this.text());
  }

  /** @internal */
  toPayload(): Payload {
    const { content = { case: undefined }, contentType = "" } = this.#payload ?? {};
    return create(PayloadSchema, { content, contentType });
  }
}

/**
 * The message of a payload; `contentType`, where it is given, goes before the one in the input. Throws a TypeError for a
 * value that JSON cannot express.
 */
export function toPayload(input: PayloadInput, contentType = ""): Payload {
  const payload = withoutOverride(input);
  if (contentType !== "") payload.contentType = contentType;
  return payload;
}

function withoutOverride(input: PayloadInput): Payload {
  if (typeof input === "string") return create(PayloadSchema, { content: { case: "text", value: input } });
  if (input instanceof Uint8Array) return create(PayloadSchema, { content: { case: "data", value: input } });
  if (input instanceof JobPayload) return input.toPayload();
  const { contentType = "" } = input;
  if ("text" in input) return create(PayloadSchema, { content: { case: "text", value: input.text }, contentType });
  if ("data" in input) return create(PayloadSchema, { content: { case: "data", value: input.data }, contentType });
  const value: string | undefined = JSON.stringify(input.json);
  if (value === undefined) throw new TypeError("this value has no form in JSON");
  return create(PayloadSchema, {
    content: { case: "text", value },
    contentType: contentType || "application/json",
  });
}
