/** What a command is, and what it may touch. */
import { type OptionTable, type OptionValues, optionsHelp, parseOptions } from "./options.ts";

/** The outside world of a command. Tests pass their own. */
export type Io = {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
};

export type Command = {
  readonly name: string;
  /** What follows `baton NAME` on the first line of help. */
  readonly usage: string;
  /** One sentence for the list of commands. */
  readonly summary: string;
  help(): string;
  /** Gives the exit code. Throws UsageError for a wrong command line, anything else for a failure. */
  run(argv: readonly string[], io: Io): Promise<number>;
};

/** A command whose options are a table. */
export function command<T extends OptionTable>(definition: {
  readonly name: string;
  readonly usage: string;
  readonly summary: string;
  readonly options: T;
  /** What stands below the options in help. */
  readonly notes?: string;
  readonly run: (values: OptionValues<T>, args: readonly string[], io: Io) => Promise<number>;
}): Command {
  const { name, usage, summary, options, notes } = definition;
  return {
    name,
    usage,
    summary,
    help() {
      const parts = [`baton ${name} ${usage}`, summary, `Options:\n${optionsHelp(options)}`];
      return (notes === undefined ? parts : [...parts, notes]).join("\n\n");
    },
    run(argv, io) {
      const { values, args } = parseOptions(options, argv, name);
      return definition.run(values, args, io);
    },
  };
}

export function print(io: Io, text: string): void {
  io.stdout.write(`${text}\n`);
}
