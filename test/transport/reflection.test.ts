import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { create, createFileRegistry, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { type Client, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import {
  type ServerReflectionRequest,
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from "../../gen/grpc/reflection/v1/reflection_pb.js";
import { indexDescriptors } from "../../src/transport/descriptors.ts";
import { tool } from "../support/tools.ts";
import { eventOnce, until, within } from "../support/wait.ts";
import { decodeWith, detailsOf, encodeWith, startServer } from "./support.ts";

type Question = NonNullable<MessageInitShape<typeof ServerReflectionRequestSchema>["messageRequest"]>;

const VERSIONS = ["v1", "v1alpha"] as const;

function open(client: Client, version: (typeof VERSIONS)[number] = "v1") {
  const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
  const call = client.makeBidiStreamRequest<ServerReflectionRequest, ServerReflectionResponse>(
    path,
    encodeWith(ServerReflectionRequestSchema),
    decodeWith(ServerReflectionResponseSchema),
  );
  call.on("error", () => {});
  return call;
}

async function ask(client: Client, questions: Question[], version?: (typeof VERSIONS)[number]) {
  const call = open(client, version);
  for (const messageRequest of questions) {
    call.write(create(ServerReflectionRequestSchema, { host: "h", messageRequest }));
  }
  call.end();
  const answers: ServerReflectionResponse[] = [];
  for await (const answer of call) answers.push(answer);
  return answers;
}

async function filesFor(client: Client, question: Question): Promise<string[]> {
  const [answer] = await ask(client, [question]);
  if (answer?.messageResponse.case !== "fileDescriptorResponse") throw new Error("no files");
  return answer.messageResponse.value.fileDescriptorProto.map(
    (bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name,
  );
}

describe.each(VERSIONS)("reflection %s", (version) => {
  it("lists the services, its own and health's too", async () => {
    await using server = await startServer();
    const [answer] = await ask(server.client, [{ case: "listServices", value: "" }], version);
    expect(answer).toMatchObject({
      validHost: "h",
      originalRequest: { host: "h", messageRequest: { case: "listServices" } },
    });
    expect(answer?.messageResponse.value).toMatchObject({
      service: [
        { name: "baton.v1.JobService" },
        { name: "grpc.health.v1.Health" },
        { name: "grpc.reflection.v1.ServerReflection" },
        { name: "grpc.reflection.v1alpha.ServerReflection" },
      ],
    });
  });

  it("describes every listed service, so that a client can build it, comments and well-known types included", async () => {
    await using server = await startServer();
    for (const symbol of ["baton.v1.JobService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]) {
      const [answer] = await ask(server.client, [{ case: "fileContainingSymbol", value: symbol }], version);
      if (answer?.messageResponse.case !== "fileDescriptorResponse") throw new Error("no files");
      const file = answer.messageResponse.value.fileDescriptorProto.map((it) =>
        fromBinary(FileDescriptorProtoSchema, it),
      );
      // Throws when an import is missing.
      const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: file.toReversed() }));
      expect(registry.getService(symbol)?.methods.length).toBeGreaterThan(0);
      const comments = file[0]?.sourceCodeInfo?.location.map((it) => it.leadingComments) ?? [];
      expect(comments.some((comment) => comment.length > 0)).toBe(true);
    }
  });
});

describe("reflection", () => {
  it.each([
    "baton.v1.JobService",
    "baton.v1.JobService.Put",
    "baton.v1.PutRequest",
    ".baton.v1.PutRequest",
    "baton.v1.PutRequest.HeadersEntry",
    "baton.v1.PutRequest.queue",
    "baton.v1.PutRequest.start",
    "baton.v1.OnConflict",
    "baton.v1.ON_CONFLICT_KEEP",
  ])("finds the file of %s, with all that it imports", async (symbol) => {
    await using server = await startServer();
    const files = await filesFor(server.client, { case: "fileContainingSymbol", value: symbol });
    expect(files[0]).toBe("baton/v1/job_service.proto");
    expect(files.toSorted()).toEqual([
      "baton/v1/job.proto",
      "baton/v1/job_service.proto",
      "google/protobuf/any.proto",
      "google/protobuf/duration.proto",
      "google/protobuf/timestamp.proto",
      "google/rpc/status.proto",
    ]);
  });

  it.each([
    ["baton/v1/job.proto", 3],
    ["google/protobuf/timestamp.proto", 1],
    ["google/rpc/error_details.proto", 2],
    ["grpc/health/v1/health.proto", 1],
  ])("finds %s by its name", async (name, count) => {
    await using server = await startServer();
    const files = await filesFor(server.client, { case: "fileByFilename", value: name });
    expect(files[0]).toBe(name);
    expect(files).toHaveLength(count);
  });

  it("answers what it does not know with NOT_FOUND, and goes on", async () => {
    await using server = await startServer();
    const answers = await ask(server.client, [
      { case: "fileByFilename", value: "no/such.proto" },
      { case: "fileContainingSymbol", value: "no.such.Symbol" },
      { case: "fileContainingExtension", value: { containingType: "baton.v1.PutRequest", extensionNumber: 1 } },
      { case: "allExtensionNumbersOfType", value: "no.such.Message" },
      { case: "allExtensionNumbersOfType", value: "baton.v1.PutRequest" },
    ]);
    expect(answers.map(({ messageResponse }) => messageResponse.case)).toEqual([
      "errorResponse",
      "errorResponse",
      "errorResponse",
      "errorResponse",
      "allExtensionNumbersResponse",
    ]);
    expect(answers[0]?.messageResponse.value).toMatchObject({
      errorCode: status.NOT_FOUND,
      errorMessage: "this broker knows no file no/such.proto",
    });
    expect(answers[4]?.messageResponse.value).toMatchObject({
      baseTypeName: "baton.v1.PutRequest",
      extensionNumber: [],
    });
  });

  it("answers a request without a question with INVALID_ARGUMENT", async () => {
    await using server = await startServer();
    const [answer] = await ask(server.client, [{ case: undefined }]);
    expect(answer?.messageResponse.value).toMatchObject({ errorCode: status.INVALID_ARGUMENT });
  });

  it("ends a call whose request is no protobuf with INVALID_ARGUMENT", async () => {
    await using server = await startServer();
    const call = server.client.makeBidiStreamRequest(
      "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
    );
    call.resume();
    const failed = eventOnce(call, "error");
    call.write(Buffer.from([0xff]));
    const [error] = await failed;
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT });
    expect(detailsOf(error as never).info?.reason).toBe("MALFORMED_MESSAGE");
  });

  it("answers many questions of a slow reader, in order", async () => {
    await using server = await startServer();
    const questions = Array.from({ length: 200 }, () => "baton.v1.JobService");
    const answers = await ask(
      server.client,
      questions.map((value) => ({ case: "fileContainingSymbol", value })),
    );
    expect(answers).toHaveLength(200);
  });

  it("does not hold up a shutdown", async () => {
    await using server = await startServer();
    const call = open(server.client);
    const answers: unknown[] = [];
    call.on("data", (answer) => answers.push(answer));
    call.write(create(ServerReflectionRequestSchema, { messageRequest: { case: "listServices", value: "" } }));
    await until(() => answers.length === 1, { what: "an answer" });
    await within(server.close(10_000), { what: "close()", withinMs: 2_000 });
  });

  it("knows extensions, by number and by type", () => {
    const set = create(FileDescriptorSetSchema, {
      file: [
        { name: "base.proto", package: "p", messageType: [{ name: "Base" }] },
        {
          name: "more.proto",
          package: "p",
          dependency: ["base.proto"],
          extension: [{ name: "extra", number: 100, extendee: ".p.Base" }],
          messageType: [{ name: "M", extension: [{ name: "nested", number: 101, extendee: ".p.Base" }] }],
        },
      ],
    });
    const index = indexDescriptors(encodeWith(FileDescriptorSetSchema)(set));
    expect(index.extensionNumbers("p.Base")).toEqual([100, 101]);
    expect(index.fileByExtension("p.Base", 101)).toHaveLength(2);
    expect(index.fileByExtension("p.Base", 102)).toBeUndefined();
    expect(index.fileBySymbol("p.extra")).toEqual(index.fileByName("more.proto"));
    expect(index.fileBySymbol("p.M.nested")).toEqual(index.fileByName("more.proto"));
  });
});

const grpcurl = tool("grpcurl");

describe.skipIf(!grpcurl)("grpcurl", () => {
  const run = async (...args: string[]) => {
    const { stdout } = await promisify(execFile)(grpcurl ?? "grpcurl", ["-plaintext", ...args], { timeout: 10_000 });
    return stdout;
  };

  it("lists the services and describes a method with its comment", async () => {
    await using server = await startServer();
    expect((await run(server.address, "list")).split("\n")).toContain("baton.v1.JobService");
    const described = await run(server.address, "describe", "baton.v1.JobService.Put");
    expect(described).toContain("Puts one job.");
    expect(described).toContain("rpc Put ( .baton.v1.PutRequest ) returns ( .baton.v1.PutResponse );");
  });

  it("calls a method with JSON, and shows the details of an error", async () => {
    await using server = await startServer();
    server.setServing(true);
    const answer = await run("-d", '{"queue": "q", "id": "a"}', server.address, "baton.v1.JobService/Put");
    expect(JSON.parse(answer)).toEqual({ jobId: "a", created: true });
    expect(JSON.parse(await run(server.address, "grpc.health.v1.Health/Check"))).toEqual({ status: "SERVING" });
    const failed = await run("-d", '{"service": "x"}', server.address, "grpc.health.v1.Health/Check").catch(
      (it) => it.stderr,
    );
    expect(failed).toContain("SERVICE_UNKNOWN");
  });
});
