import { describe, expect, it } from "vitest";
import { hostOf, languageOf } from "../../src/model/worker-origin.ts";

describe("languageOf()", () => {
  it.each([
    ["grpc-node-js/1.14.4", "node"],
    ["grpc-python/1.76.0 grpc-c/51.0.0 (linux; chttp2)", "python"],
    ["grpc-python-asyncio/1.76.0 grpc-c/51.0.0 (linux; chttp2)", "python"],
    ["grpc-go/1.77.0", "go"],
    ["grpcurl/v1.9.3 grpc-go/1.61.0", "go"],
    ["grpc-java-netty/1.76.0", "java"],
    ["grpc-kotlin-stub/1.4.1 grpc-java-netty/1.76.0", "java"],
    ["grpc-dotnet/2.71.0 (.NET 9.0.4; CLR 9.0.4; net9.0; linux; x64)", "dotnet"],
    ["grpc-c++/1.76.0 grpc-c/51.0.0 (linux; chttp2)", "c++"],
    ["grpc-ruby/1.76.0 grpc-c/51.0.0 (linux; chttp2)", "ruby"],
    ["tonic/0.14.2", "rust"],
    ["connect-es/2.2.0", "node"],
    ["my-worker/2 grpc-swift-nio/1.24", "swift"],
  ])("knows by %s that it is %s", (userAgent, language) => {
    expect(languageOf(userAgent)).toBe(language);
  });

  it("shows the name of a library that it does not know, cut to a bearable length, and nothing for nothing", () => {
    expect(languageOf("erlang-grpc/0.1 (otp 28)")).toBe("erlang-grpc");
    expect(languageOf("x".repeat(10_000))).toHaveLength(64);
    expect(languageOf("")).toBe("");
  });
});

describe("hostOf()", () => {
  it.each([
    ["10.0.0.7:52314", "10.0.0.7"],
    ["[2001:db8::7]:52314", "2001:db8::7"],
    ["unix", "unix"],
  ])("takes %s apart: %s", (peer, host) => {
    expect(hostOf(peer)).toBe(host);
  });
});
