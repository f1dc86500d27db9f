/** The verbs of QueueService, each with its handler: decode and check, call the broker, encode. No rules live here. */
import { QueueService } from "../../gen/baton/v1/queue_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { getQueue } from "./get-queue.ts";
import { type Service, service } from "./handler.ts";
import { listQueues } from "./list-queues.ts";
import { pauseQueue, resumeQueue } from "./pause-queue.ts";
import { purgeQueue } from "./purge-queue.ts";
import { requeue } from "./requeue.ts";
import { updateQueue } from "./update-queue.ts";
import { listWorkers, quietWorker, resumeWorker } from "./workers.ts";

export function queueService(broker: Broker, namespace: string): Service {
  return service(QueueService, {
    listQueues: (request, context) => listQueues(broker, namespace, request, context),
    getQueue: (request) => getQueue(broker, request),
    updateQueue: (request) => updateQueue(broker, request),
    pauseQueue: (request) => pauseQueue(broker, request),
    resumeQueue: (request) => resumeQueue(broker, request),
    purgeQueue: (request, context) => purgeQueue(broker, request, context),
    requeue: (request, context) => requeue(broker, request, context),
    listWorkers: (request) => listWorkers(broker, namespace, request),
    quietWorker: (request) => quietWorker(broker, request),
    resumeWorker: (request) => resumeWorker(broker, request),
  });
}
