/** Proves that gen/ is what proto/ generates now. */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL("..", import.meta.url));

async function filesOf(folder: string): Promise<Map<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const contents = await Promise.all(
    paths.sort().map(async (path) => [path.slice(folder.length + 1), await readFile(path, "latin1")] as const),
  );
  return new Map(contents);
}

it("gen/ is current: when this fails, run `npm run generate`", async () => {
  const folder = await mkdtemp(join(tmpdir(), "baton-gen-"));
  try {
    const bin = join(ROOT, "node_modules/.bin");
    const options = { cwd: ROOT, env: { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}` } };
    await run("buf", ["generate", "--output", folder], options);
    await run("buf", ["build", "--as-file-descriptor-set", "--output", join(folder, "gen/descriptors.binpb")], options);
    const fresh = await filesOf(join(folder, "gen"));
    const checkedIn = await filesOf(join(ROOT, "gen"));
    expect([...checkedIn.keys()]).toEqual([...fresh.keys()]);
    const outdated = [...fresh].filter(([path, text]) => checkedIn.get(path) !== text).map(([path]) => path);
    expect(outdated).toEqual([]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
