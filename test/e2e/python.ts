/** The Python worker of examples/, each a process, on stubs that README's command generates from proto/. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { tool } from "../support/tools.ts";
import { type Program, runProgram, startProgram } from "./program.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const EXAMPLES = join(ROOT, "examples/python");

/** Empty: there is none. */
export const python = tool("python") ?? "";

export class Python implements AsyncDisposable {
  readonly #stubs: string;
  readonly #programs: Program[] = [];

  private constructor(stubs: string) {
    this.#stubs = stubs;
  }

  static async withStubs(): Promise<Python> {
    const stubs = await mkdtemp(join(tmpdir(), "baton-python-"));
    const readme = await readFile(join(ROOT, "README.md"), "utf8");
    const line = /^python -m grpc_tools\.protoc .*$/m.exec(readme)?.[0];
    if (line === undefined) throw new Error("README does not say how to generate Python's stubs");
    const { code, stderr } = await runProgram("sh", ["-c", line.replaceAll("_out=examples/python", `_out=${stubs}`)], {
      cwd: ROOT,
      env: { PATH: `${dirname(python)}${delimiter}${process.env.PATH}` },
    });
    if (code !== 0) throw new Error(`README's line to generate Python's stubs fails: ${stderr}`);
    return new Python(stubs);
  }

  /** The example as it is; resolves when it has a stream. */
  async worker(queue: string, address: string, ...options: readonly string[]): Promise<Program> {
    const worker = this.run([join(EXAMPLES, "worker.py"), queue, "--addr", address, ...options]);
    await worker.saw("connected to ");
    return worker;
  }

  /** The example with a handler of one's own: `handle` is the body of its function, which knows job, run, sys and time. */
  async workerThat(handle: string, queue: string, address: string, ...options: readonly string[]): Promise<Program> {
    const body = handle.trim().replaceAll("\n", "\n    ");
    const code = `import sys, time, worker\ndef handle(job, run):\n    ${body}\nworker.handle = handle\nworker.main()`;
    const worker = this.run(["-c", code, queue, "--addr", address, ...options]);
    await worker.saw("connected to ");
    return worker;
  }

  /** Any program that uses the stubs, or the example as a module. */
  run(args: readonly string[]): Program {
    const env = { PYTHONPATH: `${this.#stubs}${delimiter}${EXAMPLES}`, PYTHONDONTWRITEBYTECODE: "1" };
    const program = startProgram(python, args, { env });
    this.#programs.push(program);
    return program;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#programs.map((program) => program.kill()));
    await rm(this.#stubs, { recursive: true, force: true });
  }
}

/** How often each job was begun by these workers, as their output says. */
export function begun(...workers: readonly Program[]): Record<string, number> {
  const times: Record<string, number> = {};
  for (const worker of workers) {
    for (const [, id = ""] of worker.output().matchAll(/^\S+ (\S+): attempt \d+$/gm)) times[id] = (times[id] ?? 0) + 1;
  }
  return times;
}
