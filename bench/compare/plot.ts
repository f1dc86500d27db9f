/** All results as one picture (SVG): bars in groups, one group for each measure, in two columns. */
import { isLessBetter, shown } from "../support/report.ts";
import type { System } from "../systems/system.ts";
import { labelsOf, type Result, rowOf } from "./result.ts";
import { OWN, unitOf } from "./rows.ts";

export type PlotOptions = {
  /** Above all groups: where and when it was measured. */
  readonly caption: string;
  /** By which a bar gets its colour. */
  readonly kinds: Readonly<Record<string, System["kind"]>>;
};

type Bar = { readonly system: string; readonly value: number; readonly text: string };
type Group = { readonly title: string; readonly unit: string; readonly bars: readonly Bar[] };

const COLUMNS = 2;
const COLUMN_WIDTH = 560;
const MARGIN = 24;
const HEAD_HEIGHT = 76;
const TITLE_HEIGHT = 40;
const BAR_HEIGHT = 14;
const BAR_STEP = 20;
const GROUP_GAP = 22;
const NAME_WIDTH = 84;
/** To the right of the longest bar, for its figures. */
const TEXT_WIDTH = 132;
const LONGEST_BAR = COLUMN_WIDTH - NAME_WIDTH - TEXT_WIDTH;

/** With its own ground, so that it can be read on a page of any colour; light or dark as its reader prefers. */
const STYLE = `
  .ground { fill: #ffffff }
  text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .head { font-size: 18px; font-weight: 600 }
  .title { font-size: 13px; font-weight: 600 }
  .quiet { fill: #59636e }
  .baton { fill: #0969da }
  .peer { fill: #afb8c1 }
  .limit { fill: #ffffff; stroke: #818b98; stroke-dasharray: 3 2 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 }
    text { fill: #f0f6fc }
    .quiet { fill: #9198a1 }
    .baton { fill: #4493f8 }
    .peer { fill: #57606a }
    .limit { fill: #0d1117; stroke: #9198a1 }
  }`;

export function plotOf(results: readonly Result[], { caption, kinds }: PlotOptions): string {
  const columns = Array.from({ length: COLUMNS }, () => ({ height: HEAD_HEIGHT, parts: [] as string[] }));
  for (const group of results.flatMap(groupsOf)) {
    const [first, ...others] = columns;
    if (!first) continue;
    const column = others.reduce((least, other) => (other.height < least.height ? other : least), first);
    const left = MARGIN + columns.indexOf(column) * (COLUMN_WIDTH + MARGIN);
    column.parts.push(drawn(group, kinds, left, column.height));
    column.height += heightOf(group);
  }
  const width = MARGIN + COLUMNS * (COLUMN_WIDTH + MARGIN);
  const height = Math.max(...columns.map((column) => column.height));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">`,
    `<title>Baton beside other job systems</title>`,
    `<style>${STYLE}\n</style>`,
    `<rect class="ground" width="${width}" height="${height}"/>`,
    `<text class="head" x="${MARGIN}" y="32">Baton beside other job systems</text>`,
    `<text class="quiet" x="${MARGIN}" y="54">${escaped(`${caption}; ×: how many times a bar Baton's is; dashed: limits, no systems to use`)}</text>`,
    ...columns.flatMap(({ parts }) => parts),
    "</svg>\n",
  ].join("\n");
}

function groupsOf(result: Result): Group[] {
  return labelsOf(result).map((label) => {
    const unit = unitOf(label);
    const bars = [...result.outcomes.keys()].flatMap((system): Bar[] => {
      const row = rowOf(result, system, label);
      const kind = result.outcomes.get(system)?.kind;
      if (!row) return kind === "missing" || kind === "failed" ? [{ system, value: 0, text: kind }] : [];
      const ratio = row.ratio === null || system === OWN ? "" : ` · ${row.ratio.toFixed(2)} ×`;
      return [{ system, value: row.median, text: `${shown(row.median, unit)}${ratio}` }];
    });
    const better = isLessBetter(unit) ? ", less is better" : "";
    return { title: result.title, unit: `${result.name}, ${label}${better}`, bars };
  });
}

function heightOf({ bars }: Group): number {
  return TITLE_HEIGHT + bars.length * BAR_STEP + GROUP_GAP;
}

function drawn({ title, unit, bars }: Group, kinds: PlotOptions["kinds"], left: number, top: number): string {
  const most = Math.max(...bars.map(({ value }) => value));
  const lines = bars.map(({ system, value, text }, n) => {
    const y = top + TITLE_HEIGHT + n * BAR_STEP;
    const length = most === 0 ? 0 : (value / most) * LONGEST_BAR;
    const start = left + NAME_WIDTH;
    const baseline = y + BAR_HEIGHT - 3;
    return [
      `<text x="${start - 8}" y="${baseline}" text-anchor="end">${escaped(system)}</text>`,
      `<rect class="${kinds[system] ?? "peer"}" x="${start}" y="${y}" width="${length.toFixed(1)}" height="${BAR_HEIGHT}" rx="2"/>`,
      `<text class="quiet" x="${(start + length + 6).toFixed(1)}" y="${baseline}">${escaped(text)}</text>`,
    ].join("\n");
  });
  return [
    `<text class="title" x="${left}" y="${top + 14}">${escaped(title)}</text>`,
    `<text class="quiet" x="${left}" y="${top + 31}">${escaped(unit)}</text>`,
    ...lines,
  ].join("\n");
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
