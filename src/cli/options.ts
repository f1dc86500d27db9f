/**
 * A command's options: a table from which the command line is read, checked and explained. Values are written as
 * settings are: the same kinds, the same sentences when they are wrong.
 */
import { parseArgs } from "node:util";
import { type Kind, nearest } from "../setting-values.ts";

/** The command line is wrong: exit code 2, with a sentence that says what to write. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

type ValueOption<T> = { readonly type: "value"; readonly kind: Kind<T>; readonly help: string };
type ListOption<T> = { readonly type: "list"; readonly kind: Kind<T>; readonly help: string };
type FlagOption = { readonly type: "flag"; readonly help: string };

export type OptionTable = Readonly<Record<string, ValueOption<unknown> | ListOption<unknown> | FlagOption>>;

/** What was written: of a value undefined when it was not, of a list all of them, of a flag whether it was. */
export type OptionValues<T extends OptionTable> = {
  readonly [K in keyof T]: T[K] extends FlagOption
    ? boolean
    : T[K] extends ListOption<infer V>
      ? readonly V[]
      : T[K] extends ValueOption<infer V>
        ? V | undefined
        : never;
};

export function value<T>(kind: Kind<T>, help: string): ValueOption<T> {
  return { type: "value", kind, help };
}

export function list<T>(kind: Kind<T>, help: string): ListOption<T> {
  return { type: "list", kind, help };
}

export function flag(help: string): FlagOption {
  return { type: "flag", help };
}

/** Reads a command line. A value that is written twice counts the last time. */
export function parseOptions<T extends OptionTable>(
  table: T,
  argv: readonly string[],
  command: string,
): { readonly values: OptionValues<T>; readonly args: string[] } {
  const keys = new Map(Object.keys(table).map((key) => [nameOf(key), key]));
  const options = Object.fromEntries(
    [...keys].map(([name, key]) => [name, { type: table[key]?.type === "flag" ? "boolean" : "string" } as const]),
  );
  const { tokens } = parseArgs({ args: [...argv], options, strict: false, allowPositionals: true, tokens: true });
  const values: Record<string, unknown> = {};
  for (const [key, option] of Object.entries(table)) {
    values[key] = option.type === "flag" ? false : option.type === "list" ? [] : undefined;
  }
  const args: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") args.push(token.value);
    if (token.kind !== "option") continue;
    const key = keys.get(token.name);
    const option = key === undefined ? undefined : table[key];
    if (key === undefined || option === undefined) throw unknownOption(token.rawName, keys.keys(), command);
    const read = readOption(option, token.rawName, token.value);
    if (option.type === "list") (values[key] as unknown[]).push(read);
    else values[key] = read;
  }
  // The table gave every key its empty value, and each value was read by the kind of its option.
  return { values: values as OptionValues<T>, args };
}

export function optionsHelp(table: OptionTable): string {
  const rows = Object.entries(table).map(([key, option]) => ({
    flag: option.type === "flag" ? `--${nameOf(key)}` : `--${nameOf(key)} ${option.kind.placeholder}`,
    help: option.help,
  }));
  const width = Math.max(...rows.map((row) => row.flag.length));
  return rows.map((row) => `  ${row.flag.padEnd(width)}  ${row.help}`).join("\n");
}

function readOption(option: OptionTable[string], name: string, written: string | undefined): unknown {
  if (option.type === "flag") {
    if (written !== undefined) throw new UsageError(`${name} takes no value`);
    return true;
  }
  if (written === undefined) throw new UsageError(`${name}: write ${option.kind.ask}`);
  const read = option.kind.parse(written);
  if (read === undefined) throw new UsageError(`${name} ${written}: write ${option.kind.ask}`);
  return read;
}

function unknownOption(written: string, names: Iterable<string>, command: string): UsageError {
  const meant = nearest(
    written,
    [...names].map((name) => `--${name}`),
  );
  const advice = meant === undefined ? `baton ${command} --help lists them all` : `did you mean ${meant}?`;
  return new UsageError(`${written}: baton ${command} has no such option; ${advice}`);
}

function nameOf(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
