/**
 * Reads the Lua scripts and resolves their includes: a line `-- @include name` stands for lua/lib/name.lua, once in a
 * script, before what includes it. Redis knows a script by the SHA-1 of the whole text.
 *
 * Constants, that is, locals in capitals that are whole numbers or elements of KEYS, are written into the places where
 * they are used. A script runs as a whole for each call, and every variable that its functions share is looked for in a
 * list when they are made: that took most of a short call's time. It also keeps a script below Lua's 200 locals.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

export type Script = { readonly name: string; readonly source: string; readonly sha: string };

const LUA_FOLDER = new URL("../../lua/", import.meta.url);
const INCLUDE = /^-- @include (\w+)$/gm;

export const SCRIPT_NAMES = [
  "put",
  "hand_over",
  "reserve",
  "release",
  "extend",
  "report_progress",
  "delete",
  "cancel",
  "get",
  "states",
  "list",
  "retry",
  "watch",
  "sweep",
  "get_queue",
  "update_queue",
  "purge",
  "requeue",
  "put_schedule",
  "get_schedule",
  "list_schedules",
  "pause_schedule",
  "delete_schedule",
  "postpone_schedule",
  "trigger_schedule",
  "tick",
] as const;

export type ScriptName = (typeof SCRIPT_NAMES)[number];

export function loadScripts(folder: URL = LUA_FOLDER): Readonly<Record<ScriptName, Script>> {
  return Object.fromEntries(SCRIPT_NAMES.map((name) => [name, loadScript(name, folder)])) as Record<ScriptName, Script>;
}

export function loadScript(name: string, folder: URL = LUA_FOLDER): Script {
  const text = readFileSync(new URL(`${name}.lua`, folder), "utf8");
  const firstLine = text.slice(0, text.indexOf("\n") + 1);
  if (!firstLine.startsWith("#!lua")) throw new Error(`lua/${name}.lua must start with #!lua`);
  // The shebang must stay the first line; the included files come between it and the script.
  const included = new Map<string, string>();
  include(text, folder, included, [name]);
  const source = firstLine + withConstants([...included.values(), text.slice(firstLine.length)].join("\n"));
  return { name, source, sha: createHash("sha1").update(source).digest("hex") };
}

const CONSTANTS = /^local ([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) = ((?:\d+|KEYS\[\d+\])(?:, (?:\d+|KEYS\[\d+\]))*)$/gm;
/** A string or a comment, in which a word is only a word; or a word, and what stands before it. */
const WORD = /'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|--.*|[.:]?\b[A-Za-z_]\w*/g;

/** Lines stay where they are, so that Redis's errors name the right ones. */
function withConstants(source: string): string {
  const values = new Map<string, string>();
  const rest = source.replaceAll(CONSTANTS, (_, names: string, literals: string) => {
    const list = literals.split(", ");
    for (const [i, name] of names.split(", ").entries()) values.set(name, list[i] ?? "nil");
    return "";
  });
  return rest.replaceAll(WORD, (word) => values.get(word) ?? word);
}

function include(text: string, folder: URL, included: Map<string, string>, path: readonly string[]): void {
  for (const [, name = ""] of text.matchAll(INCLUDE)) {
    if (path.includes(name)) throw new Error(`lua: ${[...path, name].join(" includes ")}`);
    if (included.has(name)) continue;
    const library = readFileSync(new URL(`lib/${name}.lua`, folder), "utf8");
    include(library, folder, included, [...path, name]);
    included.set(name, library);
  }
}
