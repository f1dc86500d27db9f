/**
 * What a completion event says of a job that has finished: README describes it. It is all that is known of a job which
 * is not stored any more. Times are ms since 1970 by Redis's clock.
 */
export type Completion = {
  readonly queue: string;
  readonly id: string;
  readonly state: "COMPLETED" | "FAILED";
  readonly attempt: number;
  readonly failures: number;
  /** "": nobody had it, or that is not known. */
  readonly workerId: string;
  /** 0: not known, for it was pulled. */
  readonly putAtMs: number;
  readonly reservedAtMs: number | undefined;
  readonly finishedAtMs: number;
  /** Undefined for none, and for one that is too large for an event. */
  readonly result: CompletionResult | undefined;
  readonly error: CompletionError | undefined;
};

export type CompletionResult = { readonly content: string | Uint8Array; readonly contentType: string };

export type CompletionError = { readonly type: string; readonly message: string; readonly permanent: boolean };
