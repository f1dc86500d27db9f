/** The verbs of JobService, each with its handler: decode and check, call the broker, encode. No rules live here. */
import { JobService } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { deleteJob } from "./delete.ts";
import { extend } from "./extend.ts";
import { get } from "./get.ts";
import { type Service, service } from "./handler.ts";
import type { Limits } from "./limits.ts";
import { put, putMany } from "./put.ts";
import { release, releaseMany } from "./release.ts";
import { reserve } from "./reserve.ts";
import { subscribe } from "./subscribe.ts";

export function jobService(broker: Broker, namespace: string, limits: Limits): Service {
  return service(JobService, {
    put: (request) => put(broker, limits, request),
    putMany: (request) => putMany(broker, limits, request),
    reserve: (request, context) => reserve(broker, namespace, limits, request, context),
    release: (request) => release(broker, namespace, limits, request),
    releaseMany: (request) => releaseMany(broker, namespace, limits, request),
    extend: (request) => extend(broker, namespace, limits, request),
    delete: (request) => deleteJob(broker, request),
    get: (request) => get(broker, request),
    subscribe: (request, context) => subscribe(broker, namespace, limits, request, context),
  });
}
