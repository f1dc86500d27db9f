/**
 * The fenced blocks of README's chapters. The word after a block's language says which terminal it stands for (GitHub
 * shows only the language): commands go to that terminal, and any other block is what this terminal then shows.
 */
export type Block = {
  readonly kind: "commands" | "output";
  readonly terminal: string;
  readonly lines: readonly string[];
};

const FENCED = /^```(\w+)(?: (\w+))?\n(.*?)\n```$/gms;

/** Output without a terminal's name belongs to the commands before it. */
export function blocksOf(readme: string, chapters: readonly string[]): Block[] {
  let terminal = "";
  return chapters
    .flatMap((title) => [...chapterOf(readme, title).matchAll(FENCED)])
    .map(([, language, name, text = ""]) => {
      const lines = text.split("\n");
      if (language !== "sh") return { kind: "output", terminal: name ?? terminal, lines };
      terminal = name ?? "main";
      return { kind: "commands", terminal, lines };
    });
}

function chapterOf(readme: string, title: string): string {
  const chapter = readme.split(/^## /m).find((text) => text.startsWith(`${title}\n`));
  if (chapter === undefined) throw new Error(`README has no chapter "${title}"`);
  return chapter;
}

/** What differs from run to run: times and tokens. */
export function masked(text: string): string {
  return text
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "<time>")
    .replace(/"leaseToken": "[^"]+"/g, '"leaseToken": "<token>"')
    .replace(/"(\w+AtMs)":\d+/g, '"$1":<ms>');
}
