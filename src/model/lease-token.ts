/**
 * The lease token: opaque to clients, but made so that an operator can read it: `namespace/queue/fence/id`, with the
 * fence in base 36. It names its job, because Release is given nothing else; it is void as soon as its fence is no
 * longer that of the job; the fence 0 stands for a job that was pulled. Queue and namespace hold no slash; the id, which may, stands last.
 */
import type { Lease } from "./job.ts";

/** An id has at most 255 bytes, and so no more characters: what is longer was never one, and must not travel any further. */
const SHAPE = /^([^/]+)\/([^/]+)\/([0-9a-z]{1,11})\/(.{1,255})$/s;

export function encodeLeaseToken(namespace: string, { queue, id, fence }: Lease): string {
  return `${namespace}/${queue}/${fence.toString(36)}/${id}`;
}

/** undefined for what is no token of this namespace. */
export function decodeLeaseToken(namespace: string, token: string): Lease | undefined {
  const [, ownNamespace, queue, fence, id] = SHAPE.exec(token) ?? [];
  if (ownNamespace !== namespace || queue === undefined || fence === undefined || id === undefined) return undefined;
  const number = Number.parseInt(fence, 36);
  return Number.isSafeInteger(number) && number >= 0 ? { queue, id, fence: number } : undefined;
}
