import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type SubscribeRequest,
  type SubscribeResponse,
  SubscribeResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Broker } from "../broker/broker.ts";
import type { SubscriptionEvent } from "../broker/subscription.ts";
import { encodeLeaseToken } from "../model/lease-token.ts";
import { Checks } from "./checks.ts";
import type { CallContext } from "./handler.ts";
import type { Limits } from "./limits.ts";
import { jobsEvent } from "./reserved-job.ts";
import { checkSubscription, drainingMessage, REVOKED_REASONS, startedMessage } from "./subscription.ts";

export async function* subscribe(
  broker: Broker,
  namespace: string,
  limits: Limits,
  request: SubscribeRequest,
  context: CallContext,
): AsyncGenerator<SubscribeResponse | Buffer> {
  const checks = new Checks();
  const { options, leases } = checkSubscription(checks, "", request, namespace, limits, context);
  checks.done();
  const resumed = leases.length > 0 ? await broker.resume(leases, options.leaseMs) : undefined;
  const subscription = broker.subscribe({ ...options, resumed });
  // A reader that waits for the next event does not see its caller go; the subscription must not outlive it.
  const onAbort = () => subscription.close();
  context.signal.addEventListener("abort", onAbort, { once: true });
  if (context.signal.aborted) onAbort();
  try {
    for (let event = await subscription.next(); event; event = await subscription.next()) {
      if (event.kind === "jobs") yield jobsEvent(namespace, event.jobs);
      else yield create(SubscribeResponseSchema, { event: eventMessage(namespace, event) });
    }
  } finally {
    context.signal.removeEventListener("abort", onAbort);
    subscription.close();
  }
}

type EventInit = NonNullable<MessageInitShape<typeof SubscribeResponseSchema>["event"]>;

function eventMessage(namespace: string, event: Exclude<SubscriptionEvent, { kind: "jobs" }>): EventInit {
  switch (event.kind) {
    case "started":
      return { case: "started", value: startedMessage(event) };
    case "revoked": {
      const leaseTokens = [encodeLeaseToken(namespace, event.lease)];
      return { case: "revoked", value: { leaseTokens, reason: REVOKED_REASONS[event.reason] } };
    }
    case "keepalive":
      return { case: "keepalive", value: {} };
    case "draining":
      return { case: "draining", value: drainingMessage(event.graceMs) };
  }
}
