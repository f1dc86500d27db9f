/** Lists that come page by page. */
import type { CallOptions } from "./calls.ts";
import type { Jsonable } from "./output.ts";

/** What every list takes. */
export type PageOptions = CallOptions & {
  /** How many a page may have; default 100. */
  readonly pageSize?: number | undefined;
  /** `nextPageToken` of the page before. Default: the first page. */
  readonly pageToken?: string | undefined;
};

export type Page<T> = Jsonable & {
  readonly items: readonly T[];
  /** Undefined: this was the last page. */
  readonly nextPageToken: string | undefined;
};

/** Of all pages, asked for as they are needed; each page is a call with limits of its own. */
export async function* allPages<T>(
  page: (pageToken: string | undefined) => Promise<Page<T>>,
): AsyncGenerator<T, void, undefined> {
  let token: string | undefined;
  do {
    const { items, nextPageToken } = await page(token);
    yield* items;
    token = nextPageToken;
  } while (token !== undefined);
}
