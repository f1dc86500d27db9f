/**
 * Where a web hook is and what opens it, from the command line. Addresses and headers hold secrets, so no message
 * repeats what was written: of an address it shows at most the scheme, the host and the port, of a header its name.
 */
import { UsageError } from "./options.ts";

export type HookTarget = {
  /** Without user, password and fragment. */
  readonly address: URL;
  /** What every post carries beside the job's own headers, by names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
};

/** RFC 9110: the characters of a header's name. */
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** What arrives as it was sent, whoever reads it: without control characters, and no byte that needs an encoding. */
const VALUE = /^[\t\x20-\x7e]*$/;

/** They belong to the connection, or say how long the body is: a wrong one would let a post be read as two. */
const NOT_TO_BE_SET = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

export function isHeaderName(text: string): boolean {
  return NAME.test(text);
}

/** Spaces around a value don't arrive, so a value that has them cannot be sent as it is. */
export function isHeaderValue(text: string): boolean {
  return VALUE.test(text) && text.trim() === text;
}

/** Throws UsageError for an address that is no http(s) one, and for a header that cannot be sent. */
export function hookTarget(url: string, headerLines: readonly string[]): HookTarget {
  const address = addressOf(url);
  const headers = Object.fromEntries(headerLines.map(headerOf));
  const authorization = takeCredentials(address);
  if (authorization === undefined) return { address, headers };
  if (headers.authorization !== undefined) {
    throw new UsageError("write a user in the address of --url or --header Authorization, not both");
  }
  return { address, headers: { ...headers, authorization } };
}

function addressOf(url: string): URL {
  const address = /^https?:\/\//i.test(url) ? URL.parse(url) : null;
  if (address === null) {
    throw new UsageError(
      "--url: write an address that begins with http:// or https://, such as https://example.com/hook",
    );
  }
  address.hash = "";
  return address;
}

function headerOf(line: string): readonly [string, string] {
  const colon = line.indexOf(":");
  const name = line.slice(0, Math.max(colon, 0)).toLowerCase();
  const content = line.slice(colon + 1).trim();
  if (!isHeaderName(name) || !isHeaderValue(content)) {
    throw new UsageError("--header: write 'NAME: VALUE' in ASCII on one line, such as 'Authorization: Bearer abc'");
  }
  if (NOT_TO_BE_SET.has(name) || name.startsWith("baton-") || name === "idempotency-key") {
    throw new UsageError(`--header ${name}: Baton sets this one itself; leave it out`);
  }
  return [name, content];
}

/** Takes user and password out of the address, and gives the header that says them. */
function takeCredentials(address: URL): string | undefined {
  const { username, password } = address;
  if (username === "" && password === "") return undefined;
  address.username = "";
  address.password = "";
  try {
    const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    return `Basic ${Buffer.from(credentials).toString("base64")}`;
  } catch {
    throw new UsageError("--url: write user and password in percent-encoding: %25 for the character %");
  }
}
