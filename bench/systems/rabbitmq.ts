/**
 * RabbitMQ: a node of its own, without plugins, and the epmd that it registers with, both on loopback alone.
 *
 * Its queues are quorum queues (of this one node), whatever is asked for: they sync before they confirm, many at a time,
 * and are faster than classic ones, which write now and sync a little later. Life cycles a second with batches of 100:
 * 35,000 with quorum queues, 26,000 with classic ones (of their version 2, the faster one).
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freeAddress } from "../../test/support/ports.ts";
import { findProgram, type Program, startProgram } from "../support/program.ts";
import type { System } from "./system.ts";
import { typescriptClient } from "./typescript-client.ts";

/** Debian's wrapper in /usr/sbin wants to be root, to become the user rabbitmq; what it wraps is here. */
const UNWRAPPED = "/usr/lib/rabbitmq/bin";
const START_WITHIN_MS = 60_000;

export const rabbitmq: System = {
  name: "rabbitmq",
  kind: "peer",
  operations: new Set(["put", "putMany", "lifeCycle", "drain", "latency", "clear"]),
  async start({ folder }) {
    const command = findProgram("rabbitmq-server", [UNWRAPPED]);
    const address = await freeAddress();
    const epmdPort = portOf(await freeAddress());
    const epmd = await startProgram(
      findProgram("epmd"),
      ["-port", String(epmdPort), "-address", "127.0.0.1", "-relaxed_command_check"],
      { folder, readyWhen: epmdPort },
    );
    try {
      const env = await environment(folder, { address, epmdPort, distributionPort: portOf(await freeAddress()) });
      let version = "RabbitMQ";
      const node = await startProgram(command, ["-noinput"], {
        folder,
        env,
        readyWhen: /Server startup complete/,
        startWithinMs: START_WITHIN_MS,
        onLine: (line) => {
          version = /Starting (RabbitMQ \S+)/.exec(line)?.[1] ?? version;
        },
      });
      return {
        version,
        durability: "quorum queues, publisher confirms",
        address,
        pids: { broker: node.pid },
        lastWords: node.lastWords,
        stop: () => stopBoth(node, epmd),
      };
    } catch (error) {
      await epmd.stop();
      throw error;
    }
  },
  client: typescriptClient("rabbitmq"),
};

type Ports = { readonly address: string; readonly epmdPort: number; readonly distributionPort: number };

/** Writes its configuration, and names everything that it would otherwise look for or leave elsewhere. */
async function environment(folder: string, { address, epmdPort, distributionPort }: Ports) {
  const config = join(folder, "rabbitmq.conf");
  const plugins = join(folder, "enabled_plugins");
  await writeFile(config, [`listeners.tcp.1 = ${address}`, "log.console = true", "log.file = false", ""].join("\n"));
  await writeFile(plugins, "[].\n");
  return {
    // For the cookie, and so that no settings of the user's count.
    HOME: folder,
    RABBITMQ_CONF_ENV_FILE: join(folder, "no-such-file"),
    RABBITMQ_CONFIG_FILE: config,
    RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
    RABBITMQ_MNESIA_BASE: join(folder, "mnesia"),
    RABBITMQ_LOG_BASE: join(folder, "log"),
    RABBITMQ_PID_FILE: join(folder, "rabbitmq.pid"),
    RABBITMQ_NODENAME: "bench@localhost",
    RABBITMQ_NODE_PORT: String(portOf(address)),
    RABBITMQ_DIST_PORT: String(distributionPort),
    ERL_EPMD_PORT: String(epmdPort),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: "-kernel inet_dist_use_interface {127,0,0,1}",
    // Makes the script become the Erlang machine, instead of waiting beside it.
    RABBITMQ_ALLOW_INPUT: "1",
  };
}

function portOf(address: string): number {
  return Number(new URL(`tcp://${address}`).port);
}

/** The node tells epmd that it goes. */
async function stopBoth(node: Program, epmd: Program): Promise<void> {
  await node.stop();
  await epmd.stop();
}
