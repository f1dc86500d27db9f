/** The command line: a table of commands. No command holds a rule of the broker's. */
import { readFile } from "node:fs/promises";
import { nearest } from "../setting-values.ts";
import { awaitCommand } from "./await.ts";
import { cancel } from "./cancel.ts";
import { type Command, type Io, print } from "./command.ts";
import { deleteCommand } from "./delete.ts";
import { failed } from "./failed.ts";
import { failureJson, failureText } from "./failure.ts";
import { get } from "./get.ts";
import { jobs } from "./jobs.ts";
import { UsageError } from "./options.ts";
import { pause, resume } from "./pause.ts";
import { put } from "./put.ts";
import { queues } from "./queues.ts";
import { requeue } from "./requeue.ts";
import { retry } from "./retry.ts";
import { schedule } from "./schedule.ts";
import { serve } from "./serve.ts";
import { watch } from "./watch.ts";
import { work } from "./work.ts";
import { workers } from "./workers.ts";

const help: Command = {
  name: "help",
  usage: "[COMMAND]",
  summary: "Explains a command.",
  help: () => "baton help [COMMAND]\n\nExplains a command, or lists them all.",
  async run([name, ...rest], io) {
    print(io, name === undefined ? overview() : find(name).help(rest));
    return 0;
  },
};

const version: Command = {
  name: "version",
  usage: "",
  summary: "Prints Baton's version.",
  help: () => "baton version\n\nPrints Baton's version.",
  async run(_argv, io) {
    print(io, await readVersion());
    return 0;
  },
};

const COMMANDS: readonly Command[] = [
  serve,
  put,
  work,
  awaitCommand,
  get,
  jobs,
  failed,
  retry,
  cancel,
  deleteCommand,
  watch,
  queues,
  pause,
  resume,
  requeue,
  workers,
  schedule,
  help,
  version,
];

const ALIASES: Readonly<Record<string, string>> = { "--help": "help", "-h": "help", "--version": "version" };

/** Runs one command line. Exit codes: 0 done, 1 failed, 2 wrongly written. */
export async function main(argv: readonly string[], io: Io = process): Promise<number> {
  endQuietlyWithoutReader(io);
  const [name, ...rest] = argv;
  try {
    if (name === undefined) throw new UsageError(`write a command\n\n${overview()}`);
    const command = find(ALIASES[name] ?? name);
    if (!asksForHelp(rest)) return await command.run(rest, io);
    print(io, command.help(rest));
    return 0;
  } catch (error) {
    const isJson = rest.includes("--json");
    io.stderr.write(isJson ? `${failureJson(error)}\n` : `baton: ${failureText(error)}\n`);
    return error instanceof UsageError ? 2 : 1;
  }
}

function overview(): string {
  const rows = COMMANDS.map(({ name, summary }) => ({ line: `baton ${name}`, summary }));
  const width = Math.max(...rows.map(({ line }) => line.length));
  const list = rows.map(({ line, summary }) => `  ${line.padEnd(width)}  ${summary}`).join("\n");
  return `Baton, a job broker.\n\n${list}\n\nbaton COMMAND --help explains a command, with its options and examples.`;
}

function find(name: string): Command {
  const found = COMMANDS.find((command) => command.name === name);
  if (found !== undefined) return found;
  const meant = nearest(
    name,
    COMMANDS.map((command) => command.name),
  );
  const advice = meant === undefined ? "baton --help lists them all" : `did you mean ${meant}?`;
  throw new UsageError(`${name}: there is no such command; ${advice}`);
}

/** What stands after `--` belongs to the command. */
function asksForHelp(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  return (end === -1 ? argv : argv.slice(0, end)).some((argument) => argument === "--help" || argument === "-h");
}

/** From the package's own file, which stands two folders above the sources and three above the built files. */
async function readVersion(): Promise<string> {
  for (const path of ["../../package.json", "../../../package.json"]) {
    try {
      const { version } = JSON.parse(await readFile(new URL(path, import.meta.url), "utf8")) as { version: string };
      return version;
    } catch {
      // The other place.
    }
  }
  throw new Error("the package's file package.json cannot be read");
}

/** `baton get … | head` closes our stdout: that is no failure of ours, and there is nobody left to write to. */
function endQuietlyWithoutReader(io: Io): void {
  if (io.stdout !== process.stdout) return;
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
}
