/** Prints what a list has, up to a limit: as a table for people, or as JSON, one object a line. */
import type { Jsonable } from "../client/index.ts";
import { integer } from "../setting-values.ts";
import { type Io, note, print } from "./command.ts";
import { value } from "./options.ts";

const PAGE_LIMIT = 1_000;

export function limitOption(otherwise: number) {
  return value(integer(1, 1_000_000_000), `At most so many. [default ${otherwise}]`);
}

/** How many to ask for in one page: one more than are shown, to know whether there are more. */
export function pageSizeFor(limit: number): number {
  return Math.min(limit + 1, PAGE_LIMIT);
}

export async function printList<T extends Jsonable>(
  items: AsyncIterable<T>,
  io: Io,
  { limit, json, none, show }: ListForm<T>,
): Promise<void> {
  const shown: T[] = [];
  let count = 0;
  let more = false;
  for await (const item of items) {
    if (count === limit) {
      more = true;
      break;
    }
    count++;
    if (json) print(io, JSON.stringify(item));
    else shown.push(item);
  }
  if (json) return;
  if (count === 0) note(io, none);
  else print(io, show(shown));
  if (more) note(io, `there are more: --limit shows more than ${limit}`);
}

type ListForm<T> = {
  readonly limit: number;
  readonly json: boolean;
  /** What to say where there is none. */
  readonly none: string;
  readonly show: (items: readonly T[]) => string;
};
