/** For commands that run until somebody ends them: the first signal aborts, the second ends the process as usual. */

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** The reason of the abort. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
}

export async function untilInterrupted<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  const onSignal = () => {
    off();
    abort.abort(new Interrupted("interrupted"));
  };
  const off = () => {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    return await run(abort.signal);
  } finally {
    off();
  }
}
