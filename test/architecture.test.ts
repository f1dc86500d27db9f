/** Holds the imports in src/ against the arrows between its rooms (test/dependency-cruiser.cjs). */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const CRUISER = join(ROOT, "node_modules/dependency-cruiser/bin/dependency-cruiser.mjs");
const CONFIG = join(ROOT, "test/dependency-cruiser.cjs");

type Report = {
  modules: { source: string }[];
  summary: { violations: { from: string; to: string; rule: { name: string } }[] };
};

function cruise(folder: string): Promise<Report> {
  return new Promise((resolve, reject) => {
    const words = [CRUISER, "--config", CONFIG, "--output-type", "json", "src"];
    const options = { cwd: folder, maxBuffer: 64 * 1_024 * 1_024, timeout: 60_000 };
    execFile(process.execPath, words, options, (error, stdout, stderr) => {
      // The exit status only counts the violations, which the report lists.
      if (stdout) resolve(JSON.parse(stdout) as Report);
      else reject(new Error(`dependency-cruiser gave no report: ${stderr}`, { cause: error }));
    });
  });
}

describe("src/", () => {
  it("imports along the arrows only", async () => {
    const { modules, summary } = await cruise(ROOT);
    // Were the parser unable to read TypeScript, there would be nothing to complain about.
    expect(modules.filter(({ source }) => source.startsWith("src/")).length).toBeGreaterThan(20);
    expect(summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} → ${to}`)).toEqual([]);
  });
});

describe("the check of the arrows", () => {
  let folder = "";

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "baton-arrows-"));
    for (const room of ["model", "store", "broker", "rpc", "transport", "client", "cli"]) {
      await write(`src/${room}/good.ts`, "export const value = 1;\n");
    }
    await write("src/server.ts", "export const value = 1;\n");
    await write("test/good.ts", "export const value = 1;\n");
  });

  afterEach(() => rm(folder, { recursive: true, force: true }));

  async function write(path: string, text: string): Promise<void> {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }

  it.each([
    [
      "a value import against an arrow",
      "src/store/bad.ts",
      'import { value } from "../broker/good.ts";',
      "store-imports",
    ],
    ["a type-only import", "src/model/bad.ts", 'import type { value } from "../store/good.ts";', "model-imports"],
    ["a re-export", "src/rpc/bad.ts", 'export * from "../transport/good.ts";', "rpc-imports"],
    ["a dynamic import", "src/broker/bad.ts", 'export const later = import("../rpc/good.ts");', "broker-imports"],
    ["a way past a room", "src/transport/bad.ts", 'import { value } from "../store/good.ts";', "transport-imports"],
    [
      "a client that knows the broker",
      "src/client/bad.ts",
      'import { value } from "../model/good.ts";',
      "client-imports",
    ],
    ["a builtin module in the model", "src/model/bad.ts", 'import { join } from "node:path";', "model-imports"],
    ["the composition root", "src/broker/bad.ts", 'import { value } from "../server.ts";', "broker-imports"],
    ["a test", "src/cli/bad.ts", 'import { value } from "../../test/good.ts";', "src-knows-no-test"],
    ["what is not there", "src/model/bad.ts", 'import { value } from "./missing.ts";', "everything-resolves"],
    ["a room without arrows", "src/attic/bad.ts", 'import { value } from "../model/good.ts";', "a-room-has-its-arrows"],
  ])("reports %s", async (_, path, line, rule) => {
    await write(path, `${line}\n`);
    const { summary } = await cruise(folder);
    const found = summary.violations.filter(({ from }) => from === path).map(({ rule: { name } }) => name);
    expect(found).toContainEqual(expect.stringMatching(`^${rule}`));
  });

  it("reports a cycle, also one of types alone", async () => {
    await write("src/model/one.ts", 'import type { two } from "./two.ts";\nexport const one: typeof two = 1;\n');
    await write("src/model/two.ts", 'import type { one } from "./one.ts";\nexport const two: typeof one = 1;\n');
    const { summary } = await cruise(folder);
    expect(summary.violations.map(({ rule }) => rule.name)).toContain("no-cycles");
  });

  it("lets imports along the arrows pass", async () => {
    await write("src/store/fine.ts", 'import { value } from "../model/good.ts";\nimport "node:net";\n');
    await write("src/cli/fine.ts", 'import { value } from "../server.ts";\nimport "../client/good.ts";\n');
    expect((await cruise(folder)).summary.violations).toEqual([]);
  });
});
