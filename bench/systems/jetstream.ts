/**
 * NATS JetStream: one nats-server with its store on disk. It takes part twice: as Debian has it, and as it is today, which
 * writes batches four times as fast.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freeAddress } from "../../test/support/ports.ts";
import { BUILT, findProgram, outputOf, startProgram } from "../support/program.ts";
import type { Durability, System } from "./system.ts";
import { typescriptClient } from "./typescript-client.ts";

const SYSTEM_FOLDERS = ["/usr/sbin", "/usr/bin"];

export const jetstream = systemOf("jetstream", SYSTEM_FOLDERS);
export const jetstreamNew = systemOf("jetstream-new", [BUILT]);

function systemOf(name: string, folders: readonly string[]): System {
  return {
    name,
    kind: "peer",
    operations: new Set(["put", "putMany", "lifeCycle", "drain", "latency", "clear"]),
    async start({ durability, folder }) {
      const command = findProgram("nats-server", folders);
      const version = await outputOf(command, ["--version"]);
      const address = await freeAddress();
      const sync = syncInterval(version, durability);
      const config = join(folder, "nats.conf");
      await writeFile(config, configuration(address, folder, sync));
      const program = await startProgram(command, ["-c", config], { folder, readyWhen: /Server is ready/ });
      return {
        version,
        durability:
          sync === undefined ? "fsync every 2 minutes, which this version cannot change" : `sync_interval ${sync}`,
        address,
        pids: { broker: program.pid },
        lastWords: program.lastWords,
        stop: program.stop,
      };
    },
    client: typescriptClient("jetstream"),
  };
}

/** Versions before 2.10 have no such setting. */
function syncInterval(version: string, durability: Durability): string | undefined {
  const [, major = 0, minor = 0] = /v(\d+)\.(\d+)/.exec(version)?.map(Number) ?? [];
  if (major < 2 || (major === 2 && minor < 10)) return undefined;
  return durability === "safest" ? "always" : "1s";
}

function configuration(address: string, folder: string, sync: string | undefined): string {
  return [
    `listen: "${address}"`,
    "jetstream {",
    `  store_dir: "${join(folder, "store")}"`,
    ...(sync === undefined ? [] : [`  sync_interval: ${sync}`]),
    "}",
    "",
  ].join("\n");
}
