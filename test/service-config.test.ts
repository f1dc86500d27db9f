/** examples/service-config.json, which users copy: it says for each method what the contract says of it. */
import { readFile } from "node:fs/promises";
import type { DescService } from "@bufbuild/protobuf";
import { Client, credentials } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { JobService } from "../gen/baton/v1/job_service_pb.js";
import { QueueService } from "../gen/baton/v1/queue_service_pb.js";
import { ScheduleService } from "../gen/baton/v1/schedule_service_pb.js";

const SERVICES: readonly DescService[] = [JobService, QueueService, ScheduleService];
const FILES = ["job_service", "queue_service", "schedule_service"];

type MethodName = { readonly service: string; readonly method?: string };
type Config = {
  readonly methodConfig: readonly { readonly name: readonly MethodName[]; readonly retryPolicy?: object }[];
};

const read = (path: string) => readFile(new URL(`../${path}`, import.meta.url), "utf8");
const text = await read("examples/service-config.json");
const config: Config = JSON.parse(text);

/** As gRPC finds it: by the method's own name, else by its service's. */
function policyOf(service: string, method: string) {
  const named = (wanted: MethodName) =>
    config.methodConfig.find(({ name }) =>
      name.some((one) => one.service === wanted.service && one.method === wanted.method),
    );
  return (named({ service, method }) ?? named({ service }))?.retryPolicy;
}

describe("examples/service-config.json", () => {
  it("names only methods that there are, each once", () => {
    const names = config.methodConfig.flatMap(({ name }) => name);
    const unknown = names.filter(({ service, method }) => {
      const descriptor = SERVICES.find(({ typeName }) => typeName === service);
      return !descriptor?.methods.some(({ name }) => method === undefined || method === name);
    });
    expect(unknown).toEqual([]);
    expect(new Set(names.map((name) => JSON.stringify(name))).size).toBe(names.length);
  });

  it("repeats what the contract calls safe to repeat, and Reserve; neither streams nor what has an effect each time", async () => {
    const repeated = SERVICES.flatMap(({ typeName, methods }) =>
      methods.filter(({ name }) => policyOf(typeName, name) !== undefined).map(({ name }) => name),
    );
    const contract = (await Promise.all(FILES.map((file) => read(`proto/baton/v1/${file}.proto`)))).join();
    const comments = [...contract.matchAll(/((?: {2}\/\/.*\n)+) {2}rpc (\w+)\(.*\) returns \((stream )?/g)];
    const safe = comments.flatMap(([, comment = "", name = "", stream]) => {
      const isSafe = !/Idempotency: none/.test(comment) || name === "Reserve";
      return isSafe && stream === undefined ? [name] : [];
    });
    expect(safe.length).toBeGreaterThan(25);
    expect([...repeated].sort()).toEqual([...safe].sort());
  });

  it("is taken by grpc-js as it is", () => {
    const options = { "grpc.service_config": text };
    expect(() => new Client("127.0.0.1:1", credentials.createInsecure(), options).close()).not.toThrow();
  });
});
