/**
 * The client's process: `client.ts SYSTEM ADDRESS`. Holds producer and worker, does one operation after the other as
 * they come on stdin, and answers each on stdout. Ends with its stdin, also in the middle of an operation.
 */
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import type { Answer, Driver, Operation } from "../systems/system.ts";
import { perform } from "./operations.ts";

const CLOSE_WITHIN_MS = 3_000;

const [system = "", address = ""] = process.argv.slice(2);
const { connect }: { connect(address: string): Promise<Driver> } = await import(`../systems/${system}-driver.ts`);
const driver = await connect(address);

async function answer(line: string): Promise<Answer> {
  try {
    return await perform(driver, JSON.parse(line) as Operation);
  } catch (error) {
    return { done: false, error: error instanceof Error ? error.message : String(error) };
  }
}

async function end(): Promise<void> {
  await Promise.race([driver.close(), delay(CLOSE_WITHIN_MS)]);
  process.exit(0);
}

process.stdin.once("end", () => {
  end().catch((error) => {
    console.error(error);
    process.exit(1);
  });
});
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(line))}\n`);
}
