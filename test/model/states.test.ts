import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { JobState as JobStateEnum, JobStateSchema } from "../../gen/baton/v1/job_pb.js";
import { FAILURE_REASONS, JOB_STATES, stateOf, TRANSITIONS } from "../../src/model/states.ts";

const ROOT = new URL("../../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, ROOT), "utf8");

const proto = read("proto/baton/v1/job.proto");
const luaFiles = ["lua/", "lua/lib/"].flatMap((folder) =>
  readdirSync(new URL(folder, ROOT))
    .filter((name) => name.endsWith(".lua"))
    .map((name) => read(folder + name)),
);
const lua = luaFiles.join("\n");

/** The drawing at the top of the proto, without its comment marks. */
function drawingOf(text: string): string {
  const lines = text.split("\n").map((line) => line.replace(/^\/\/ ?/, ""));
  const first = lines.findIndex((line) => line.includes("put"));
  const last = lines.findLastIndex((line) => line.includes("SCHEDULED") && line.includes("returned with a delay"));
  return lines.slice(first, last + 1).join("\n");
}

describe("the states", () => {
  it("have the numbers of the proto's enum", () => {
    const ofProto = JobStateSchema.values
      .filter(({ number }) => number !== JobStateEnum.UNSPECIFIED)
      .map(({ localName, number }) => [localName, number]);
    expect(ofProto).toEqual(Object.entries(JOB_STATES));
  });

  it("have the numbers that Lua uses", () => {
    const [, names = "", numbers = ""] = /^local (SCHEDULED, .*) = (.*)$/m.exec(lua) ?? [];
    const ofLua = names.split(", ").map((name, i) => [name, Number(numbers.split(", ")[i])]);
    expect(ofLua).toEqual(Object.entries(JOB_STATES));
  });

  it("are found by their numbers", () => {
    for (const [name, number] of Object.entries(JOB_STATES)) expect(stateOf(number)).toBe(name);
    expect(stateOf(0)).toBeUndefined();
  });

  it("of failure have the numbers that Lua uses", () => {
    const [, names = "", numbers = ""] = /^local (REASON_.*) = (.*)$/m.exec(lua) ?? [];
    const ofLua = names.split(", ").map((name, i) => [name.replace("REASON_", ""), Number(numbers.split(", ")[i])]);
    expect(ofLua).toEqual(Object.entries(FAILURE_REASONS));
  });
});

describe("the transitions", () => {
  const sorted = (names: readonly string[]) => [...names].sort();

  it("are those of the proto's list, one for one", () => {
    const listed = [...proto.matchAll(/^\/\/ {3}(\w+) +([A-Z, ]+) → (.+)$/gm)].map(([, cause, from = "", to = ""]) => ({
      cause,
      from: sorted(from.split(", ")),
      to: sorted(to.replaceAll(/ \([^)]*\)/g, "").split(", ")),
    }));
    expect(listed).toEqual(TRANSITIONS.map(({ cause, from, to }) => ({ cause, from: sorted(from), to: sorted(to) })));
  });

  it("are all that the Lua scripts make", () => {
    const made = new Map<string, Set<string>>();
    const note = (cause: string, to: string) => made.set(cause, (made.get(cause) ?? new Set()).add(to));
    for (const [, to = "", cause = ""] of lua.matchAll(/\bmove\(id, ([A-Z]+), .*'(\w+)'\)/g)) note(cause, to);
    for (const [, cause = ""] of lua.matchAll(/\bremove\(id, '(\w+)'\)/g)) note(cause, "GONE");
    for (const [, cause = ""] of lua.matchAll(/\bbury\(id, job, REASON_\w+, '(\w+)'/g)) note(cause, "FAILED");
    for (const [, cause = ""] of lua.matchAll(/\btrim\([A-Z_]+, .*, '(\w+)'\)/g)) note(cause, "GONE");
    // A new job's state is computed; `create` is put's alone.
    for (const _ of lua.matchAll(/\bcreate\(id, \{/g)) for (const to of ["SCHEDULED", "READY"]) note("put", to);
    const ofLua = [...made].map(([cause, to]) => ({ cause, to: sorted([...to]) }));
    const ofModel = TRANSITIONS.map(({ cause, to }) => ({ cause, to: sorted(to) }));
    const byCause = (a: { cause: string }, b: { cause: string }) => a.cause.localeCompare(b.cause);
    expect(ofLua.sort(byCause)).toEqual(ofModel.sort(byCause));
  });

  it("happen in one place: nothing else in Lua writes a job's state", () => {
    const writers = [...lua.matchAll(/^( *)(?:local )?function (\w+)\((?:(?!^\1end$)[\s\S])*?\[F_STATE\] = (?!=)/gm)];
    // decode takes off the mark that encode had added.
    expect(writers.map(([, , name]) => name)).toEqual(["move", "decode"]);
    expect(luaFiles.filter((text) => /'HSET', STATE|write_hash\(STATE/.test(text))).toHaveLength(1);
  });

  it("are drawn in the README as in the proto", () => {
    const drawing = drawingOf(proto);
    expect(drawing.split("\n").length).toBeGreaterThan(10);
    expect(read("README.md")).toContain(drawing);
  });

  it("are drawn with all states", () => {
    for (const state of Object.keys(JOB_STATES)) expect(drawingOf(proto)).toContain(state);
  });
});
