/** grpcurl as a person types it: JSON in, JSON out. */
import { tool } from "../support/tools.ts";
import { type Ended, type Program, runProgram, startProgram } from "./program.ts";

export const grpcurlPath = tool("grpcurl");

export type Json = { readonly [key: string]: unknown };

/** What it prints on success, for commands such as `list` and `describe`. Throws with what it says on failure. */
export async function grpcurl(address: string, ...words: readonly string[]): Promise<string> {
  const ended = await runProgram(grpcurlPath ?? "grpcurl", ["-plaintext", address, ...words]);
  if (ended.code !== 0) throw new Error(`grpcurl ${words.join(" ")} ended with ${ended.code}: ${ended.stderr}`);
  return ended.stdout;
}

/** One call of a method of JobService; its answer. */
export async function call(address: string, method: string, request: Json): Promise<Json> {
  const ended = await attempt(address, method, request);
  if (ended.code !== 0) throw new Error(`${method} ended with ${ended.code}: ${ended.stderr}`);
  return JSON.parse(ended.stdout) as Json;
}

/** As `call`, of a call that may fail. */
export function attempt(address: string, method: string, request: Json): Promise<Ended> {
  return runProgram(grpcurlPath ?? "grpcurl", callWords(address, method, request));
}

/** A stream stays open until it is killed. */
export function open(address: string, method: string, request: Json): Program {
  return startProgram(grpcurlPath ?? "grpcurl", callWords(address, method, request));
}

/** A call whose requests are typed one after the other, each a line of JSON, into stdin; its end is this side's. */
export function converse(address: string, method: string): Program {
  const words = ["-plaintext", "-d", "@", address, `baton.v1.JobService/${method}`];
  return startProgram(grpcurlPath ?? "grpcurl", words, { keepStdin: true });
}

/** The messages of a stream so far. grpcurl writes each as an indented object, whose last line is a lone brace. */
export function messages(program: Pick<Program, "stdout">): Json[] {
  return program
    .stdout()
    .split(/(?<=^\}\n)/m)
    .filter((text) => text.endsWith("}\n"))
    .map((text) => JSON.parse(text) as Json);
}

function callWords(address: string, method: string, request: Json): string[] {
  return ["-plaintext", "-d", JSON.stringify(request), address, `baton.v1.JobService/${method}`];
}
