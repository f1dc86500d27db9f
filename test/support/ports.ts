/**
 * Ports for servers that are stopped and started again at the same address. They lie below those that the system gives
 * to clients (32768 and up): a client that tries to reach a port of its own range while nobody listens there is given
 * that very port to come from sooner or later, and is then connected with itself.
 */
import { createServer } from "node:net";

const [LOWEST, HIGHEST] = [12_000, 32_000] as const;
const TRIES = 50;

/** `127.0.0.1:port`, where nobody listens. */
export async function freeAddress(): Promise<string> {
  for (let tries = 0; tries < TRIES; tries++) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (await isFree(port)) return `127.0.0.1:${port}`;
  }
  throw new Error(`found no free port in ${TRIES} tries`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
