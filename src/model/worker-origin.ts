/** What a worker's connection says of it, where the worker itself does not. */

/** By what the gRPC libraries say of themselves; the first that fits. */
const LANGUAGES: readonly (readonly [RegExp, string])[] = [
  [/\bgrpc-node/i, "node"],
  [/\bconnect-es\b/i, "node"],
  [/\bgrpc-web-javascript\b/i, "javascript"],
  [/\bgrpc-python/i, "python"],
  [/\bgrpc-java|\bgrpc-kotlin/i, "java"],
  [/\bgrpc-dotnet|\bgrpc-csharp/i, "dotnet"],
  [/\bgrpc-c\+\+/i, "c++"],
  [/\bgrpc-ruby/i, "ruby"],
  [/\bgrpc-php/i, "php"],
  [/\bgrpc-swift/i, "swift"],
  [/\bdart-grpc\b/i, "dart"],
  [/\btonic\b/i, "rust"],
  [/\bgrpc-go\b|\bconnect-go\b/i, "go"],
];
const LONGEST = 64;

/** Of a library that is not known here, its own name. */
export function languageOf(userAgent: string): string {
  const known = LANGUAGES.find(([pattern]) => pattern.test(userAgent));
  return known ? known[1] : (userAgent.split("/", 1)[0] ?? "").slice(0, LONGEST);
}

/** `peer`: host:port, [host]:port, or a word. */
export function hostOf(peer: string): string {
  return /^\[(.*)\]:\d+$/.exec(peer)?.[1] ?? peer.replace(/:\d+$/, "");
}
