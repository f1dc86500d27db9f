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
  /** `argv`: what followed the command's name, from which a group finds the command that is meant. */
  help(argv?: readonly string[]): string;
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
  /** Command lines to copy, each with what it does where that is not plain. */
  readonly examples?: readonly string[];
  readonly run: (values: OptionValues<T>, args: readonly string[], io: Io) => Promise<number>;
}): Command {
  const { name, usage, summary, options, notes, examples } = definition;
  return {
    name,
    usage,
    summary,
    help() {
      const parts = [`baton ${name} ${usage}`, summary, `Options:\n${optionsHelp(options)}`];
      if (notes !== undefined) parts.push(notes);
      if (examples !== undefined) parts.push(`Examples:\n${examples.map((line) => `  ${line}`).join("\n")}`);
      return parts.join("\n\n");
    },
    run(argv, io) {
      const { values, args } = parseOptions(options, argv, name);
      return definition.run(values, args, io);
    },
  };
}

/** What people are told beside the answer, so that the answer alone goes down a pipe. */
export function note(io: Io, text: string): void {
  io.stderr.write(`${text}\n`);
}

export function print(io: Io, text: string): void {
  io.stdout.write(`${text}\n`);
}
