/** Where a server listens, and why it could not. */

const UNIX_PREFIX = "unix:";
/** A host name, an IPv4 address, or an IPv6 address in brackets; then a port. */
const HOST_PORT = /^(?:[^:[\]/\s]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})$/;
const MAX_PORT = 65_535;

/** grpc-js itself would take a bare host, and then listen on port 443. */
export function checkAddress(address: string): void {
  if (address.startsWith(UNIX_PREFIX) && address.length > UNIX_PREFIX.length) return;
  const port = HOST_PORT.exec(address)?.[1];
  if (port !== undefined && Number(port) <= MAX_PORT) return;
  throw new Error(
    `${JSON.stringify(address)} is no address to listen on: write host:port, such as 127.0.0.1:7711 or [::1]:7711, ` +
      "or unix: and the path of a socket",
  );
}

/** The address with the port that the system chose, where it was left to the system. */
export function boundAddress(address: string, port: number): string {
  return address.startsWith(UNIX_PREFIX) ? address : address.replace(/:0+$/, `:${port}`);
}

export function bindError(address: string, cause: Error): Error {
  return new Error(`cannot listen on ${address}: ${remedy(address, cause.message)}`, { cause });
}

function remedy(address: string, message: string): string {
  if (message.includes("EADDRINUSE")) {
    return address.startsWith(UNIX_PREFIX)
      ? "the socket exists; stop the program that uses it, or remove the file if none does"
      : "another program does already; stop it, or choose another port";
  }
  if (message.includes("EACCES"))
    return "this user may not; choose a port above 1023, or a folder that it can write to";
  if (message.includes("EADDRNOTAVAIL")) return "this machine has no such address; choose one of its own, or 127.0.0.1";
  if (message.includes("ENOENT")) return "the folder does not exist; make it first";
  if (message.includes("Name resolution failed")) return "the host name is unknown; write an IP address, or correct it";
  return `${message}; choose another address`;
}
