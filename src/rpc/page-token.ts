/**
 * Page tokens: where the next page begins, as opaque text. A token is good for the query that it was given for, at any
 * broker: it begins with a checksum of the query and the position, so that one that was made up, cut short, or is of
 * another query is refused rather than misread. It is no secret and no signature: whoever may ask for the first page may
 * ask for every other.
 */
import { createHash } from "node:crypto";
import type { Checks } from "./checks.ts";

const CHECKSUM_BYTES = 8;
/** Before each part of a position: how long it is. */
const LENGTH_BYTES = 2;
/** Longer than any token of ours: the members of a set are an id, a key, and some digits. */
const MAX_TOKEN_CHARACTERS = 4_096;
const BASE64URL = /^[A-Za-z0-9_-]+$/;

/**
 * `query`: all that a page's successor must have in common with it, such as namespace, method, queue and state.
 * `position`: the parts that say where the next page begins, each at most 64 KiB.
 */
export function encodePageToken(query: readonly string[], position: readonly (string | Uint8Array)[]): string {
  const body = Buffer.concat(
    position.flatMap((part) => {
      const bytes = typeof part === "string" ? Buffer.from(part) : part;
      const length = Buffer.alloc(LENGTH_BYTES);
      length.writeUInt16BE(bytes.length);
      return [length, bytes];
    }),
  );
  return Buffer.concat([checksum(query, body), body]).toString("base64url");
}

/** The position that the token stands for; undefined for what is no token of this query. */
export function decodePageToken(query: readonly string[], token: string): Buffer[] | undefined {
  if (token.length > MAX_TOKEN_CHARACTERS || !BASE64URL.test(token)) return undefined;
  const bytes = Buffer.from(token, "base64url");
  const body = bytes.subarray(CHECKSUM_BYTES);
  // Base64 has several texts for some bytes: only ours is a token.
  if (bytes.toString("base64url") !== token || !bytes.subarray(0, CHECKSUM_BYTES).equals(checksum(query, body))) {
    return undefined;
  }
  const position: Buffer[] = [];
  for (let at = 0; at < body.length; ) {
    const end = at + LENGTH_BYTES + body.readUInt16BE(at);
    position.push(body.subarray(at + LENGTH_BYTES, end));
    at = end;
  }
  return position;
}

/** undefined for the first page: an empty token, or one that was refused. */
export function checkPageToken(checks: Checks, query: readonly string[], token: string): Buffer[] | undefined {
  if (token === "") return undefined;
  const position = decodePageToken(query, token);
  if (!position) checks.refuse("page_token", "must be empty, or the next_page_token of the same query's page before");
  return position;
}

function checksum(query: readonly string[], body: Buffer): Buffer {
  return createHash("sha256")
    .update(JSON.stringify(query))
    .update("\0")
    .update(body)
    .digest()
    .subarray(0, CHECKSUM_BYTES);
}
