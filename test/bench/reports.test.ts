import { describe, expect, it } from "vitest";
import type { Outcome } from "../../bench/compare/compare.ts";
import type { Comparison, Measure } from "../../bench/compare/comparison.ts";
import { markdownOf } from "../../bench/compare/markdown.ts";
import { plotOf } from "../../bench/compare/plot.ts";
import { resultOf } from "../../bench/compare/result.ts";
import { rowsOf, rowsOfFigures } from "../../bench/compare/rows.ts";
import { tableOf } from "../../bench/compare/table.ts";

const COMPARISON: Comparison = {
  title: () => 'Jobs <"fast" & safe>',
  durability: "everysec",
  needs: [],
  inTurns: true,
  goals: [
    { label: "jobs/s", over: "slow", goal: { atLeast: 3 } },
    { label: "ms (p99)", over: "slow", goal: { atMost: 0.1 } },
    { label: "jobs/s", over: "absent", goal: { atLeast: 1 } },
  ],
  prepare: () => Promise.reject(new Error("this one is not run")),
};

function measured(rates: readonly number[], p99: number): Outcome {
  const rounds = rates.map((value): Measure[] => [
    { name: "", unit: "jobs/s", value },
    { name: "broker", unit: "µs/job", value: 12.34 },
    { name: "p99", unit: "ms", value: p99 },
  ]);
  return { kind: "measured", version: "1", durability: "none", rounds };
}

const OUTCOMES = new Map<string, Outcome>([
  ["baton", measured([3_000, 4_000, 3_500], 2)],
  ["slow", measured([900, 1_100, 1_000], 8)],
  ["absent", { kind: "missing", reason: "absent is not installed" }],
  ["broken", { kind: "failed", reason: "it did not start:\nfirst line\nlast line" }],
]);
const RESULT = resultOf("fast", COMPARISON, { short: true, rounds: 3, roundMs: 1, warmUpMs: 1 }, OUTCOMES);

describe("rowsOf()", () => {
  it("gives median, least and greatest of the rounds, and the ratio of Baton's median to this one", () => {
    expect(RESULT.rows.filter(({ system }) => system === "slow")).toEqual([
      { workload: "fast", system: "slow", unit: "jobs/s", median: 1_000, min: 900, max: 1_100, ratio: 3.5 },
      { workload: "fast", system: "slow", unit: "µs/job (broker)", median: 12.34, min: 12.34, max: 12.34, ratio: 1 },
      { workload: "fast", system: "slow", unit: "ms (p99)", median: 8, min: 8, max: 8, ratio: 0.25 },
    ]);
    expect(RESULT.rows.filter(({ system }) => system === "baton").map(({ ratio }) => ratio)).toEqual([1, 1, 1]);
  });

  it("has no row for who was not measured, and no ratio where Baton was not", () => {
    expect(new Set(RESULT.rows.map(({ system }) => system))).toEqual(new Set(["baton", "slow"]));
    const [row] = rowsOf("fast", new Map([["slow", measured([1], 1)]]));
    expect(row?.ratio).toBeNull();
  });

  it("has rows of the same shape for workloads that nobody is compared in", () => {
    const rows = rowsOfFigures("crash", [{ name: "Work", unit: "ms", rounds: [3, 1, 2] }]);
    expect(rows).toEqual([
      { workload: "crash", system: "baton", unit: "ms (Work)", median: 2, min: 1, max: 3, ratio: 1 },
    ]);
  });
});

describe("the goals of a comparison", () => {
  it("are held against ratios of medians, and are not reached by what was not measured", () => {
    expect(RESULT.goals).toEqual([
      "jobs/s, baton : slow: 3.50, goal: at least 3.00: reached",
      "ms (p99), baton : slow: 0.25, goal: at most 0.10: MISSED",
      "jobs/s, baton : absent: not measured",
    ]);
  });
});

describe("reports of a comparison", () => {
  it("say in the terminal who was measured, and of who was not the first and the last line of why", () => {
    const table = tableOf(RESULT);
    expect(table).toMatch(/slow +1,000 +900 to 1,100 +3\.50 × +CPU µs\/job: broker 12\.3$/m);
    expect(table).toMatch(/^ {2}jobs\/s$/m);
    expect(table).toMatch(/^ {2}ms \(p99\), less is better$/m);
    expect(table).toMatch(/absent +missing: absent is not installed$/m);
    expect(table).toMatch(/broken +failed: it did not start:\n +… last line$/m);
  });

  it("are tables in Markdown, with a column for each system", () => {
    const markdown = markdownOf([RESULT]);
    expect(markdown).toContain("| workload, unit | better | baton | slow | absent | broken |");
    expect(markdown).toContain("| fast, jobs/s | more | **3,500** | 1,000 (3.50 ×) | missing | failed |");
    expect(markdown).toMatch(/^\| fast, ms \(p99\) \| less \|/m);
    expect(markdown).toContain("| fast | broker 12.3 | broker 12.3 | missing | failed |");
  });

  it("are a well-formed picture, with a bar for each measure of a system", () => {
    const svg = plotOf([RESULT], { caption: "here & now", kinds: { baton: "baton", slow: "peer" } });
    expect(unclosed(svg)).toEqual([]);
    expect(svg).toContain("Jobs &lt;&quot;fast&quot; &amp; safe&gt;");
    expect(svg).toContain("here &amp; now");
    expect(svg.match(/<rect class="(baton|peer)"/g)).toHaveLength(2 * OUTCOMES.size);
    expect(svg).toContain(">missing</text>");
    expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  });
});

/** The tags that are open at the end, or closed without having been opened; bare ampersands count too. */
function unclosed(xml: string): string[] {
  const open: string[] = [];
  for (const [, closing, name = "", selfClosing] of xml.matchAll(
    /<(\/?)([a-z]+)(?:\s+[a-zA-Z-]+="[^"<]*")*\s*(\/?)>/g,
  )) {
    if (selfClosing) continue;
    if (!closing) open.push(name);
    else if (open.at(-1) === name) open.pop();
    else open.push(`/${name}`);
  }
  const texts = xml.replaceAll(/<[^>]*>/g, "");
  return [...open, ...(texts.match(/&(?!(?:amp|lt|gt|quot);)|</g) ?? [])];
}
