/** A web hook of the test's own: a small HTTP server that notes what it gets, and answers as the test says. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type HookRequest = {
  readonly message: IncomingMessage;
  readonly body: Buffer;
  readonly response: ServerResponse;
};

export type HookServer = {
  /** http://127.0.0.1:port */
  readonly origin: string;
  /** In the order in which they were whole. */
  readonly requests: readonly HookRequest[];
  readonly connections: () => number;
  stop(): Promise<void>;
};

/** `answer` is called when a request is whole. */
export async function startHook(answer: (request: HookRequest) => void): Promise<HookServer> {
  const requests: HookRequest[] = [];
  let connections = 0;
  const server = createServer(async (message, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of message) chunks.push(chunk);
    const request = { message, body: Buffer.concat(chunks), response };
    requests.push(request);
    answer(request);
  });
  server.on("connection", () => connections++);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    connections: () => connections,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Writes until its reader is gone, never more than the reader takes. Gives what was written, for the time being. */
export function writeWithoutEnd(response: ServerResponse): {
  readonly bytes: () => number;
  readonly closed: () => boolean;
} {
  const chunk = Buffer.alloc(64 * 1024, "x");
  let bytes = 0;
  const write = () => {
    do bytes += chunk.length;
    while (!response.destroyed && response.write(chunk));
  };
  response.on("drain", write);
  write();
  return { bytes: () => bytes, closed: () => response.destroyed };
}
