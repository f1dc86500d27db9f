import { create } from "@bufbuild/protobuf";
import {
  type ListQueuesRequest,
  type ListQueuesResponse,
  ListQueuesResponseSchema,
} from "../../gen/baton/v1/queue_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import { Checks } from "./checks.ts";
import type { CallContext } from "./handler.ts";
import { checkPageToken, encodePageToken } from "./page-token.ts";
import { queueMessage } from "./queue-message.ts";

const MAX_PAGE_SIZE = 1_000;
const DEFAULT_PAGE_SIZE = 100;

export async function listQueues(
  broker: Broker,
  namespace: string,
  request: ListQueuesRequest,
  { signal }: CallContext,
): Promise<ListQueuesResponse> {
  const checks = new Checks();
  const query = [namespace, "ListQueues"];
  const most = checks.integer("page_size", request.pageSize, 0, MAX_PAGE_SIZE) || DEFAULT_PAGE_SIZE;
  const position = checkPageToken(checks, query, request.pageToken);
  checks.done();
  const { queues, last } = await broker.queues.list(position?.[0]?.toString(), most, signal);
  return create(ListQueuesResponseSchema, {
    queues: queues.map(queueMessage),
    ...(last !== undefined && { nextPageToken: encodePageToken(query, [last]) }),
  });
}
