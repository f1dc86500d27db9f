/** Why an attempt did not succeed: as it is kept with the job, and as it shows in the completion event. */
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { JobErrorSchema } from "../../gen/baton/v1/job_pb.js";

type ErrorInit = Pick<Required<MessageInitShape<typeof JobErrorSchema>>, "type" | "message" | "permanent">;

export function errorBytes(error: ErrorInit): Uint8Array {
  return toBinary(JobErrorSchema, create(JobErrorSchema, error));
}

/** The members that the error adds to a completion event; they start with a comma. */
export function errorDetail({ type, message, permanent }: ErrorInit): string {
  return `,"error":${JSON.stringify({ type, message, permanent })}`;
}
