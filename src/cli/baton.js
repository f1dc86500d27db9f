#!/usr/bin/env node
// Starts the command line. Plain JavaScript that an old Node can read too: it finds a Node that runs the sources as
// they are (22.18 or later, by type stripping), and says what to do where there is none.
import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

const [major, minor] = process.versions.node.split(".").map(Number);
const isNewEnough = major >= 24 || (major === 22 && minor >= 18);

if (isNewEnough) {
  // Node strips no types below node_modules: an installed package runs its built files.
  const isInstalled = /[\\/]node_modules[\\/]/.test(fileURLToPath(import.meta.url));
  const { main } = await import(isInstalled ? "../../dist/src/cli/main.js" : "./main.ts");
  process.exitCode = await main(process.argv.slice(2));
} else {
  const node = fileURLToPath(new URL("../../node_modules/.bin/node", import.meta.url));
  if (existsSync(node) && realpathSync(node) !== realpathSync(process.execPath)) runWith(node);
  else {
    const found = `this is Node ${process.versions.node}`;
    process.stderr.write(
      `baton: Node 22.18 or later is needed, and ${found}: install a newer one, or type npm start\n`,
    );
    process.exitCode = 1;
  }
}

/** Runs this file again with another Node, which gets every signal once and whose exit becomes this one's. */
function runWith(node) {
  const child = spawn(node, process.argv.slice(1), { stdio: "inherit" });
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) {
    process.on(signal, () => {
      // A terminal sends Ctrl-C to the child as well.
      if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
    });
  }
  child.on("error", (error) => {
    process.stderr.write(`baton: ${node} cannot be run: ${error.message}\n`);
    process.exitCode = 1;
  });
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}
