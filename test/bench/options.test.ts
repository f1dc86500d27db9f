import { describe, expect, it } from "vitest";
import { COMPARISONS } from "../../bench/compare/comparisons.ts";
import { loadSystems, systemNames } from "../../bench/compare/lineup.ts";
import { HELP, readOptions } from "../../bench/support/options.ts";
import { SYSTEMS } from "../../bench/systems/systems.ts";
import { WORKLOADS } from "../../bench/workloads.ts";

function optionsOf(...args: string[]) {
  const command = readOptions(args);
  if (command.kind !== "run") throw new Error(`that is ${command.kind}`);
  return command.options;
}

describe("the command line of the bench", () => {
  it("compares everything when nothing is named, and measures Baton's own when that is", () => {
    const { workloads, isFull } = optionsOf();
    expect(workloads).toEqual(Object.keys(COMPARISONS));
    expect(isFull).toBe(true);
    expect(optionsOf("own", "drain").workloads).toEqual([...Object.keys(WORKLOADS), "drain"]);
    expect(optionsOf("own").isFull).toBe(false);
  });

  it("runs with --short only what has goals", () => {
    const { workloads, isFull } = optionsOf("--short");
    expect(workloads).toEqual(["put-64", "put-many", "life-cycle", "life-cycle-1m", "latency-idle", "memory"]);
    expect(isFull).toBe(false);
  });

  it("takes systems and workloads by name", () => {
    const options = optionsOf("--systems", "baton,bullmq", "life-cycle", "crash", "--profile", "profiles");
    expect(options).toMatchObject({
      systems: ["baton", "bullmq"],
      workloads: ["life-cycle", "crash"],
      profileFolder: "profiles",
      isFull: false,
    });
  });

  it("says which names there are when one is wrong", () => {
    expect(() => readOptions(["--systems", "baton,sidekiq"])).toThrow(
      /no system "sidekiq": name some of baton, bullmq/,
    );
    expect(() => readOptions(["--systems", ""])).toThrow(/no system ""/);
    expect(() => readOptions(["put-2"])).toThrow(/no workload "put-2": name some of put-1, put-64/);
    expect(() => readOptions(["--fast"])).toThrow(/--fast/);
  });

  it("knows help and install, and help names every workload and system", () => {
    expect(readOptions(["--help"])).toEqual({ kind: "help" });
    expect(readOptions(["--install"])).toEqual({ kind: "install" });
    const names = [...Object.keys(COMPARISONS), ...Object.keys(WORKLOADS), ...Object.keys(SYSTEMS)];
    expect(names.filter((name) => !HELP.includes(name))).toEqual([]);
  });
});

describe("who takes part", () => {
  const lifeCycle = COMPARISONS["life-cycle"];
  if (!lifeCycle) throw new Error("there is no comparison of life cycles");

  it("is everyone in a full run, who has a goal beside it in a short one, and who was chosen in any", () => {
    expect(systemNames(lifeCycle, undefined, false)).toEqual(Object.keys(SYSTEMS));
    expect(systemNames(lifeCycle, undefined, true)).toEqual(["baton", "bullmq", "beanstalkd", "jetstream", "lua"]);
    expect(systemNames(lifeCycle, ["asynq", "baton"], true)).toEqual(["baton", "asynq"]);
  });

  it("is registered by its own name, and every goal is beside one of them", async () => {
    const systems = await loadSystems(Object.keys(SYSTEMS));
    expect(systems.map(({ name }) => name)).toEqual(Object.keys(SYSTEMS));
    const beside = Object.values(COMPARISONS).flatMap(({ goals }) => goals.flatMap(({ over }) => over ?? []));
    expect(beside.filter((name) => !Object.hasOwn(SYSTEMS, name))).toEqual([]);
  });
});
