/** How much memory a Node process of the benchmark uses. */
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

const LOOK_EVERY_MS = 500;
const LOOKS = 20;
/** Between two looks, when it has come to rest. */
const STILL_BYTES = 512 * 1024;

/** What is resident after it has collected its garbage, and has come to rest. */
export async function residentBytes(pid: number): Promise<number> {
  process.kill(pid, "SIGUSR2");
  let last = Number.POSITIVE_INFINITY;
  for (let look = 0; look < LOOKS; look++) {
    await delay(LOOK_EVERY_MS);
    const bytes = statusBytes(pid);
    if (Math.abs(last - bytes) < STILL_BYTES) return bytes;
    last = bytes;
  }
  throw new Error(`the memory of process ${pid} does not come to rest`);
}

function statusBytes(pid: number): number {
  const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  if (kilobytes === undefined) throw new Error(`process ${pid} does not say how much memory it uses`);
  return Number(kilobytes) * 1_024;
}
