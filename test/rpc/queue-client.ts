/** QueueService as any gRPC client sees it. */
import { QueueService } from "../../gen/baton/v1/queue_service_pb.js";
import type { RawClient } from "./raw-client.ts";
import { type MethodOf, type RequestOf, type ResponseOf, ServiceClient } from "./service-client.ts";

type Service = typeof QueueService;
export type QueueRequest<K extends MethodOf<Service>> = RequestOf<Service, K>;
export type QueueResponse<K extends MethodOf<Service>> = ResponseOf<Service, K>;

export class QueueClient extends ServiceClient<Service> {
  constructor(client: RawClient) {
    super(client, QueueService);
  }
}
