/** What all commands that call a broker share: its address, the time a call may take, and the form of the answer. */
import { BatonClient } from "../client/index.ts";
import { address, duration } from "../setting-values.ts";
import type { Io } from "./command.ts";
import { flag, UsageError, value } from "./options.ts";

const DEFAULT_ADDRESS = "127.0.0.1:7711";
const DEFAULT_TIMEOUT_MS = 5_000;

const addressKind = address(DEFAULT_ADDRESS);

export const clientOptions = {
  addr: value(addressKind, `The broker. [BATON_ADDR, default ${DEFAULT_ADDRESS}]`),
  timeout: value(duration(1, 86_400_000), "How long a call may take, with its repetitions. [default 5s]"),
  json: flag("Print JSON, one object a line, as the contract maps it."),
};

type ClientValues = { readonly addr: string | undefined; readonly timeout: number | undefined };

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
