/** CPU time of processes, as Linux counts it: user and system, with that of children that have ended. */
import { readFileSync } from "node:fs";

/** The kernel counts in ticks of 10 ms (USER_HZ is 100 on every architecture that Node runs on). */
const MICROSECONDS_PER_TICK = 10_000;

/** Name → process; what there is not is left out, or undefined. */
export type Pids = Readonly<Record<string, number | undefined>>;

export type CpuMeter<P extends Pids> = {
  /** What each process has used since the meter was made, per item, in µs. */
  perItem(items: number): { readonly [Name in keyof P]: P[Name] };
};

export function meterCpu<P extends Pids>(pids: P): CpuMeter<P> {
  const used = () =>
    Object.entries(pids).flatMap(([name, pid]) => (pid === undefined ? [] : [[name, cpuMicroseconds(pid)] as const]));
  const before = new Map(used());
  return {
    perItem(items) {
      const each = used().map(([name, now]) => [name, (now - (before.get(name) ?? 0)) / items]);
      return Object.fromEntries(each) as { readonly [Name in keyof P]: P[Name] };
    },
  };
}

function cpuMicroseconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The second field is the command's name in brackets, and may hold blanks. utime to cstime are the fields 14 to 17.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return ticks * MICROSECONDS_PER_TICK;
}
