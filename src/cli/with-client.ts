/** What all commands that call a broker share: its address, the time a call may take, and the form of the answer. */
import { BatonClient, type CallOptions } from "../client/index.ts";
import { address, duration } from "../setting-values.ts";
import type { Io } from "./command.ts";
import { flag, UsageError, value } from "./options.ts";

const DEFAULT_ADDRESS = "127.0.0.1:7711";
const DEFAULT_TIMEOUT_MS = 5_000;
const SLOW_TIMEOUT_MS = 60_000;

const addressKind = address(DEFAULT_ADDRESS);

export const clientOptions = {
  addr: value(addressKind, `The broker. [BATON_ADDR, default ${DEFAULT_ADDRESS}]`),
  timeout: value(duration(1, 86_400_000), "How long a call may take, with its repetitions. [default 5s]"),
  json: flag("Print JSON, one object a line, as the contract maps it."),
};

/** Of commands whose call goes through a whole queue. */
export const slowClientOptions = {
  ...clientOptions,
  timeout: value(clientOptions.timeout.kind, "How long the call may take. [default 1m]"),
};

type ClientValues = { readonly addr: string | undefined; readonly timeout: number | undefined };

/** The limits of such a call: it may take long, but a broker that is not there is no reason to wait for long. */
export function slowCall({ timeout = SLOW_TIMEOUT_MS }: ClientValues): CallOptions {
  return { deadlineMs: timeout, repeatForMs: DEFAULT_TIMEOUT_MS };
}

/** Calls `use` with a client, which is closed afterwards, whatever happens. */
export async function withClient<T>(
  values: ClientValues,
  io: Io,
  use: (client: BatonClient) => Promise<T>,
): Promise<T> {
  const client = new BatonClient({
    address: values.addr ?? addressFrom(io.env),
    defaultDeadlineMs: values.timeout ?? DEFAULT_TIMEOUT_MS,
  });
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

function addressFrom(env: Io["env"]): string {
  const written = env.BATON_ADDR || DEFAULT_ADDRESS;
  if (addressKind.parse(written) === undefined) {
    throw new UsageError(`BATON_ADDR=${written}: write ${addressKind.ask}`);
  }
  return written;
}
