/** The verbs of JobService, each with its handler: decode and check, call the broker, encode. No rules live here. */
import { JobService } from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { awaitJob } from "./await.ts";
import { cancel } from "./cancel.ts";
import { deleteJob } from "./delete.ts";
import { extend } from "./extend.ts";
import { get } from "./get.ts";
import { type Service, type ServiceHandlers, service } from "./handler.ts";
import type { Limits } from "./limits.ts";
import { list } from "./list.ts";
import { readPut, readPutMany } from "./plain-put.ts";
import { readReleaseMany, readWork } from "./plain-release.ts";
import { put, putMany } from "./put.ts";
import { release, releaseMany } from "./release.ts";
import { reportProgress } from "./report-progress.ts";
import { reserve } from "./reserve.ts";
import { retry } from "./retry.ts";
import { subscribe } from "./subscribe.ts";
import { watch } from "./watch.ts";
import { work } from "./work.ts";

export function jobService(broker: Broker, namespace: string, limits: Limits): Service {
  const readers = {
    put: (bytes: Buffer) => readPut(bytes, limits),
    putMany: (bytes: Buffer) => readPutMany(bytes, limits),
    releaseMany: (bytes: Buffer) => readReleaseMany(bytes, namespace),
    work: (bytes: Buffer) => readWork(bytes, namespace),
  };
  const handlers: ServiceHandlers<typeof JobService, typeof readers> = {
    put: (request) => put(broker, limits, request),
    putMany: (request) => putMany(broker, limits, request),
    reserve: (request, context) => reserve(broker, namespace, limits, request, context),
    release: (request) => release(broker, namespace, limits, request),
    releaseMany: (request) => releaseMany(broker, namespace, limits, request),
    extend: (request) => extend(broker, namespace, limits, request),
    reportProgress: (request) => reportProgress(broker, namespace, request),
    delete: (request) => deleteJob(broker, request),
    cancel: (request) => cancel(broker, request),
    list: (request) => list(broker, namespace, limits, request),
    retry: (request, context) => retry(broker, limits, request, context),
    get: (request) => get(broker, limits, request),
    await: (request, context) => awaitJob(broker, limits, request, context),
    watch: (request, context) => watch(broker, namespace, limits, request, context),
    subscribe: (request, context) => subscribe(broker, namespace, limits, request, context),
    work: (requests, context) => work(broker, namespace, limits, requests, context),
  };
  return service(JobService, handlers, readers);
}
