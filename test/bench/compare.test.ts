import { describe, expect, it } from "vitest";
import { compare } from "../../bench/compare/compare.ts";
import type { Comparison } from "../../bench/compare/comparison.ts";
import { startProgram } from "../../bench/support/program.ts";
import { Missing, type Server, type System } from "../../bench/systems/system.ts";

/** Answers every operation with what `answer` makes of how many have come. */
function client(answer: string) {
  const program = `
    let come = 0;
    require("node:readline").createInterface({ input: process.stdin }).on("line", () => {
      come++;
      console.log(JSON.stringify(${answer}));
    });`;
  return () => ({ command: process.execPath, args: ["-e", program] });
}

const SERVER: Server = {
  version: "1.0",
  durability: "none",
  address: "",
  pids: {},
  lastWords: () => "all was well\nand then it rained",
  stop: async () => {},
};

function system(name: string, parts: Partial<System> = {}): System {
  return {
    name,
    kind: "peer",
    operations: new Set(["put"]),
    start: async () => SERVER,
    client: client("{ done: true, jobs: 10 * come, elapsedMs: 1_000 }"),
    ...parts,
  };
}

/** Three rounds of one operation; `log` is told who does one. */
function comparison(log: string[] = [], parts: Partial<Comparison> = {}): Comparison {
  return {
    title: () => "a test",
    durability: "everysec",
    needs: ["put"],
    inTurns: true,
    goals: [],
    prepare: async (contender) => async () => {
      log.push(contender.system.name);
      const { perSecond } = await contender.do({
        op: "put",
        queue: "test",
        concurrency: 1,
        durationMs: 1,
        payloadBytes: 1,
      });
      return [{ name: "", unit: "jobs/s", value: perSecond }];
    },
    ...parts,
  };
}

function run(what: Comparison, systems: readonly System[], signal = new AbortController().signal) {
  return compare(what, systems, { size: { short: true, rounds: 3, roundMs: 1, warmUpMs: 1 }, signal });
}

describe("compare()", () => {
  it("measures the systems in turns", async () => {
    const log: string[] = [];
    const outcomes = await run(comparison(log), [system("a"), system("b")]);
    expect(log).toEqual(["a", "b", "a", "b", "a", "b"]);
    const rounds = [10, 20, 30].map((value) => [{ name: "", unit: "jobs/s", value }]);
    expect(outcomes.get("b")).toEqual({ kind: "measured", version: "1.0", durability: "none", rounds });
  });

  it("measures one after the other where all at once would be too much", async () => {
    const log: string[] = [];
    await run(comparison(log, { inTurns: false, rounds: () => 2 }), [system("a"), system("b")]);
    expect(log).toEqual(["a", "a", "b", "b"]);
  });

  it("reports a server that does not start with the last line of its log", async () => {
    const broken = system("broken", {
      start: async ({ folder }) => {
        const script = "echo starting; echo 'port 99999 is out of range' >&2; exit 3";
        await startProgram("sh", ["-c", script], { folder, readyWhen: /ready/ });
        return SERVER;
      },
    });
    const outcomes = await run(comparison(), [broken, system("a")]);
    expect(outcomes.get("broken")).toEqual({ kind: "failed", reason: expect.stringMatching(/out of range\s*$/) });
    expect(outcomes.get("a")?.kind).toBe("measured");
  });

  it("reports who breaks down on the way with why and its last words, and goes on without it", async () => {
    const log: string[] = [];
    const answer = 'come < 2 ? { done: true, jobs: 1, elapsedMs: 1 } : { done: false, error: "lost its way" }';
    const weak = system("weak", { client: client(answer) });
    const outcomes = await run(comparison(log), [weak, system("a")]);
    expect(outcomes.get("weak")).toEqual({ kind: "failed", reason: "lost its way\nall was well\nand then it rained" });
    expect(log).toEqual(["weak", "a", "weak", "a", "a"]);
  });

  it("reports a client that ends by itself with what it said", async () => {
    const args = ["-e", 'console.error("no such address"); process.exit(1)'];
    const outcomes = await run(comparison(), [system("gone", { client: () => ({ command: process.execPath, args }) })]);
    expect(outcomes.get("gone")).toEqual({ kind: "failed", reason: expect.stringContaining("no such address") });
  });

  it("tells who is missing and who is left out from who failed", async () => {
    const missing = system("missing", { start: () => Promise.reject(new Missing("it is not installed")) });
    const unable = system("unable", { operations: new Set(["lifeCycle"]) });
    const excepted = comparison([], { except: { excepted: "it would say nothing" } });
    const outcomes = await run(excepted, [missing, unable, system("excepted")]);
    expect(Object.fromEntries(outcomes)).toEqual({
      missing: { kind: "missing", reason: "it is not installed" },
      unable: { kind: "left out", reason: "it has no put" },
      excepted: { kind: "left out", reason: "it would say nothing" },
    });
    const onlyRedis = await run(comparison([], { needsRedis: true }), [system("a")]);
    expect(onlyRedis.get("a")).toEqual({ kind: "left out", reason: "it has no Redis" });
  });

  it("ends all servers when it is interrupted", async () => {
    const controller = new AbortController();
    const stopped: string[] = [];
    const systems = ["a", "b"].map((name) =>
      system(name, { start: async () => ({ ...SERVER, stop: async () => void stopped.push(name) }) }),
    );
    const interrupted = comparison([], {
      prepare: async () => async () => {
        controller.abort(new Error("ended by SIGINT"));
        return [];
      },
    });
    await expect(run(interrupted, systems, controller.signal)).rejects.toThrow("ended by SIGINT");
    expect(stopped.toSorted()).toEqual(["a", "b"]);
  });
});
