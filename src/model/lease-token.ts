/**
 * The lease token: opaque to clients, but made so that an operator can read it: `namespace/queue/fence/id`, with the
 * fence in base 36. It names its job, because Release is given nothing else; it is void as soon as its fence is no
 * longer that of the job; the fence 0 stands for a job that was pulled. Queue and namespace hold no slash; the id, which may, stands last.
 */
import type { Lease } from "./job.ts";

/**
 * An id has at most so many bytes: what is longer was never one, and must not travel any further. (To the scripts its
 * length goes as one byte: a longer one would have spoilt the releases that go to Redis with it.)
 */
const LONGEST_ID = 255;
const LONGEST_FENCE = 11;
const SLASH = "/";
/** The last two digits of a fence, with the slash behind them. */
const ENDS = Array.from({ length: 36 * 36 }, (_, i) => `${i.toString(36).padStart(2, "0")}/`);

export function encodeLeaseToken(namespace: string, { queue, id, fence }: Lease): string {
  return `${namespace}/${queue}/${fence.toString(36)}/${id}`;
}

/**
 * The same for many leases, in two parts, behind which the id stands. Those of one queue that were given one after the
 * other have all but the end of their fence in common, and so the first part; to write a fence anew took 0.2 µs.
 */
export class LeaseTokens {
  readonly #namespace: string;
  #queue = "";
  #high = -1;
  first = "";
  second = "";

  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  encode({ queue, fence }: Lease): void {
    const high = Math.floor(fence / ENDS.length);
    if (high !== this.#high || queue !== this.#queue) {
      this.#high = high;
      this.#queue = queue;
      this.first = `${this.#namespace}/${queue}/${high === 0 ? "" : high.toString(36)}`;
    }
    this.second = high === 0 ? `${fence.toString(36)}/` : (ENDS[fence - high * ENDS.length] as string);
  }
}

/** undefined for what is no token of this namespace. */
export function decodeLeaseToken(namespace: string, token: string): Lease | undefined {
  const queueFrom = namespace.length + 1;
  if (!token.startsWith(namespace) || token[namespace.length] !== SLASH) return undefined;
  const queueTo = token.indexOf(SLASH, queueFrom);
  const fenceTo = queueTo < 0 ? -1 : token.indexOf(SLASH, queueTo + 1);
  const idLength = token.length - fenceTo - 1;
  if (fenceTo < 0 || queueTo === queueFrom || idLength === 0 || idLength > LONGEST_ID) return undefined;
  const fence = fenceOf(token, queueTo + 1, fenceTo);
  if (fence === undefined) return undefined;
  const id = token.slice(fenceTo + 1);
  return Buffer.byteLength(id) > LONGEST_ID ? undefined : { queue: token.slice(queueFrom, queueTo), id, fence };
}

function fenceOf(token: string, from: number, to: number): number | undefined {
  if (to === from || to - from > LONGEST_FENCE) return undefined;
  let fence = 0;
  for (let i = from; i < to; i++) {
    const digit = digitOf(token.charCodeAt(i));
    if (digit < 0) return undefined;
    fence = fence * 36 + digit;
  }
  return Number.isSafeInteger(fence) ? fence : undefined;
}

/** 0 to 9, then a to z; negative for anything else. */
function digitOf(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  return code >= 0x61 && code <= 0x7a ? code - 0x61 + 10 : -1;
}
