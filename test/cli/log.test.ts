import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { createLogger } from "../../src/log.ts";

function collect(format: "text" | "json") {
  const stream = new PassThrough({ encoding: "utf8" });
  return { log: createLogger({ format, stream }), text: () => stream.read() as string };
}

describe("createLogger()", () => {
  it("writes text as time, level, message and fields on one line", () => {
    const { log, text } = collect("text");
    log.warn("two\nlines", { queue: "a b", count: 3, absent: undefined, quote: 'x"y', end: "1\n2" });
    expect(text()).toMatch(
      /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warn two lines queue="a b" count=3 quote="x\\"y" end="1\\n2"\n$/,
    );
  });

  it("writes JSON whose own keys no field can take", () => {
    const { log, text } = collect("json");
    log.info("started", { level: "fake", port: 7711 });
    expect(JSON.parse(text())).toEqual({ level: "info", message: "started", port: 7711, time: expect.any(String) });
  });

  it("shows an error by its message, and its stack at level error only", () => {
    const { log, text } = collect("json");
    log.warn("oops", { error: new Error("boom") });
    expect(JSON.parse(text())).not.toHaveProperty("errorStack");
    log.error("oops", { error: new Error("boom") });
    expect(JSON.parse(text())).toMatchObject({ error: "boom", errorStack: expect.stringContaining("log.test.ts") });
  });
});
