/** The client of a system that is driven from TypeScript: all of them are the same program, with another driver. */
import type { Server, System } from "./system.ts";

export function typescriptClient(name: string): System["client"] {
  return ({ address }: Server) => ({ command: process.execPath, args: ["bench/support/client.ts", name, address] });
}
