/** The completion events of a queue, as any program reads them: from a Redis pub/sub channel, as JSON. */
import { Redis } from "ioredis";

export type CompletionEvent = { readonly id: string; readonly state: string } & Readonly<Record<string, unknown>>;

export type CompletionEvents = {
  /** All so far, in their order. */
  readonly seen: readonly CompletionEvent[];
  stop(): void;
};

export async function followEvents(socketPath: string, queue: string): Promise<CompletionEvents> {
  const redis = new Redis(socketPath);
  const seen: CompletionEvent[] = [];
  redis.on("message", (_channel: string, text: string) => seen.push(JSON.parse(text) as CompletionEvent));
  await redis.subscribe(`baton:{${queue}}:events`);
  return { seen, stop: () => redis.disconnect() };
}
