/** Does what README tells a newcomer to do: its lines are pasted one by one into shells, and must show what it shows. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Program, startProgram } from "./e2e/program.ts";
import { type Block, blocksOf, masked } from "./e2e/readme-blocks.ts";
import { tool } from "./support/tools.ts";
import { until, within } from "./support/wait.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
/** These end when somebody ends them; of their last command only the output can be waited for. */
const LONG_RUNNING = ["broker", "worker", "events"];
const LINE_WITHIN_MS = 60_000;

/** A shell that is given line after line, and the text that it shows. */
class Terminal {
  readonly #shell: Program;
  readonly #isLongRunning: boolean;
  #lines = 0;
  /** Up to where its output, masked, has been looked at. */
  #seen = 0;

  constructor(name: string, env: Readonly<Record<string, string>>) {
    this.#shell = startProgram("sh", [], { cwd: ROOT, env, keepStdin: true, group: true });
    this.#isLongRunning = LONG_RUNNING.includes(name);
    this.#shell.child.stdin?.write("exec 2>&1\n");
  }

  async paste(line: string): Promise<void> {
    this.#lines += 1;
    const mark = `line ${this.#lines} ended with`;
    this.#shell.child.stdin?.write(`${line}\n`);
    if (this.#isLongRunning) return;
    this.#shell.child.stdin?.write(`echo "${mark} $?"\n`);
    await this.#shell.saw(mark, LINE_WITHIN_MS);
    if (!this.#shell.output().includes(`${mark} 0\n`)) throw new Error(`${line}\nfailed:\n${this.#shell.output()}`);
  }

  /** Until its new output contains these lines. */
  async shows(lines: readonly string[], translate: (text: string) => string): Promise<void> {
    const expected = masked(translate(lines.join("\n")));
    const look = () => masked(this.#shell.output()).indexOf(expected, this.#seen) + 1;
    try {
      const found = await until(look, { what: "README's output", withinMs: LINE_WITHIN_MS });
      this.#seen = found - 1 + expected.length;
    } catch (error) {
      const shown = masked(this.#shell.output()).slice(this.#seen);
      throw new Error(`README says:\n${expected}\nthe terminal shows:\n${shown}`, { cause: error });
    }
  }

  /** Ctrl-C. */
  interrupt(): void {
    const { pid, exitCode, signalCode } = this.#shell.child;
    if (pid !== undefined && exitCode === null && signalCode === null) process.kill(-pid, "SIGINT");
  }

  saw(text: string): Promise<void> {
    return this.#shell.saw(text);
  }

  /** As a user ends it: a broker that is killed would leave its Redis behind. */
  async close(): Promise<void> {
    this.interrupt();
    await within(this.#shell.ended, { what: "a terminal to end", withinMs: 15_000 }).catch(() => this.#shell.kill());
  }
}

describe("README", () => {
  let readme: string;
  let home: string;
  const terminals = new Map<string, Terminal>();

  beforeAll(async () => {
    readme = await readFile(join(ROOT, "README.md"), "utf8");
    home = await mkdtemp(join(tmpdir(), "baton-readme-"));
  });

  afterAll(async () => {
    for (const terminal of terminals.values()) await terminal.close();
    await rm(home, { recursive: true, force: true });
  });

  it("names npm start and npm test as the two commands", () => {
    const commands = blocksOf(readme, ["Start"]).filter(({ kind }) => kind === "commands");
    expect(commands.map(({ lines }) => lines)).toEqual([["npm start"], ["npm test"]]);
  });

  it.skipIf(!tool("grpcurl"))(
    "has a quick start and recipes that work when they are pasted line by line",
    { timeout: 240_000 },
    async () => {
      const address = `127.0.0.1:${await freePort()}`;
      const env = { HOME: home, BATON_GRPC_ADDR: address, BATON_ADDR: address };
      const translate = (text: string) =>
        text.replaceAll("127.0.0.1:7711", address).replaceAll(".cache/worker.log", join(home, "worker.log"));
      const blocks = blocksOf(readme, ["Start", "Quick start", "Recipes"]).filter(
        ({ terminal }) => terminal !== "tests",
      );
      expect(blocks.length).toBeGreaterThan(25);
      for (const block of blocks) await follow(block);

      terminalOf("broker").interrupt();
      await terminalOf("broker").saw(" info stopped");

      async function follow({ kind, terminal, lines }: Block): Promise<void> {
        if (kind === "output") return terminalOf(terminal).shows(lines, translate);
        for (const line of lines) await terminalOf(terminal).paste(translate(line));
      }

      function terminalOf(name: string): Terminal {
        const terminal = terminals.get(name) ?? new Terminal(name, env);
        terminals.set(name, terminal);
        return terminal;
      }
    },
  );

  it("links to files that are there", () => {
    const links = [...readme.matchAll(/\]\((?!https:)([^)]+)\)/g)].map(([, path = ""]) => path);
    expect(links.length).toBeGreaterThan(4);
    expect(links.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
  });

  it("lists the errors that the broker answers with", async () => {
    const source = await readFile(join(ROOT, "src/model/errors.ts"), "utf8");
    const reasons = [...source.matchAll(/new BatonError\("([A-Z_]+)", "([A-Z_]+)"/g)];
    expect(reasons.length).toBeGreaterThan(5);
    for (const [, code, reason] of reasons) expect(readme).toContain(`| ${code} | ${reason} |`);
  });
});

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}
