import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  test: {
    include: ["test/**/*.test.ts"],
    // Every test file boots real servers, and signals processes: a process each, and no more at once than two cores bear.
    pool: "forks",
    maxWorkers: 2,
    // Of tests that are marked as concurrent, because they mostly wait.
    maxConcurrency: 8,
    testTimeout: 20_000,
    hookTimeout: 30_000,
  },
});
