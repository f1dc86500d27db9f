/** beanstalkd with its binlog: one process, one thread, jobs in memory, and a log from which it restores them. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { freeAddress } from "../../test/support/ports.ts";
import { findProgram, outputOf, startProgram } from "../support/program.ts";
import type { System } from "./system.ts";
import { typescriptClient } from "./typescript-client.ts";

/** -f: fsync at most once in so many milliseconds; 0 is "always", before the reply. */
const FSYNC = { everysec: "1000", safest: "0" } as const;

export const beanstalkd: System = {
  name: "beanstalkd",
  kind: "peer",
  operations: new Set(["put", "putMany", "lifeCycle", "drain", "due", "latency", "clear"]),
  async start({ durability, folder }) {
    const command = findProgram("beanstalkd");
    const address = await freeAddress();
    const { hostname, port } = new URL(`tcp://${address}`);
    const binlog = join(folder, "binlog");
    await mkdir(binlog);
    const program = await startProgram(command, ["-l", hostname, "-p", port, "-b", binlog, "-f", FSYNC[durability]], {
      folder,
      readyWhen: Number(port),
    });
    return {
      version: await outputOf(command, ["-v"]),
      durability: `binlog, -f ${FSYNC[durability]}`,
      address,
      pids: { broker: program.pid },
      lastWords: program.lastWords,
      stop: program.stop,
    };
  },
  client: typescriptClient("beanstalkd"),
};
