/**
 * What Put is compared with: a bare grpc-js server that decodes the same request, and encodes the same answer without
 * having done anything.
 */
import { create, fromBinary } from "@bufbuild/protobuf";
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from "@grpc/grpc-js";
import { JobState } from "../../gen/baton/v1/job_pb.js";
import { JobService, type PutRequest, type PutResponse, PutResponseSchema } from "../../gen/baton/v1/job_service_pb.js";
import { encode, pathOf } from "./lean-client.ts";

const { put } = JobService.method;

function echo({ request }: ServerUnaryCall<PutRequest, PutResponse>, reply: sendUnaryData<PutResponse>): void {
  reply(null, create(PutResponseSchema, { jobId: request.id, created: true, state: JobState.READY }));
}

const server = new Server({ "grpc.enable_channelz": 0 });
const decode = (bytes: Buffer) => fromBinary(put.input, bytes);
server.register(pathOf(put), echo, (response: PutResponse) => encode(put.output, response), decode, "unary");
server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`echo ready: grpc 127.0.0.1:${port}`);
});
process.once("SIGTERM", () => server.forceShutdown());
