/** What a worker is told on a Work stream: all that there is to tell at one moment, in one message. */
import { create, toBinary } from "@bufbuild/protobuf";
import {
  DrainingSchema,
  KeepaliveSchema,
  LeasesRevokedSchema,
  ReportRefusedSchema,
  SubscriptionStartedSchema,
  WorkExtendedSchema,
  type WorkReleased,
  WorkReleasedSchema,
  type WorkResponse,
  WorkResponseSchema,
} from "../../gen/baton/v1/job_service_pb.js";
import type { Settled } from "../broker/jobs.ts";
import type { WorkEvent } from "../broker/work.ts";
import type { Released } from "../model/job.ts";
import { encodeLeaseToken } from "../model/lease-token.ts";
import { itemStatus } from "./batch.ts";
import { extendResult } from "./extend.ts";
import { releaseResult } from "./release.ts";
import { reservedJobs } from "./reserved-job.ts";
import { drainingMessage, REVOKED_REASONS, startedMessage } from "./subscription.ts";

type Other = Exclude<WorkEvent, { kind: "jobs" }>;

/** In bytes. */
export function workResponse(namespace: string, events: readonly WorkEvent[]): Buffer {
  const parts: Uint8Array[] = [];
  let response: WorkResponse | undefined;
  let released: ReleasedGroups | undefined;
  for (const event of events) {
    if (event.kind === "jobs") {
      parts.push(reservedJobs(namespace, event.jobs));
      continue;
    }
    response ??= create(WorkResponseSchema);
    released ??= new ReleasedGroups();
    add(response, released, namespace, event);
  }
  if (response && released) {
    response.released = released.all();
    parts.push(toBinary(WorkResponseSchema, response));
  }
  const [first] = parts;
  return parts.length === 1 && Buffer.isBuffer(first) ? first : Buffer.concat(parts);
}

function add(response: WorkResponse, released: ReleasedGroups, namespace: string, event: Other): void {
  switch (event.kind) {
    case "started":
      response.started = create(SubscriptionStartedSchema, startedMessage(event));
      return;
    case "released":
      for (const [i, { sequence }] of event.releases.entries()) {
        released.add(sequence, event.answers[i] as Settled<Released>);
      }
      for (const { sequence, error } of event.refused) released.add(sequence, { error });
      return;
    case "extended": {
      const { sequence, results } = event;
      response.extended.push(create(WorkExtendedSchema, { sequence, results: results.map(extendResult) }));
      return;
    }
    case "report refused": {
      const { leaseToken, error } = event;
      response.refusedReports.push(create(ReportRefusedSchema, { leaseToken, error: itemStatus(error) }));
      return;
    }
    case "revoked": {
      const reason = REVOKED_REASONS[event.reason];
      const token = encodeLeaseToken(namespace, event.lease);
      const others = response.revoked.find((one) => one.reason === reason);
      if (others) others.leaseTokens.push(token);
      else response.revoked.push(create(LeasesRevokedSchema, { leaseTokens: [token], reason }));
      return;
    }
    case "keepalive":
      response.keepalive = create(KeepaliveSchema);
      return;
    case "draining":
      response.draining = create(DrainingSchema, drainingMessage(event.graceMs));
      return;
    case "quiet":
      response.quiet = event.isQuiet;
      return;
  }
}

/** Most releases are answered alike: their numbers then stand in one list. */
class ReleasedGroups {
  readonly #groups = new Map<string, WorkReleased>();
  readonly #errors: WorkReleased[] = [];

  add(sequence: number, settled: Settled<Released>): void {
    if ("error" in settled) {
      this.#errors.push(create(WorkReleasedSchema, { sequences: [sequence], result: releaseResult(settled) }));
      return;
    }
    const { state, runAtMs } = settled.ok;
    const key = runAtMs === undefined ? state : `${state} ${runAtMs}`;
    const group = this.#groups.get(key);
    if (group) group.sequences.push(sequence);
    else this.#groups.set(key, create(WorkReleasedSchema, { sequences: [sequence], result: releaseResult(settled) }));
  }

  all(): WorkReleased[] {
    return [...this.#groups.values(), ...this.#errors];
  }
}
