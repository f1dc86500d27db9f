import { badRequest } from "../model/errors.ts";

/** How a worker begins; undefined: it closed its side without a word. Throws when it says nothing in time. */
export async function firstRequest<Request>(
  incoming: AsyncIterator<Request>,
  withinMs: number,
): Promise<Request | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const overdue = new Promise<never>((_, reject) => {
    const description = `is required, and has not come within ${withinMs / 1_000} s`;
    timer = setTimeout(() => reject(badRequest([{ field: "start", description }])), withinMs);
  });
  try {
    const { done, value } = await Promise.race([incoming.next(), overdue]);
    return done === true ? undefined : value;
  } finally {
    clearTimeout(timer);
  }
}
