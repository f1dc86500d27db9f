/**
 * The errors that grpc-js answers by itself, before a handler is called or after it has returned, get details like
 * those of handlers: a message over the limit, and a deadline that has passed.
 */
import {
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  status as Status,
} from "@grpc/grpc-js";
import { BatonError } from "../model/errors.ts";
import type { Logger } from "../model/log.ts";
import { deadlineExceeded, grpcStatusOf } from "./status.ts";

type SentStatus = Parameters<ServerInterceptingCallInterface["sendStatus"]>[0];

export function explainLibraryErrors(maxMessageBytes: number, log: Logger): ServerInterceptor {
  function explained(status: SentStatus, path: string): SentStatus {
    switch (status.code) {
      case Status.RESOURCE_EXHAUSTED: {
        const message = `a message is larger than ${maxMessageBytes} bytes (--max-message-bytes): ${status.details}`;
        log.warn("a message over the limit", { method: path, details: status.details });
        return grpcStatusOf(new BatonError("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", message));
      }
      case Status.DEADLINE_EXCEEDED:
        return grpcStatusOf(deadlineExceeded());
      default:
        return status;
    }
  }

  return ({ path }, call) => {
    // The object at the bottom sends these statuses to itself, past all interceptors; so it is told there.
    const sendStatus = call.sendStatus.bind(call);
    call.sendStatus = (status) => sendStatus(status.metadata ? status : explained(status, path));
    return new ServerInterceptingCall(call);
  };
}
