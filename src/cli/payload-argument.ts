/** A payload on the command line: TEXT, or - for stdin. */
import { fstatSync } from "node:fs";
import type { PayloadInput } from "../client/index.ts";
import type { Io } from "./command.ts";
import { UsageError } from "./options.ts";
import { asText } from "./show.ts";

/** More than any broker takes; it only keeps an endless stdin from filling the memory. */
const STDIN_LIMIT_BYTES = 512 * 1024 * 1024;

/** Without TEXT, what is piped in; empty where nothing is. */
export async function payloadOrStdin(written: string | undefined, io: Io): Promise<PayloadInput> {
  if (written !== undefined) return await payload(written, io);
  if (io.stdin.isTTY) throw new UsageError("write the payload as TEXT, or - to type it, or pipe it in");
  if (io.stdin === process.stdin && fstatSync(0).isCharacterDevice()) return "";
  return await readStdin(io);
}

export async function payload(written: string, io: Io): Promise<PayloadInput> {
  return written === "-" ? await readStdin(io) : written;
}

/** Text where it is UTF-8, so that people can read it later; any other bytes as they are. */
async function readStdin(io: Io): Promise<PayloadInput> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of io.stdin) {
    const bytes = Buffer.from(chunk);
    size += bytes.length;
    if (size > STDIN_LIMIT_BYTES)
      throw new Error(`stdin holds more than ${STDIN_LIMIT_BYTES} bytes: no broker takes that`);
    chunks.push(bytes);
  }
  const bytes = Buffer.concat(chunks);
  return asText(bytes) ?? bytes;
}
