/** Where tests find the programs that test/setup.sh installs: grpcurl, and a Python with grpcio-tools. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

export type ToolName = "grpcurl" | "python";

const PATHS: Readonly<Record<ToolName, string>> = {
  grpcurl: "../../.cache/tools/bin/grpcurl",
  python: "../../.cache/tools/venv/bin/python",
};

/**
 * The tool's path; undefined when it is missing, for `it.skipIf(!path)`. In CI a missing tool is a failure: a test
 * that was skipped there would look as if it had passed.
 */
export function tool(name: ToolName): string | undefined {
  const path = fileURLToPath(new URL(PATHS[name], import.meta.url));
  if (existsSync(path)) return path;
  if (process.env.CI === "true") throw new Error(`${name} is missing (${path}): run \`sh test/setup.sh\``);
  return undefined;
}
