/**
 * Which brokers a client calls: how the address that its user writes becomes what gRPC takes, and how the calls spread.
 *
 * One `host:port` is one broker, whatever its name resolves to: localhost is [::1] and 127.0.0.1, and the first that
 * answers is as good as the other. A list, or a target with a scheme that the user chose (`dns:///baton:7711`,
 * `ipv4:10.0.0.1:7711,10.0.0.2:7711`), is several brokers: a connection is held to each, and the calls go to those that
 * are there in turn.
 *
 * gRPC has no list of host names. So there is a scheme for it, whose resolver asks gRPC's own for each of them. What a
 * name of the list resolves to are the addresses of one broker again.
 */
import { type ChannelOptions, type ClientOptions, experimental } from "@grpc/grpc-js";

export type Target = { readonly name: string; readonly options: ClientOptions };

const LIST_SCHEME = "baton-list";
const SCHEMES_OF_SEVERAL = /^(dns|ipv4|ipv6):/;
/** With a port, which gRPC would take to be 443. */
const HOST_AND_PORT = /^(\[[0-9A-Fa-f:.]+\]|[^\s:,/[\]]+):\d{1,5}$/;

const ROUND_ROBIN: ClientOptions = {
  "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
};

export function targetOf(address: string | readonly string[]): Target {
  if (typeof address === "string") {
    return { name: address, options: SCHEMES_OF_SEVERAL.test(address) ? ROUND_ROBIN : {} };
  }
  if (address.length === 0) throw new TypeError("a list of addresses must have at least one");
  const wrong = address.find((one) => !HOST_AND_PORT.test(one));
  if (wrong !== undefined) {
    throw new TypeError(`in a list of addresses each must be host:port, but one is ${JSON.stringify(wrong)}`);
  }
  // As gRPC's own schemes are: for the whole process. Doing it again changes nothing.
  experimental.registerResolver(LIST_SCHEME, ListResolver);
  return { name: `${LIST_SCHEME}:${address.join(",")}`, options: ROUND_ROBIN };
}

type Resolution = Parameters<experimental.ResolverListener>[0];

class ListResolver implements experimental.Resolver {
  readonly #resolvers: readonly experimental.Resolver[];
  readonly #latest: (Resolution | undefined)[];
  readonly #listener: experimental.ResolverListener;

  constructor(target: experimental.GrpcUri, listener: experimental.ResolverListener, options: ChannelOptions) {
    const addresses = target.path.split(",");
    this.#listener = listener;
    this.#latest = addresses.map(() => undefined);
    this.#resolvers = addresses.map((path, index) =>
      experimental.createResolver({ scheme: "dns", path }, (found) => this.#onResolved(index, found), options),
    );
  }

  static getDefaultAuthority(target: experimental.GrpcUri): string {
    return target.path.split(",")[0] ?? target.path;
  }

  updateResolution(): void {
    for (const resolver of this.#resolvers) resolver.updateResolution();
  }

  destroy(): void {
    for (const resolver of this.#resolvers) resolver.destroy();
  }

  #onResolved(index: number, found: Resolution): boolean {
    // A name that cannot be looked up just now is still where it was. It is looked up again, after gRPC's own backoff.
    if (found.ok || this.#latest[index] === undefined) this.#latest[index] = found;
    if (!found.ok) this.#resolvers[index]?.updateResolution();
    if (this.#latest.includes(undefined)) return true;
    const brokers = this.#latest.flatMap((one) =>
      one?.ok ? [{ addresses: one.value.flatMap(({ addresses }) => addresses) }] : [],
    );
    return this.#listener(brokers.length > 0 ? experimental.statusOrFromValue(brokers) : found, {}, null, "");
  }
}
