/**
 * A limit on each command that is fair to Redis. ioredis's own commandTimeout is a mere timer: where this process stood
 * still for longer, because its machine was paused or moved or had no CPU to give, all that was in flight failed before
 * the answers, which had long come, were read: timers come first. So one that is late lets them be read.
 */
import type { Command, Redis } from "ioredis";

/** A timer that is later than this says that the process stood still. */
const LATE_MS = 50;
/** Then answers have so long to be read. */
const GRACE_MS = 250;

/** What is sent on this connection from now on fails when it is not answered in time. */
export function limitCommands(redis: Redis, timeoutMs: number): void {
  const send = redis.sendCommand.bind(redis);
  redis.sendCommand = (command, stream) => {
    const answer = send(command, stream);
    limit(command, timeoutMs);
    return answer;
  };
}

function limit(command: Command, timeoutMs: number): void {
  const endsAt = performance.now() + timeoutMs;
  const end = () => command.reject(new Error("Command timed out"));
  let timer = setTimeout(() => {
    if (performance.now() < endsAt + LATE_MS) end();
    else timer = setTimeout(end, GRACE_MS);
  }, timeoutMs);
  const clear = () => clearTimeout(timer);
  command.promise.then(clear, clear);
}
