import { expect } from "vitest";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import type { Fixture } from "./fixture.ts";

/**
 * Runs a call that must fail, and fails itself when the call changed anything in Redis, or when the broker does not
 * serve on. Needs the jobs of putOneInEveryState() in the queue "kept".
 */
export async function changingNothing<T>({ client, dump }: Fixture, call: () => Promise<T>): Promise<T> {
  const before = await dump();
  const answer = await call();
  expect(await dump()).toEqual(before);
  expect((await client.good("put", { queue: "alive" })).created).toBe(true);
  expect((await client.good("get", { queue: "kept", id: "ready" })).job?.state).toBe(JobState.READY);
  return answer;
}
