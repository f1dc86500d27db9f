/** A command that is several: `baton schedule put`, `baton schedule list`. Each of them has a help of its own. */
import { nearest } from "../setting-values.ts";
import type { Command } from "./command.ts";
import { UsageError } from "./options.ts";

export function group(definition: {
  readonly name: string;
  readonly summary: string;
  /** Each named `<group> <word>`. */
  readonly commands: readonly Command[];
  /** What runs without a word. */
  readonly otherwise?: Command;
}): Command {
  const { name, summary, commands, otherwise } = definition;
  const words = commands.map((command) => command.name.slice(name.length + 1));
  const find = (word: string | undefined) => commands[words.indexOf(word ?? "")];
  const usage = otherwise === undefined ? `${words.join("|")} …` : `[${words.join("|")} …]`;

  function help(argv: readonly string[] = []): string {
    const command = find(argv[0]);
    if (command !== undefined) return command.help();
    const list = commands.map((each) => `  baton ${each.name} ${each.usage}\n      ${each.summary}`).join("\n");
    const own = otherwise === undefined ? `baton ${name} ${usage}\n\n${summary}` : otherwise.help();
    const heading = otherwise === undefined ? "What it does" : "What else it does";
    return `${own}\n\n${heading} (--help after one explains it):\n${list}`;
  }

  return {
    name,
    usage,
    summary,
    help,
    run(argv, io) {
      const [word, ...rest] = argv;
      const command = find(word);
      if (command !== undefined) return command.run(rest, io);
      if (otherwise !== undefined && (word === undefined || word.startsWith("-"))) return otherwise.run(argv, io);
      throw new UsageError(`${word === undefined ? "" : `${word}: `}write ${advice(name, words, word)}`);
    },
  };
}

function advice(name: string, words: readonly string[], written: string | undefined): string {
  const meant = written === undefined ? undefined : nearest(written, words);
  if (meant !== undefined) return `one of ${words.join(", ")}; did you mean baton ${name} ${meant}?`;
  return `what to do: baton ${name} ${words.join("|")}; baton ${name} --help explains them`;
}
