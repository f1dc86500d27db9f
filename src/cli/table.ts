/** Aligned columns under a line of headings: texts to the left, numbers to the right. */

export type Column<T> = {
  readonly heading: string;
  /** A number stands to the right. */
  readonly of: (item: T) => string | number;
};

export function table<T>(columns: readonly Column<T>[], items: readonly T[]): string {
  const cells = items.map((item) => columns.map(({ of }) => of(item)));
  const aligned = columns.map(({ heading }, index) => {
    const texts = [heading, ...cells.map((row) => String(row[index] ?? ""))];
    const width = Math.max(...texts.map((text) => text.length));
    const isNumber = cells.some((row) => typeof row[index] === "number");
    return texts.map((text) => (isNumber ? text.padStart(width) : text.padEnd(width)));
  });
  const lines = Array.from({ length: items.length + 1 }, (_, line) => aligned.map((column) => column[line] ?? ""));
  return lines.map((line) => line.join("  ").trimEnd()).join("\n");
}
