/** CPU time of processes, as Linux counts it: user and system, with that of children that have ended. */
import { readFileSync } from "node:fs";

/** The kernel counts in ticks of 10 ms (USER_HZ is 100 on every architecture that Node runs on). */
const MICROSECONDS_PER_TICK = 10_000;

export type CpuMeter<Name extends string> = {
  /** What each process has used since the meter was made, per item, in µs. */
  perItem(items: number): Record<Name, number>;
};

export function meterCpu<Name extends string>(pids: Readonly<Record<Name, number>>): CpuMeter<Name> {
  const names = Object.keys(pids) as Name[];
  const before = new Map(names.map((name) => [name, cpuMicroseconds(pids[name])]));
  return {
    perItem(items) {
      const used = names.map((name) => [name, (cpuMicroseconds(pids[name]) - (before.get(name) ?? 0)) / items]);
      return Object.fromEntries(used) as Record<Name, number>;
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
