/**
 * grpc.health.v1: whether calls should be sent to this broker. One answer holds for the broker as a whole (the empty
 * name) and for each of its services.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  Health,
  type HealthCheckResponse,
  HealthCheckResponseSchema,
  HealthListResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../gen/grpc/health/v1/health_pb.js";
import { BatonError } from "../model/errors.ts";
import { type Service, service } from "../rpc/handler.ts";

export type HealthService = {
  readonly service: Service;
  setServing(serving: boolean): void;
  /** Ends every Watch, so that it does not hold up a shutdown. */
  close(): void;
};

/** Not serving until it is told otherwise. */
export function healthService(serviceNames: readonly string[]): HealthService {
  const names = new Set(["", ...serviceNames]);
  let status = ServingStatus.NOT_SERVING;
  let closed = false;
  let wakers = new Set<() => void>();

  function wakeAll(): void {
    const woken = wakers;
    wakers = new Set();
    for (const wake of woken) wake();
  }

  function changed(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => {
      signal.removeEventListener("abort", wake);
      wakers.delete(wake);
      resolve();
    };
    wakers.add(wake);
    signal.addEventListener("abort", wake);
    return promise;
  }

  /** Sends the status that is, then each that differs from the last one sent: a slow reader misses what has passed. */
  async function* watch(name: string, signal: AbortSignal): AsyncGenerator<HealthCheckResponse> {
    let sent: ServingStatus | undefined;
    while (!signal.aborted) {
      const current = names.has(name) ? status : ServingStatus.SERVICE_UNKNOWN;
      if (current !== sent) {
        sent = current;
        yield create(HealthCheckResponseSchema, { status: current });
      } else if (closed) {
        return;
      } else {
        await changed(signal);
      }
    }
  }

  return {
    service: service(Health, {
      async check(request) {
        if (!names.has(request.service)) throw serviceUnknown(request.service);
        return create(HealthCheckResponseSchema, { status });
      },
      watch: (request, { signal }) => watch(request.service, signal),
      async list() {
        const statuses: NonNullable<MessageInitShape<typeof HealthListResponseSchema>["statuses"]> = {};
        for (const name of names) statuses[name] = { status };
        return create(HealthListResponseSchema, { statuses });
      },
    }),
    setServing(serving) {
      status = serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
      wakeAll();
    },
    close() {
      closed = true;
      wakeAll();
    },
  };
}

function serviceUnknown(name: string): BatonError {
  const message = `this broker has no service ${name}`;
  return new BatonError("NOT_FOUND", "SERVICE_UNKNOWN", message, { metadata: { service: name } });
}
